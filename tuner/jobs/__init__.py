"""Searches that run in other processes: handed over, followed by their journals, edited, stopped.

Main names: `SearchStatus`, `submit`, `EditRequest`, `stop`.
"""
