"""Trains many trials on one device: plan a quantum, compute it, settle it, report.

Main names: `Engine`, `Report`.
"""
