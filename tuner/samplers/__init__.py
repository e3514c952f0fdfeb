"""Which configuration is tried next: points to try first, priors, then Optuna, Sobol or the grid.

Main names: `Sampler`, `Observation`.
"""
