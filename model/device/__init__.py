"""Devices: precision, memory, asynchronous copies, and the environment that bits depend on.

Main names: `Precision`, `environment`.
"""
