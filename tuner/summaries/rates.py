"""Curves of the learning rates that a search space can draw; without Plotly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.schedules import ScheduleContext, learning_rate
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Parameter, Value, default_value, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown

MOST_POINTS = 2_000  # of a curve
# Parameters that change the number of updates, or the rate of `noam`.
_SIZES = ("context_length", "d_model")
_COUNTS = ("warmup_steps", "batch_size", "total_steps", "epochs")


@dataclass(frozen=True)
class RateCurve:
    """Learning rate of one draw, by update.

    Attributes:
        label: "defaults", or the value that differs from the defaults.
        place: index of the differing parameter, and index of its value.
        steps: updates, (points,), int64.
        rates: α_t of each update, (points,), float64.
    """

    label: str
    place: tuple[int, int]
    steps: npt.NDArray[np.int64]
    rates: npt.NDArray[np.float64]


def rate_curves(
    space: SearchSpace, facts: DataFacts, most_points: int = MOST_POINTS
) -> dict[str, list[RateCurve]]:
    """Return, by schedule, the curve of the defaults and those of each parameter at its ends.

    One parameter at a time differs from its default; a curve equal to that of the defaults is
    omitted. The schedule `plateau` is drawn without reports, as if the loss never stopped falling.

    Args:
        space: search space.
        facts: facts of the data.
        most_points: most points of a curve.
    """
    panels = {}
    for schedule in cast(list[str], space.possible("schedule")):
        base = {**space.defaults(), "schedule": schedule}
        curves = [_curve(space, base, facts, most_points)]
        varied = [p for p in space.searched if _matters(p, schedule) and space.is_drawn(p, base)]
        for i, parameter in enumerate(varied):
            for j, value in enumerate(_extremes(parameter)):
                draw = {**base, parameter.label: value}
                curve = _curve(space, draw, facts, most_points, _label(parameter, value), (i, j))
                if not _are_equal(curve, curves[0]):
                    curves.append(curve)
        panels[schedule] = curves
    return panels


def _matters(parameter: Parameter, schedule: str) -> bool:
    """Return whether a parameter changes the learning rate under a schedule."""
    row = SYMBOL_TABLE.get(parameter.name)
    if row is None:
        return parameter.name in _SIZES
    return row.name in _COUNTS or schedule in row.used_when.get("schedule", ())


def _extremes(parameter: Parameter) -> Iterator[Value]:
    """Yield the smallest and the largest value; of a choice of names, every value."""
    values = parameter.distribution.ends()
    if isinstance(values[0], str):
        yield from values
    else:
        numbers = cast(list[float], values)
        yield from dict.fromkeys((min(numbers), max(numbers)))


def _label(parameter: Parameter, value: Value) -> str:
    times = f"·{symbol(parameter.fraction_of)}" if parameter.fraction_of else ""
    return f"{symbol(parameter.name)} = {shown(value)}{times}"


def _curve(
    space: SearchSpace,
    draw: Mapping[str, Value],
    facts: DataFacts,
    most_points: int,
    label: str = "defaults",
    place: tuple[int, int] = (0, 0),
) -> RateCurve:
    h = space.derive(draw, facts.train_size)
    d_model = space.values(draw).get("d_model", default_value("d_model"))
    context = ScheduleContext(cast(int, d_model))
    points = min(h.total_steps, most_points)
    steps = np.unique(np.linspace(1, h.total_steps, points).round().astype(np.int64))
    rates = np.array([learning_rate(step, h, context) for step in steps.tolist()])
    return RateCurve(label, place, steps, rates)


def _are_equal(a: RateCurve, b: RateCurve) -> bool:
    return np.array_equal(a.steps, b.steps) and np.array_equal(a.rates, b.rates)
