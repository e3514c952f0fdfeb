"""Parts of scaling.py: a search of stubs that measures its driver."""
