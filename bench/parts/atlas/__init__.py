"""Parts of atlas.py: its texts, and the cells that it trains."""
