"""Scaling laws of searches: optima at several sizes, power laws with intervals, predictions.

Main names: `measure`, `smooth`, `fit_laws`, `Prediction`, `write_prediction`, `draw_scaling`.
"""
