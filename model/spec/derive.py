"""Complete hyperparameters from a few: defaults, fractions, and the rows that the budget sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters, find_symbol, nearest
from model.spec.symbol import FractionOf, Value


def derive(
    values: Mapping[str, Value | FractionOf],
    *,
    train_sequences: int,
    context_length: int,
    budget_tokens: int | None = None,
) -> Hyperparameters:
    """Complete some rows with the defaults and with the rows that follow from the budget.

    Args:
        values: row name → value or `FractionOf` another row.
        train_sequences: |Data|, training sequences in one epoch.
        context_length: tokens per sequence.
        budget_tokens: training tokens of the full budget.

    Returns:
        The hyperparameters, with N_epoch = ⌈T_total·B/|Data|⌉.

    Raises:
        ValueError: if not exactly one of T_total, N_epoch and `budget_tokens` is given, a
            name is unknown, fractions refer to each other in a circle, or (as pydantic's
            ValidationError) a row is out of range.
    """
    for name in values:
        if name not in SYMBOL_TABLE:
            raise ValueError(f"unknown hyperparameter {name!r}.{nearest(name)}")
    budgets = [name for name in ("total_steps", "epochs") if name in values]
    if len(budgets) + (budget_tokens is not None) != 1:
        raise ValueError("give exactly one of T_total, N_epoch and a budget in tokens")
    complete: dict[str, Value | FractionOf] = {
        row.name: row.default for row in SYMBOL_TABLE.values() if row.default is not None
    }
    complete.update(values)
    batch_size = _count("batch_size", complete)
    if "epochs" in values:
        complete["total_steps"] = _count("epochs", complete) * train_sequences // batch_size
    elif budget_tokens is not None:
        complete["total_steps"] = math.ceil(budget_tokens / (batch_size * context_length))
    total_steps = _count("total_steps", complete)
    complete["epochs"] = math.ceil(total_steps * batch_size / train_sequences)
    resolved = {name: _resolve(name, complete, ()) for name in complete}
    return Hyperparameters.model_validate(resolved)


def with_row_names(values: Mapping[str, Value | FractionOf]) -> dict[str, Value | FractionOf]:
    """Replace symbols and other spellings by the names of their rows: `α_max`, `max_learning_rate`.

    Unknown names stay as they are: `derive` reports them.

    Raises:
        ValueError: if two spellings name one row.
    """
    named: dict[str, Value | FractionOf] = {}
    for spelling, value in values.items():
        name = _row_name(spelling)
        if name in named:
            raise ValueError(f"{name} is given twice, the second time as {spelling!r}")
        if isinstance(value, FractionOf):
            value = FractionOf(_row_name(value.name), value.share)
        named[name] = value
    return named


def _row_name(spelling: str) -> str:
    row = find_symbol(spelling)
    return spelling if row is None else row.name


def _count(name: str, values: Mapping[str, Value | FractionOf]) -> int:
    """Return the value of a row from which others are derived, as an integer."""
    row, value = SYMBOL_TABLE[name], values[name]
    if isinstance(value, FractionOf) or not row.accepts(value):
        raise ValueError(f"{row.symbol} must be a whole number in {row.range}, got {value}")
    return int(value)


def _resolve(name: str, values: Mapping[str, Value | FractionOf], path: tuple[str, ...]) -> Value:
    """Follow fractions to a number; round the number if the row is an integer."""
    value = values[name]
    if not isinstance(value, FractionOf):
        return value
    if name in path:
        raise ValueError(f"{name} is a fraction of itself: {' of '.join((*path, name))}")
    total = _resolve(value.name, values, (*path, name)) if value.name in values else None
    share = value.share * total if isinstance(total, int | float) else math.nan
    if not math.isfinite(share):
        raise ValueError(f"{name} cannot be {value.share:g} of {value.name}")
    row = SYMBOL_TABLE[name]
    if row.kind is not int:
        return share
    # A default share of a short trial may round to 0, which the row may forbid.
    return max(round(share), int(cast(float, row.low))) if value == row.default else round(share)
