"""Pictures of a coordinate check, and of sweeps of the learning rate at several sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import TunerError
from tuner.report.palette import GRID
from tuner.transfer.coordinate_check import CoordinateCheck, SizeVerdict
from tuner.transfer.sweep import KINDS, Sweep
from tuner.transfer.verdict import optima_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_check(check: CoordinateCheck, steps: Sequence[int], path: Path, title: str) -> None:
    """Write a PNG: a row for each axis, a column for each quantity, a line for each update.

    Raises:
        TunerError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second

    axes = list(dict.fromkeys(verdict.axis for verdict in check.verdicts))
    quantities = list(dict.fromkeys(verdict.quantity for verdict in check.verdicts))
    figure = Figure(figsize=(2.6 * len(quantities), 2.7 * len(axes)), layout="constrained")
    panels = figure.subplots(len(axes), len(quantities), squeeze=False)
    for verdict in check.verdicts:
        row, column = axes.index(verdict.axis), quantities.index(verdict.quantity)
        _draw(panels[row][column], check, verdict, steps)
    panels[0][-1].legend(fontsize="x-small", title="update", title_fontsize="x-small")
    _save(figure, path, title)


def draw_sweeps(sweeps: Sequence[Sweep], path: Path, title: str) -> None:
    """Write a PNG: loss against learning rate at each size, scaled and in the usual way.

    Raises:
        TunerError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    heads = {"scaled": "with the factors of the proxy", "standard": "usual parametrization"}
    for ax, kind in zip(panels, KINDS, strict=True):
        own = [sweep for sweep in sweeps if sweep.kind == kind]
        for index, (sweep, best) in enumerate(zip(own, optima_of(own), strict=True)):
            means = {x: float(np.mean(losses)) for x, losses in sweep.losses.items()}
            finite = [(2**x, mean) for x, mean in means.items() if math.isfinite(mean)]
            colour = f"C{index}"
            ax.plot(*zip(*finite, strict=True), f"{colour}o-", markersize=4, label=sweep.size.text)
            if best is not None:
                ax.plot([2**best.octaves], [best.loss], f"{colour}D", markersize=8, mfc="none")
        ax.set_xscale("log", base=2)
        ax.set_title(heads[kind], fontsize="small")
        ax.set_xlabel("learning rate / the winner's", fontsize="small")
        ax.grid(color=GRID)
    panels[0].set_ylabel("val_loss (◇ lowest point)", fontsize="small")
    panels[0].legend(fontsize="small")
    _save(figure, path, title)


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize="medium")
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise TunerError(f"-o {path}: cannot be written: {error.strerror}") from error


def _draw(ax: Axes, check: CoordinateCheck, verdict: SizeVerdict, steps: Sequence[int]) -> None:
    pairs = [
        (member.size, np.array(sizes[verdict.quantity]))
        for member, sizes in zip(check.members, check.sizes, strict=True)
        if member.axis == verdict.axis
    ]
    at = [size for size, _ in pairs]
    for i, step in enumerate(steps):
        colour = f"C{i}"
        means = [values[:, i].mean() for _, values in pairs]
        ax.plot(at, means, f"{colour}o-", markersize=3, linewidth=1.2, label=str(step))
        low, high = ([f(values[:, i]) for _, values in pairs] for f in (np.min, np.max))
        ax.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(at, [str(size) for size in at])
    mark = "kept" if verdict.is_kept else f"∝ {verdict.axis}^{verdict.slope:+.2f}"
    ax.set_title(f"{verdict.quantity}: {mark}", fontsize="small")
    ax.set_xlabel("d_model" if verdict.axis == "width" else "n_layers", fontsize="small")
    ax.grid(color=GRID)
