"""Searches that nobody trained, of any size, for `load.py`."""
