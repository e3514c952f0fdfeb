"""Checkpoints on disk: atomic, checksummed, written in the background; and warm starts.

Main names: `read`, `write`, `Writer`, `save_checkpoint`, `load_checkpoint`, `WarmStartSource`.
"""
