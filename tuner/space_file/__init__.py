"""Search-space files: YAML to a search space, or all mistakes with line and column.

Main names: `load_space`, which reads a file; `Override`, a value of the command line.
"""
