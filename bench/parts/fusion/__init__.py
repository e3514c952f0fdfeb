"""Parts of fusion.py: models and jobs, the sides that train them, processes, result tables."""
