"""Parts of bench/pages.py."""
