"""Sides of bench/lora.py, each a program of its own; face `ours` and `theirs`."""
