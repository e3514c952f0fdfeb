"""Parts of overhead.py: the search space, and workers that sleep instead of training."""
