"""Output on a terminal: the live view of a search, progress, tables, the summary, growing texts.

Main names: `LiveView`, `LogView`, `show_progress`, `table`, `print_summary`, `TextsView`.
"""
