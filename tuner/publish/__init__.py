"""A finished search for others: a registered model with its card, and the report on its run.

Main names: `register_model`, `attach_report`.
"""
