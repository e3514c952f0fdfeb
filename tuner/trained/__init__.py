"""Uses of recorded trials: load, replay, start a search from one, sample text, export.

Main names: `load_search`, `load_trial`, `replay`, `export`.
"""
