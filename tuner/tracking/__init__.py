"""MLflow: a search is a parent run, a trial a child run; one thread writes them.

Main names: `MlflowProjection` writes a search, `RunSettings` says where; `Record` reads a store.
"""
