"""Commands that keep a home and a shell in order: sync, delete, clean, completion."""
