"""Loss collapse: normalised curves of all trials, the band of the good ones, and those outside."""

from __future__ import annotations

import plotly.graph_objects as go

from tuner.formatting import counted
from tuner.report.figures import new_figure, value_axis
from tuner.report.palette import DIVERGED, FINISHED, PALE, ordered
from tuner.report.series import ReportData
from tuner.results.collapse import GOOD, Collapse, collapses

_METRIC = "val_loss"


def collapses_of(series: ReportData) -> list[Collapse]:
    """Return the bands of a search; none if its scheduler stops trials, or it seeks no loss."""
    result = series.result
    if result.space.search.scheduler != "none" or series.metric != _METRIC:
        return []
    return collapses(series.originals, series.metric)


def caption(found: Collapse, metric: str) -> str:
    """Return the caption: the meaning of the band, and the trials that left it early."""
    good = sum(curve.is_good for curve in found.curves)
    sizes = found.sizes
    models = f"models of {counted(len(sizes), 'size')}, " if len(sizes) > 1 else ""
    of_size = " of its size" if len(sizes) > 1 else ""
    text = (
        f"{metric} of {models}divided by the best final {metric}{of_size}, with schedule "
        f"{found.schedule}. The band holds the {good} trials that ended within "
        f"{100 * GOOD:.0f} % of the best"
    )
    if len(sizes) > 1:
        text += "; where rates transfer, good trials of all sizes lie in one band"
    early = [f"{curve.number} at report {curve.left}" for curve in found.left]
    if not early:
        return f"{text}. No trial left the band in the first 40 % of its training."
    listed = ", ".join(early[:8]) + (", …" if len(early) > 8 else "")
    return (
        f"{text}. {counted(len(early), 'trial')} left the band in the first 40 % of the training "
        f"(trial {listed}): hardly any such trial ends near the best."
    )


def figure(found: Collapse, metric: str) -> go.Figure:
    """Draw the band and a line for each trial."""
    drawn = new_figure(height=360)
    shares = found.shares
    drawn.add_scatter(
        x=[*shares, *shares[::-1]], y=[*found.upper, *found.lower[::-1]], fill="toself",
        mode="lines", fillcolor=PALE, line={"width": 0}, hoverinfo="skip", name="band",
    )  # fmt: skip
    named: set[str] = set()
    for size, is_good, has_left in sorted(
        {(c.parameters, c.is_good, c.left is not None) for c in found.curves}
    ):
        xs: list[float | None] = []
        ys: list[float | None] = []
        numbers: list[int | None] = []
        for curve in found.curves:
            if (curve.parameters, curve.is_good, curve.left is not None) == (
                size, is_good, has_left,
            ):  # fmt: skip
                xs += [*(place / found.num_places for place in curve.places), None]
                ys += [*curve.values, None]
                numbers += [*[curve.number] * len(curve.places), None]
        strength = found.sizes.index(size) / max(1, len(found.sizes) - 1)
        colour = ordered(strength) if len(found.sizes) > 1 else FINISHED
        name = "left the band" if has_left else f"{size:,} weights"
        drawn.add_scatter(
            x=xs, y=ys, mode="lines", name=name, customdata=numbers, showlegend=name not in named,
            line={
                "color": DIVERGED if has_left else colour, "width": 2.0 if is_good else 0.9,
                "dash": "dot" if has_left else "solid",
            },
            hovertemplate=f"trial %{{customdata}}, {size:,} weights: %{{y:.3f}} at %{{x:.0%}}"
            "<extra></extra>",
        )  # fmt: skip
        named.add(name)
    drawn.update_xaxes(title_text="share of the training", tickformat=".0%")
    values = [value for curve in found.curves for value in curve.values]
    drawn.update_yaxes(value_axis(values, f"{metric} / best"))
    return drawn
