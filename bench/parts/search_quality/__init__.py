"""Parts of search_quality.py: the table of losses, replayed searches, baselines, the page."""
