"""Parts of makespan.py: the search by Ray Tune and by Optuna."""
