"""The command line: commands, options and their help texts; face `parse` of `parser`.

Nothing heavy is imported, so choices and defaults are repeated here; tests compare them with the
registries.
"""
