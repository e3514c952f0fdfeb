"""MLflow: a search is a parent run, a trial a child run; a projection of the journal.

Main names: `MlflowProjection` writes a search, `Runs` its runs; `Record` reads a store.
"""
