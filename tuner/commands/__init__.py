"""One module per command. Commands are thin: Python code can do the same without them.

Main names: `run_search`, `run_validate`, `run_show`, `run_ui`, `consoles`, `print_json`.

The command line calls the handler (run_…) of a command with the parsed options, and imports its
module only then, so that --help answers at once. A handler imports modules that load torch after
it has checked the options.
"""
