"""Export of trained models to the file formats of other tools.

Main names: `FORMATS`, `export`.
"""
