"""Samplers: points to try first, priors, then Optuna, Sobol or the grid.

Main names: `Sampler`, which suggests trials; `Observation`, which it learns from.
"""
