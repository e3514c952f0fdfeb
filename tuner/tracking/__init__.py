"""MLflow: a search is a parent run, a trial a child run; written by one thread, and read back.

Main names: `Tracker`, `Record`.
"""
