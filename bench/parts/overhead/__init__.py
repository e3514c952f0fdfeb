"""Parts of overhead.py: workers that sleep instead of training."""
