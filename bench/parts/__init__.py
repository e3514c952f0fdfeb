"""Parts of the commands in bench/: shared modules, and a folder for each larger command."""
