"""How far each trial trains: one paper per file behind one protocol.

Main names: `SCHEDULERS`, `Scheduler`.
"""
