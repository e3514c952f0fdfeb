"""Searches that run in other processes: handed over, followed by their journals, stopped.

Main names: `SearchStatus`, `submit`, `stop`.
"""
