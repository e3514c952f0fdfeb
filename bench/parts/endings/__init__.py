"""How searches end: signals, kills, and drivers that take turns. The face is `endings.py`."""
