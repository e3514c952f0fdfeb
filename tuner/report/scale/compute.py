"""Loss against compute, for searches over models of several sizes: each report, and the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import plotly.graph_objects as go

from tuner.report.palette import WINNER, shades
from tuner.report.picture import Picture, add_lines, log_axis, new_figure, value_axis
from tuner.report.series import ReportData
from tuner.texts.formatting import counted


class ComputeCurve(NamedTuple):
    """Values of a trial by the operations of its training.

    Attributes:
        number: number of the trial.
        parameters: number of weights of its model.
        flops: operations up to each report with a finite value.
        values: objective at these reports.
    """

    number: int
    parameters: int
    flops: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Compute:
    """Curves of all trials, and their Pareto front.

    Attributes:
        curves: curves by number.
        front: operations, value and trial of each report than which no other has a better value
            with as few operations; by operations.
        sizes: numbers of weights of the models, each once, smallest first.
    """

    curves: Sequence[ComputeCurve]
    front: Sequence[tuple[int, float, int]]
    sizes: Sequence[int]


def compute_of(series: ReportData) -> Compute | None:
    """Return losses against compute; None if all models have one size."""
    by_number = {trial.number: trial for trial in series.trials}
    curves = []
    for curve in series.curves:
        trial = by_number[curve.number]
        size, each = trial.spec.architecture.num_parameters, trial.flops(1)
        if curve.tokens:
            flops = tuple(each * tokens for tokens in curve.tokens)
            curves.append(ComputeCurve(curve.number, size, flops, curve.values))
    sizes = sorted({curve.parameters for curve in curves})
    return Compute(curves, _front(curves, series.sign), sizes) if len(sizes) > 1 else None


def _front(curves: Sequence[ComputeCurve], sign: int) -> list[tuple[int, float, int]]:
    points = [
        (f, sign * v, c.number) for c in curves for f, v in zip(c.flops, c.values, strict=True)
    ]
    front: list[tuple[int, float, int]] = []
    for flops, rank, number in sorted(points):
        if not front or rank < sign * front[-1][1]:
            front.append((flops, sign * rank, number))
    return front


def pictures(series: ReportData) -> list[Picture]:
    """Draw the losses of models of several sizes against compute."""
    found = compute_of(series)
    if found is None:
        return []
    title, drawn = f"{series.metric} against compute", figure(found, series.metric)
    return [Picture("compute", title, caption(found, series.metric), drawn)]


def caption(found: Compute, metric: str) -> str:
    """Return the caption: the meaning of lines and front, and the end of the front."""
    flops, value, number = found.front[-1]
    weights = next(c.parameters for c in found.curves if c.number == number)
    return (
        f"{metric} against the operations of the training, of {counted(len(found.sizes), 'size')} "
        f"from {found.sizes[0]:,} to {found.sizes[-1]:,} weights; a larger model has a stronger "
        f"colour. Thick: the Pareto front, the reports than which none is better with as few "
        f"operations. It ends at trial {number} of {weights:,} weights, with {value:.4f} after "
        f"{flops:.3g} FLOPs. Reports before the end of a trial have a learning rate that has not "
        f"fallen yet: compare ends with ends."
    )


def figure(found: Compute, metric: str) -> go.Figure:
    """Draw a line for each trial, and the front."""
    drawn = new_figure(height=400)
    for size, colour in zip(found.sizes, shades(len(found.sizes)), strict=True):
        add_lines(
            drawn, ((c.number, c.flops, c.values) for c in found.curves if c.parameters == size),
            f"trial %{{customdata}}, {size:,} weights: %{{y:.4f}} at %{{x:.3~e}} FLOPs",
            mode="lines+markers", name=f"{size:,} weights",
            line={"color": colour, "width": 1.2}, marker={"size": 5},
        )  # fmt: skip
    xs_front, ys_front, numbers_front = zip(*found.front, strict=True)
    drawn.add_scatter(
        x=xs_front, y=ys_front, mode="lines", name="front", customdata=numbers_front,
        line={"color": WINNER, "width": 4, "shape": "hv"},
        hovertemplate="front, trial %{customdata}: %{y:.4f} at %{x:.3~e} FLOPs<extra></extra>",
    )  # fmt: skip
    flops = [x for curve in found.curves for x in curve.flops]
    drawn.update_xaxes(log_axis(flops, "FLOPs of the training", "~e"))
    drawn.update_yaxes(value_axis([v for c in found.curves for v in c.values], metric))
    return drawn
