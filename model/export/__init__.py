"""Trained models in the file formats of other tools.

Main names: `FORMATS`, `export`.
"""
