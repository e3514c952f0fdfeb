"""The optimizers: one update rule, its rows of coefficients, and what does not fit it."""

from model.optimizers.adamw import AdamW
from model.optimizers.fused import adamw_, fits
from model.optimizers.layout import Layout
from model.optimizers.rule import IDLE, Coefficients, columns, stack_rows, update
from model.optimizers.table import OPTIMIZERS, coefficients

__all__ = [
    "IDLE",
    "OPTIMIZERS",
    "AdamW",
    "Coefficients",
    "Layout",
    "adamw_",
    "coefficients",
    "columns",
    "fits",
    "stack_rows",
    "update",
]
