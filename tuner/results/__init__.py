"""Results of a search: objects, pandas tables, an Optuna study, sentences, recommendations.

Main names: `SearchResult`, `advise`.
"""
