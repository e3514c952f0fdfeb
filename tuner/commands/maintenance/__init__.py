"""Commands that keep a home and a shell in order: delete, clean, completion."""
