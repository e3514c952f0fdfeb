"""Loss collapse: normalised curves of all trials, the band of the good ones, and those outside."""

from __future__ import annotations

import plotly.graph_objects as go

from tuner.report.palette import DIVERGED, FINISHED, PALE, shades
from tuner.report.picture import Picture, add_lines, new_figure, value_axis
from tuner.report.series import ReportData
from tuner.results.collapse import GOOD, Collapse, collapses
from tuner.texts.formatting import counted

_METRIC = "val_loss"


def collapses_of(series: ReportData) -> list[Collapse]:
    """Return the bands of a search; none if its scheduler stops trials, or it seeks no loss."""
    result = series.result
    if result.space.search.scheduler != "none" or series.metric != _METRIC:
        return []
    return collapses(series.originals, series.metric)


def pictures(series: ReportData) -> list[Picture]:
    """Draw the normalised curves of each schedule."""
    metric = series.metric
    return [
        Picture(
            f"collapse-{found.key}", f"Collapsed curves, {found.schedule}", caption(found, metric),
            figure(found, metric),
        )
        for found in collapses_of(series)
    ]  # fmt: skip


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
    one = len(found.sizes) == 1
    colours = dict(zip(found.sizes, [FINISHED] if one else shades(len(found.sizes)), strict=True))
    styles = {c: (c.parameters, c.is_good, c.left is not None) for c in found.curves}
    for style in sorted(set(styles.values())):
        size, is_good, has_left = style
        name = "left the band" if has_left else f"{size:,} weights"
        add_lines(
            drawn,
            (
                (c.number, [place / found.num_places for place in c.places], c.values)
                for c in found.curves if styles[c] == style
            ),
            f"trial %{{customdata}}, {size:,} weights: %{{y:.3f}} at %{{x:.0%}}",
            mode="lines", name=name, showlegend=name not in named,
            line={
                "color": DIVERGED if has_left else colours[size], "width": 2.0 if is_good else 0.9,
                "dash": "dot" if has_left else "solid",
            },
        )  # fmt: skip
        named.add(name)
    drawn.update_xaxes(title_text="share of the training", tickformat=".0%")
    values = [value for curve in found.curves for value in curve.values]
    drawn.update_yaxes(value_axis(values, f"{metric} / best"))
    return drawn
