"""What a search found: as objects, pandas, an Optuna study, sentences; and what to do next.

Main names: `SearchResult`, `advise`.
"""
