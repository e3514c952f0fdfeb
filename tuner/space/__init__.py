"""A search space: parameters, conditions, settings; and how a draw becomes a `TrialSpec`.

Main names: `SearchSpace`, `Parameter`, `Objective`.
"""
