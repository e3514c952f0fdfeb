"""Search-space files: from YAML to a `SearchSpace`, or every mistake with line and column.

Main name: `load_space`.
"""
