"""Pictures of a coordinate check, and of sweeps of the learning rate at several sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from plotly.graph_objects import Figure

from tuner.report.palette import shades
from tuner.report.picture import Picture, Section, add_band, log_axis, new_figure, value_axis
from tuner.report.write import write_pictures
from tuner.texts.formatting import listed
from tuner.transfer.coordinate_check import CoordinateCheck, SizeVerdict
from tuner.transfer.sweep import KINDS, Kind, Sweep
from tuner.transfer.verdict import optima_of

_SIZES = {"width": "d_model", "depth": "n_layers"}
_TITLES = {"scaled": "With the factors of the proxy", "standard": "Usual parametrization"}
_BAND = 0.18  # opacity


def draw_check(
    check: CoordinateCheck, steps: Sequence[int], path: Path, name: str, about: str
) -> None:
    """Write a page: a section for each axis, a picture for each quantity, a line for each update.

    Raises:
        TunerError: if the file cannot be written.
    """
    sections = [
        Section(
            f"Over the {axis}",
            f"Mean absolute values after {listed(steps, 'and')} updates, against {_SIZES[axis]}; "
            "a band reaches from the smallest to the largest of the seeds.",
            [_quantity(check, v, steps) for v in check.verdicts if v.axis == axis],
        )
        for axis in dict.fromkeys(verdict.axis for verdict in check.verdicts)
    ]
    write_pictures(path, "Coordinate check", name, about, sections)


def _quantity(check: CoordinateCheck, verdict: SizeVerdict, steps: Sequence[int]) -> Picture:
    pairs = [
        (member.size, np.array(sizes[verdict.quantity]))
        for member, sizes in zip(check.members, check.sizes, strict=True)
        if member.axis == verdict.axis
    ]
    figure = new_figure(height=270, margin={"l": 56, "r": 10, "t": 10, "b": 50})
    at = [size for size, _ in pairs]
    for i, (step, colour) in enumerate(zip(steps, shades(len(steps)), strict=True)):
        low, mean, high = (
            [float(f(values[:, i])) for _, values in pairs] for f in (np.min, np.mean, np.max)
        )
        add_band(figure, at, low, high, fillcolor=colour, opacity=_BAND)
        figure.add_scatter(
            x=at, y=mean, mode="lines+markers", name=f"update {step}",
            line={"color": colour, "width": 2}, marker={"size": 6},
            hovertemplate=f"update {step}: %{{y:.4~g}} at %{{x}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(log_axis(at, _SIZES[verdict.axis]), tickvals=at, tickformat="d")
    values = [float(value) for _, values in pairs for value in values.flatten()]
    figure.update_yaxes(log_axis(values, "", "~g"))
    mark = "kept" if verdict.is_kept else f"∝ {verdict.axis}^{verdict.slope:+.2f}"
    key = f"{verdict.axis}-{verdict.quantity}"
    return Picture(key, f"{verdict.quantity}: {mark}", "", figure)


def draw_sweeps(sweeps: Sequence[Sweep], path: Path, name: str, about: str) -> None:
    """Write a page: loss against learning rate at each size, scaled and in the usual way.

    Raises:
        TunerError: if the file cannot be written.
    """
    values = [loss for sweep in sweeps for _, loss in _means(sweep)]
    axis = value_axis(values, "val_loss")
    section = Section(
        "Loss against learning rate",
        "Mean of the seeds at each rate; a diamond is the lowest point of the parabola of a size.",
        [Picture(kind, _TITLES[kind], "", _kind(sweeps, kind, axis)) for kind in KINDS],
    )
    write_pictures(path, "Verification of a proxy", name, about, [section])


def _means(sweep: Sweep) -> list[tuple[float, float]]:
    """Return the factors on the winner's rate at which no trial diverged, and their mean losses."""
    means = [(2**x, fmean(losses)) for x, losses in sorted(sweep.losses.items())]
    return [(factor, mean) for factor, mean in means if math.isfinite(mean)]


def _kind(sweeps: Sequence[Sweep], kind: Kind, axis: dict[str, object]) -> Figure:
    figure = new_figure(height=360)
    chosen = [sweep for sweep in sweeps if sweep.kind == kind]
    factors = sorted({2**x for sweep in chosen for x in sweep.losses})
    bests = optima_of(chosen)
    for sweep, best, colour in zip(chosen, bests, shades(len(chosen)), strict=True):
        points = _means(sweep)
        figure.add_scatter(
            x=[x for x, _ in points], y=[loss for _, loss in points], mode="lines+markers",
            name=sweep.size.text, line={"color": colour, "width": 2}, marker={"size": 7},
            hovertemplate=f"{sweep.size.text}: %{{y:.4f}} at %{{x:.3~g}}<extra></extra>",
        )  # fmt: skip
        if best is not None:
            figure.add_scatter(
                x=[2**best.octaves], y=[best.loss], mode="markers",
                marker={"color": colour, "size": 16, "symbol": "diamond-open"},
                hovertemplate="lowest: %{y:.4f} at %{x:.3~g}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(log_axis(factors, "learning rate / the winner's", "~g"), tickvals=factors)
    figure.update_yaxes(axis)
    return figure
