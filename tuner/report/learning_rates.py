"""Pictures of the learning rates that a search space can draw (`tuner validate --plot`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from plotly.graph_objects import Figure

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.schedules import ScheduleContext, learning_rate
from tuner.report.palette import INK, KINDS
from tuner.report.picture import Picture, Section, log_axis, new_figure, safe
from tuner.report.write import write_pictures
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Parameter, Value, default_value, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown

_MOST_POINTS = 2_000  # of a curve
_WIDE_RANGE = 20  # highest peak / lowest peak: above, the scale is logarithmic
_DECADES = 3  # shown below the lowest peak on a log scale, at most
_PLATEAU = "As if val_loss never stopped falling."
_STYLES = ("dash", "solid", "dot", "dashdot")
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


def rate_curves(space: SearchSpace, facts: DataFacts) -> dict[str, list[RateCurve]]:
    """Return, by schedule, the curve of the defaults and those of each parameter at its ends.

    One parameter at a time differs from its default; a curve equal to that of the defaults is
    omitted. The schedule `plateau` is drawn without reports, as if the loss never stopped falling.
    """
    panels = {}
    for schedule in cast(list[str], space.possible("schedule")):
        base = {**space.defaults(), "schedule": schedule}
        curves = [_curve(space, base, facts, "defaults", (0, 0))]
        varied = [p for p in space.searched if _matters(p, schedule) and space.is_drawn(p, base)]
        for i, parameter in enumerate(varied):
            for j, value in enumerate(_extremes(parameter)):
                draw = {**base, parameter.label: value}
                curve = _curve(space, draw, facts, _label(parameter, value), (i, j))
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
    label: str,
    place: tuple[int, int],
) -> RateCurve:
    h = space.derive(draw, facts.train_size)
    d_model = space.values(draw).get("d_model", default_value("d_model"))
    context = ScheduleContext(cast(int, d_model))
    points = min(h.total_steps, _MOST_POINTS)
    steps = np.unique(np.linspace(1, h.total_steps, points).round().astype(np.int64))
    rates = np.array([learning_rate(step, h, context) for step in steps.tolist()])
    return RateCurve(label, place, steps, rates)


def _are_equal(a: RateCurve, b: RateCurve) -> bool:
    return np.array_equal(a.steps, b.steps) and np.array_equal(a.rates, b.rates)


def draw_rates(space: SearchSpace, facts: DataFacts, path: str | Path) -> None:
    """Write a page with a picture of each schedule.

    Raises:
        TunerError: if the file cannot be written.
    """
    pictures = [
        Picture(schedule, schedule, _PLATEAU if schedule == "plateau" else "", _figure(curves))
        for schedule, curves in rate_curves(space, facts).items()
    ]  # fmt: skip
    section = Section("Schedules", "", pictures, has_one_legend=False)
    about = "the defaults, and one parameter at a time at its ends"
    write_pictures(path, "Learning rates", space.name, about, [section])


def _figure(curves: list[RateCurve]) -> Figure:
    """Draw one schedule: a colour for each parameter, a line style for each value."""
    figure = new_figure(height=340)
    for curve in [*curves[1:], curves[0]]:
        parameter, value = curve.place
        line = {
            "color": KINDS[parameter % len(KINDS)],
            "width": 1.6,
            "dash": _STYLES[value % len(_STYLES)],
        }
        if curve is curves[0]:
            line = {"color": INK, "width": 3}
        figure.add_scatter(
            x=curve.steps.astype(np.int32), y=curve.rates.astype(np.float32), mode="lines",
            name=curve.label, line=line,
            hovertemplate=f"{safe(curve.label)}: %{{y:.3~g}} at update %{{x:,}}<extra></extra>",
        )  # fmt: skip
    peaks = [float(curve.rates.max()) for curve in curves]
    if max(peaks) > _WIDE_RANGE * min(peaks):
        lowest = min(float(curve.rates[curve.rates > 0].min()) for curve in curves)
        ends = [max(lowest, min(peaks) / 10**_DECADES), max(peaks)]
        figure.update_yaxes(log_axis(ends, "learning rate α_t", "~g"))
    else:
        figure.update_yaxes(title_text="learning rate α_t", range=[0, 1.05 * max(peaks)])
    figure.update_xaxes(title_text="update t", rangemode="tozero", tickformat="~s")
    return figure
