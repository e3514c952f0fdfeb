"""Learning curves of all trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from tuner.report.palette import DIVERGED, INK, WINNER, shades
from tuner.report.picture import Picture, add_lines, log_axis, new_figure, value_axis
from tuner.report.series import Curve, Ending, ReportData, window
from tuner.texts.formatting import counted, listed

_DOT = 8  # pixels: a trial of one report


def pictures(series: ReportData, winner: int | None) -> list[Picture]:
    """Draw the learning curves; trials that trained longer have a stronger colour."""
    if not any(curve.tokens for curve in series.curves):
        return []
    title = f"{series.metric} of every trial"
    return [Picture("curves", title, _caption(series, winner), _figure(series, winner))]


def _caption(series: ReportData, winner: int | None) -> str:
    """Return how many trials finished, were stopped or diverged."""
    counts = Counter((c.ending, c.level) for c in series.curves)
    finished = sum(n for (kind, _), n in counts.items() if kind is Ending.FINISHED)
    total = len(series.trials)
    parts = [f"{finished} of {counted(total, 'trial')} trained to the end"]
    stopped = sorted((level, n) for (kind, level), n in counts.items() if kind is Ending.STOPPED)
    if stopped:
        where = listed((f"{n} at report {level}" for level, n in stopped), "and")
        parts.append(f"stopped: {where}")
    diverged = sum(n for (kind, _), n in counts.items() if kind is Ending.DIVERGED)
    if diverged:
        parts.append(f"{diverged} diverged (×)")
    text = "; ".join(parts) + ". A trial that trained longer has a stronger colour."
    if winner is not None:
        text += " The thick line is the winner"
        first = series.defaults_number
        has_defaults = winner != first and any(
            c.number == first and c.tokens for c in series.curves
        )
        text += ", the dashed line the defaults." if has_defaults else "."
    values = [v for c in series.curves for v in c.values]
    low, high = window(values, series.sign) or (0.0, 0.0)
    outside = sum(not low <= v <= high for v in values)
    if outside:
        verb = "is" if outside == 1 else "are"
        text += (
            f" {counted(outside, 'bad value')} {verb} outside the plot; a double click shows all."
        )
    return text


def _figure(series: ReportData, winner: int | None) -> go.Figure:
    figure = new_figure(height=430)
    first = series.defaults_number
    rest = [c for c in series.curves if c.number != winner and c.tokens]
    levels = sorted({c.level for c in rest if c.ending is not Ending.DIVERGED})
    for level, colour in zip(levels, shades(len(levels)), strict=True):
        # the defaults have their own line
        members = [c for c in rest if c.level == level and c.number != first]
        for kind in (Ending.STOPPED, Ending.OTHER, Ending.FINISHED):
            done = kind is Ending.FINISHED
            _add(
                figure, [c for c in members if c.ending is kind],
                name="finished" if done else f"{kind} at report {level}",
                line={"color": colour, "width": 2 if done else 1.3}, opacity=0.95,
            )  # fmt: skip
    _add_diverged(figure, [c for c in series.curves if c.diverged])
    for number, name, style in (
        (first, "defaults", {"color": INK, "width": 2, "dash": "dash"}),
        (winner, f"winner, trial {winner}", {"color": WINNER, "width": 4}),
    ):
        if number == winner or winner != first:
            _add(figure, [c for c in series.curves if c.number == number], name=name, line=style)
    figure.update_yaxes(value_axis([v for c in series.curves for v in c.values], series.metric))
    tokens = [t for c in series.curves for t in c.tokens if t > 0]
    title = "tokens trained by the trial"
    if tokens and max(tokens) > 30 * min(tokens):
        figure.update_xaxes(log_axis(tokens, title))
    else:
        ends = [0, 1.01 * max(tokens, default=1)]
        figure.update_xaxes(title_text=title, tickformat="~s", range=ends)
    return figure


def _add(figure: go.Figure, members: Iterable[Curve], **style: Any) -> None:
    """Add curves of one style; of trials with one report, dots."""
    drawn = [c for c in members if c.tokens]
    if drawn:
        is_line = any(len(c.tokens) > 1 for c in drawn)
        add_lines(
            figure, ((c.number, c.tokens, c.values) for c in drawn),
            "trial %{customdata}: %{y:.4f} at %{x:,} tokens",
            mode="lines" if is_line else "markers",
            marker={"size": _DOT, "color": style["line"]["color"]}, **style,
        )  # fmt: skip


def _add_diverged(figure: go.Figure, members: list[Curve]) -> None:
    """Add dotted curves, with a cross at the end of each."""
    marks = [(c.number, *c.diverged) for c in members if c.diverged]
    if not marks:
        return
    line = {"color": DIVERGED, "width": 1.2, "dash": "dot"}
    _add(figure, members, name="diverged", line=line, showlegend=False)
    numbers, xs, ys = zip(*marks, strict=True)
    figure.add_scatter(
        x=xs, y=ys, mode="markers", name="diverged", customdata=numbers,
        marker={"symbol": "x", "size": 9, "color": DIVERGED},
        hovertemplate="trial %{customdata} diverged at %{x:,} tokens<extra></extra>",
    )  # fmt: skip
