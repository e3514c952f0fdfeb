"""One module per command. Commands are thin: Python code can do the same without them.

`cli` calls a function `run_…` with the parsed options and imports its module only when the command
runs, so that `tuner --help` answers at once. What loads torch is imported after the options are
checked.
"""
