"""Publishes a search: a registered model with its card, a report on its run, a copy for Optuna.

Main names: `register_model`, `attach_report`.
"""
