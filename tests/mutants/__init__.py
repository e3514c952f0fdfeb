"""Mutants of the code for `tests/mutation.py`; `tests/mutations.py` changes users' files.

Main names: `draw_mutants`, `Executions`.
"""
