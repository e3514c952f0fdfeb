"""Samplers: points to try first, priors, then Optuna, Sobol or the grid.

Main names: `SAMPLERS`, the registry; `Sampler`, which suggests trials; `Observation`, what it
learns from.
"""
