"""Uses of recorded trials: load, replay, reuse, start a search from one, sample text, export.

Main names: `RecordedTrials`, `load_search`, `load_trial`, `replay`, `export`.
"""
