"""Runs one search: the steps of its start, decisions to the journal, then orders to the workers.

Main names: `search`, `resume`, `STEPS`, `run_session`, `Driver`, `View`, `sync`.
"""
