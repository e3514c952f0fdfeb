"""Export of trained models to the file formats of other tools, and import of pretrained ones.

Main names: `FORMATS`, `export`, `FAMILIES`, `Pretrained`.
"""
