"""Runs one search: writes decisions to the journal, carries them out, informs its observers.

Main names: `search`, `resume`, `run_search`, `Driver`, `SearchObserver`, `View`, `sync`.
"""
