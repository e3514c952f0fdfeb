"""Search spaces: parameters, conditions and settings, and the `TrialSpec` of a draw.

Main names: `SearchSpace`, `Parameter`, `Objective`.
"""
