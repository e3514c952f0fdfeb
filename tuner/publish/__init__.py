"""Publishes a search: a registered model with its card, and a report on its run.

And MLflow's pages of it. Main names: `register_model`, `attach_report`, `serve`.
"""
