"""Picture of a scaling study: basins, optima, laws and the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import TunerError
from tuner.report.palette import FINISHED, GRID, WINNER
from tuner.scaling.laws import Law, ScalingLaws
from tuner.scaling.optima import SizeOptimum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    "parameters": "weights", "flops": "FLOPs of a training", "tokens": "tokens",
    "loss": "val_loss", "α_max": "α_max", "B": "B",
}  # fmt: skip
_POINTS = 60  # of a line


def draw_scaling(
    found: ScalingLaws, path: Path, title: str, target: Mapping[str, float] | None = None
) -> None:
    """Write a PNG: the basins of all sizes, then a panel for each law.

    Laws of two variables are drawn over the weights, at the tokens of each size.

    Raises:
        TunerError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second

    name = next(n for n in found.optima.draws if n != "loss")
    count = 1 + len(found.laws) + (found.kind == "isoflop")
    figure = Figure(figsize=(3.6 * count, 3.4), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    _basins(panels[0], found, name)
    for ax, law in zip(panels[1:], found.laws, strict=False):
        _law(ax, found, law, target)
    if found.kind == "isoflop":
        _best_size(panels[-1], found)
    figure.suptitle(title, fontsize="medium")
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise TunerError(f"-o {path}: cannot be written: {error.strerror}") from error


def _basins(ax: Axes, found: ScalingLaws, name: str) -> None:
    optima = found.optima.all
    has_one = len(optima[0].values) == 1
    for i, optimum in enumerate(optima):
        colour = f"C{i}"
        runs = sorted(optimum.size.runs, key=lambda r: r.rate)
        xs = [r.rate if name == "α_max" else r.batch for r in runs]
        label = f"{optimum.size.parameters:,}" + (" (edge)" if optimum.edges else "")
        ax.plot(xs, [r.loss for r in runs], "o", color=colour, markersize=3, label=label)
        if has_one:
            line = optimum.values[name] * 2 ** np.linspace(-1.6, 1.6, _POINTS)
            ax.plot(line, optimum.curve(name, line), color=colour, linewidth=1)
        if not optimum.edges:
            ax.plot(optimum.values[name], optimum.loss, "D", color=colour, markersize=6)
    losses = [o.loss for o in optima]
    room = max(losses) - min(losses)
    ax.set_ylim(min(losses) - 0.15 * room, max(losses) + 0.5 * room)
    ax.set_xscale("log")
    _labels(ax, name, "val_loss", "optima (◇) of all sizes")
    ax.legend(fontsize="x-small", title="weights", title_fontsize="x-small")


def _law(ax: Axes, found: ScalingLaws, law: Law, target: Mapping[str, float] | None) -> None:
    name = law.variables[0]
    used = found.optima.used
    if found.kind == "levels":
        xs = [b.flops for b in found.best_sizes]
        ys = [] if law.quantity not in ("parameters", "loss") else [
            (b.parameters if law.quantity == "parameters" else b.loss).value
            for b in found.best_sizes
        ]  # fmt: skip
    else:
        xs = [getattr(o.size, name) for o in used]
        ys = [_value(o, law.quantity) for o in used]
    ends = [*xs, *([target[name]] if target and name in target else [])]
    if len(law.variables) == 1:
        line = np.geomspace(min(ends), max(ends), _POINTS)
        values = [law.predict({name: float(x)}) for x in line]
        ax.fill_between(line, [v.low for v in values], [v.high for v in values], color=FINISHED,
                        alpha=0.15, linewidth=0)  # fmt: skip
        ax.plot(line, [v.value for v in values], color=FINISHED, linewidth=1.2)
    if ys:
        ax.plot(xs, ys, "D", color=FINISHED, markersize=5)
    if target and all(v in target for v in law.variables):
        at = law.predict(target)
        ax.errorbar(
            [target[name]], [at.value], yerr=[[at.value - at.low], [at.high - at.value]], fmt="*",
            color=WINNER, markersize=11, capsize=3,
        )  # fmt: skip
    ax.set_xscale("log")
    if law.quantity != "loss":
        ax.set_yscale("log")
    e = ", ".join(f"{e.value:+.2f} ({e.low:+.2f} … {e.high:+.2f})" for e in law.exponents)
    _labels(ax, name, law.quantity, f"exponent {e}")


def _best_size(ax: Axes, found: ScalingLaws) -> None:
    (best,) = found.best_sizes
    used = found.optima.used
    ax.plot([o.size.parameters for o in used], [o.loss for o in used], "D", color=FINISHED,
            markersize=5)  # fmt: skip
    ax.axvspan(best.parameters.low, best.parameters.high, color=WINNER, alpha=0.15, linewidth=0)
    ax.axvline(best.parameters.value, color=WINNER)
    ax.set_xscale("log")
    _labels(ax, "parameters", "loss", f"best size at {best.flops:.3g} FLOPs")


def _value(optimum: SizeOptimum, quantity: str) -> float:
    return optimum.loss if quantity == "loss" else optimum.values[quantity]


def _labels(ax: Axes, x: str, y: str, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xlabel(_LABELS[x] if x in _LABELS else x, fontsize="small")
    ax.set_ylabel(_LABELS.get(y, y), fontsize="small")
    ax.set_title(title, fontsize="small")
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            axis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize="x-small")
    ax.grid(color=GRID)
