"""The commands. They are thin: all that they do can be done from Python.

Heavy modules are imported where a command needs them, so that `tuner --help` answers at once.
"""
