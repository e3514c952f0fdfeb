"""Publishes a finished search: a registered model with its card, and a report on its run.

Main names: `register_model`, `attach_report`.
"""
