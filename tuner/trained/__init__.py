"""Recorded trials put to use: loaded, replayed, continued, sampled, exported.

Main names: `load_search`, `load_trial`, `replay`, `export`.
"""
