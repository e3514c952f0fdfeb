"""Trains many trials on one device: plan a quantum, run it, settle it, report.

Main names: `Engine`, `Report`.
"""
