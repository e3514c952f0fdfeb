"""The five parts of gpu.py, and how their measurements are run, recorded and resumed."""
