"""One update rule, the optimizers as rows of its coefficients, and faster paths with the same bits.

Main names: `OPTIMIZERS`, `Coefficients`, `update`, `AdamW`.
"""
