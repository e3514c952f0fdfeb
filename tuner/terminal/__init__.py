"""What a terminal shows: live view, progress, tables, the summary."""
