"""Picture of the learning rates that a search space can draw (`tuner validate --plot`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.schedules import ScheduleContext, learning_rate
from tuner.errors import TunerError
from tuner.formatting import shown
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Parameter, Value, default_value, symbol
from tuner.space.space import SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 2_000  # of a curve
_WIDE_RANGE = 20  # highest peak / lowest peak: above, the scale is logarithmic
_DECADES = 3  # shown below the lowest peak on a log scale, at most
_STYLES = ("--", "-", ":", "-.")
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


def draw_rates(space: SearchSpace, facts: DataFacts, path: Path) -> None:
    """Write a PNG with one panel per schedule.

    Raises:
        TunerError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second

    panels = rate_curves(space, facts)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.5 * columns, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for (schedule, curves), ax in zip(panels.items(), axes, strict=False):
        _draw_panel(ax, schedule, curves)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.suptitle(
        f"{space.name}: learning rates; defaults, and one parameter at a time at its ends"
    )
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise TunerError(f"--plot {path}: cannot be written: {error.strerror}") from error


def _draw_panel(ax: Axes, schedule: str, curves: list[RateCurve]) -> None:
    """Draw one schedule: a colour for each parameter, a line style for each value."""
    for curve in curves[1:]:
        parameter, value = curve.place
        ax.plot(
            curve.steps, curve.rates, f"C{parameter % 10}{_STYLES[value % len(_STYLES)]}",
            linewidth=1.3, label=curve.label,
        )  # fmt: skip
    default = curves[0]
    ax.plot(default.steps, default.rates, "k-", linewidth=2.4, label=default.label)
    note = " (while val_loss falls)" if schedule == "plateau" else ""
    ax.set(title=f"{schedule}{note}", xlabel="update t", ylabel="learning rate α_t")
    peaks = [curve.rates.max() for curve in curves]
    if max(peaks) > _WIDE_RANGE * min(peaks):
        lowest = min(curve.rates[curve.rates > 0].min() for curve in curves)
        ax.set_yscale("log")
        ax.set_ylim(max(lowest / 2, min(peaks) / 10**_DECADES), max(peaks) * 2)
    else:
        ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
