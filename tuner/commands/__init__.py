"""One module per command. Commands are thin: all that they do can be done from Python.

The command line imports a module of this room when its command runs, so that `tuner --help`
answers at once.
"""
