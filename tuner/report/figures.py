"""Plots of the page, drawn by Plotly in the colours of the light theme.

The number of traces does not grow with the number of trials: lines of one style are one trace with
gaps. All plots are SVG; Plotly's own parallel coordinates need WebGL, which phones limit and
machines without a screen lack.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any

import plotly.graph_objects as go

from tuner.conductor.confirmation import Confirmation
from tuner.formatting import metric_text
from tuner.report.palette import (
    DIVERGED,
    FAINT,
    FINISHED,
    GRID,
    INK,
    PALE,
    PAPER,
    STOPPED,
    WINNER,
    ordered,
)
from tuner.report.series import (
    BestSoFar,
    Curve,
    Ending,
    Front,
    ReportData,
    RungCounts,
    is_wide,
    window,
)
from tuner.space.objective import sign_of

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NAMES = {"ticks": "outside", "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"}  # distance to the axis
_MARGIN = 0.05  # of an axis, beyond the values


def new_figure(*, height: int, **layout: Any) -> go.Figure:
    """Return an empty figure in the style of the page, without legend: the page writes legends."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        autosize=True,
        height=height,
        margin={"l": 64, "r": 20, "t": 14, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 13, "color": INK},
        showlegend=False,
        hoverlabel={"bgcolor": PAPER, "bordercolor": FAINT, "font": {"color": INK}},
        hovermode="closest",
        uirevision="keep",
    )  # fmt: skip
    figure.update_layout(layout)
    axis = {
        "gridcolor": GRID, "linecolor": FAINT, "tickcolor": FAINT, "zeroline": False,
        "tickfont": {"color": FAINT, "size": 12},
        "title": {"font": {"color": INK, "size": 13}, "standoff": 10},
        "showline": False, "automargin": True, "ticks": "",
    }  # fmt: skip
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure


def safe(text: str) -> str:
    """Escape a text that Plotly would read as HTML."""
    return html.escape(text, quote=False)


def value_axis(
    values: Sequence[float], metric: str, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the layout of an axis of objectives; without `ends`, outliers are outside of it."""
    sign = sign_of(metric)
    ends = ends or window(values, sign)
    title = {"title": {"text": safe(metric)}}
    if ends is None:
        return title
    low, high = ends
    if is_wide(low, high):
        margin = _MARGIN * (log10(high) - log10(low))
        values = round_values(low, high)
        return {
            **title, "type": "log", "range": [log10(low) - margin, log10(high) + margin],
            "tickvals": values, "ticktext": [f"{value:,g}" for value in values],
        }  # fmt: skip
    margin = _MARGIN * (high - low) or 0.05 * abs(high) or 0.5
    return {**title, "range": [low - margin, high + margin]}


def round_values(low: float, high: float) -> list[float]:
    """Return round numbers in a range: 1, 2, 5, 10, …; of many decades, only powers of ten."""
    digits = (1, 2, 5) if high < 1e3 * low else (1,)
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    values = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [value for value in values if low <= value <= high]


# how the search went -------------------------------------------------------------------------


def best_so_far(best: BestSoFar, series: ReportData, *, by_time: bool) -> go.Figure:
    """Draw the best value so far as steps, and the defaults as a line."""
    unit, per_unit = time_unit(best.seconds[-1]) if by_time and best.seconds else ("tokens", 1.0)
    xs = [s / per_unit for s in best.seconds or ()] if by_time else list(best.tokens)
    figure = new_figure(height=320)
    values = [*best.values, *([] if series.defaults is None else [series.defaults])]
    if series.defaults is not None:
        # the label must not cover the end of the curve: then it is at the start
        span = max(values) - min(values)
        is_low = abs(series.defaults - best.values[-1]) < 0.12 * span
        figure.add_hline(
            y=series.defaults, line={"color": INK, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"defaults {value_text(series.defaults)}", "font": {"color": INK},
                "x": 0 if is_low else 1, "xanchor": "left" if is_low else "right",
                "yanchor": "bottom", "showarrow": False,
            },
        )  # fmt: skip
    figure.add_scatter(
        x=xs, y=best.values, mode="lines+markers",
        line={"color": WINNER, "width": 3, "shape": "hv"},
        marker={"size": [7] * (len(xs) - 1) + [0], "color": WINNER},
        customdata=[[n] for n in best.trials],
        hovertemplate="%{y:.4f} by trial %{customdata[0]}<extra></extra>",
    )  # fmt: skip
    trial = best.trials[-1]
    figure.add_annotation(
        x=xs[-1], y=best.values[-1], text=f"<b>{value_text(best.values[-1])}</b> trial {trial}",
        showarrow=False, xanchor="right", yshift=-14 * series.sign, font={"color": WINNER},
    )  # fmt: skip
    axis = value_axis(values, series.metric, (min(values), max(values)))
    low, high = axis["range"]  # the label needs room at the good end
    room = 0.08 * (high - low)
    axis["range"] = [low - room, high] if series.sign > 0 else [low, high + room]
    if axis.get("type") == "log":
        _on_log_axis(figure)
    figure.update_yaxes(axis)
    title = f"{unit} since the search started" if by_time else "tokens trained by all trials"
    figure.update_xaxes(title_text=title, rangemode="tozero", tickformat="" if by_time else "~s")
    return figure


def _on_log_axis(figure: go.Figure) -> None:
    """Convert annotations, which unlike lines need logarithms."""
    for note in figure.layout.annotations:
        if note.y is not None:
            note.y = log10(note.y)


def curves(series: ReportData, winner: int | None) -> go.Figure:
    """Draw the learning curves; trials that trained longer have a stronger colour."""
    figure = new_figure(height=430)
    first = series.defaults_number
    rest = [c for c in series.curves if c.number != winner and c.tokens]
    levels = sorted({c.level for c in rest if c.ending is not Ending.DIVERGED})
    for index, level in enumerate(levels):
        colour = ordered(index / (len(levels) - 1) if len(levels) > 1 else 1.0)
        # the defaults have their own line
        members = [c for c in rest if c.level == level and c.number != first]
        for kind in (Ending.STOPPED, Ending.OTHER, Ending.FINISHED):
            _add_curves(figure, [c for c in members if c.ending is kind], kind, level, colour)
    _add_diverged(figure, [c for c in series.curves if c.diverged])
    for number, name, style in (
        (first, "defaults", {"color": INK, "width": 2, "dash": "dash"}),
        (winner, f"winner, trial {winner}", {"color": WINNER, "width": 4}),
    ):
        chosen = [c for c in series.curves if c.number == number and c.tokens]
        if chosen and (number == winner or winner != first):
            _add_lines(figure, chosen, name=name, line=style)
    figure.update_yaxes(value_axis([v for c in series.curves for v in c.values], series.metric))
    tokens = [t for c in series.curves for t in c.tokens if t > 0]
    is_log = bool(tokens) and max(tokens) > 30 * min(tokens)
    scale = {"type": "log"} if is_log else {"range": [0, 1.01 * max(tokens, default=1)]}
    figure.update_xaxes(title_text="tokens trained by the trial", tickformat="~s", **scale)
    return figure


def _add_curves(
    figure: go.Figure, members: list[Curve], kind: Ending, level: int, colour: str
) -> None:
    """Add curves of one style."""
    if not members:
        return
    done = kind is Ending.FINISHED
    name = "finished" if done else f"{kind} at report {level}"
    line = {"color": colour, "width": 2 if done else 1.1}
    _add_lines(figure, members, name=name, line=line, opacity=0.95 if done else 0.75)


def _add_lines(figure: go.Figure, members: Iterable[Curve], **style: Any) -> None:
    xs: list[int | None] = []
    ys: list[float | None] = []
    numbers: list[int | None] = []
    longest = 0
    for curve in members:
        xs += [*curve.tokens, None]
        ys += [*curve.values, None]
        numbers += [*[curve.number] * len(curve.tokens), None]
        longest = max(longest, len(curve.tokens))
    figure.add_scatter(
        x=xs, y=ys, mode="lines" if longest > 1 else "markers", customdata=numbers,
        marker={"size": 4 + style["line"]["width"], "color": style["line"]["color"]},
        hovertemplate="trial %{customdata}: %{y:.4f} at %{x:,} tokens<extra></extra>", **style,
    )  # fmt: skip


def _add_diverged(figure: go.Figure, members: list[Curve]) -> None:
    """Add dotted curves, with a cross at the end of each."""
    marks = [(c.number, *c.diverged) for c in members if c.diverged]
    if not marks:
        return
    line = {"color": DIVERGED, "width": 1.2, "dash": "dot"}
    _add_lines(figure, members, name="diverged", line=line, showlegend=False)
    numbers, xs, ys = zip(*marks, strict=True)
    figure.add_scatter(
        x=xs, y=ys, mode="markers", name="diverged", customdata=numbers,
        marker={"symbol": "x", "size": 9, "color": DIVERGED},
        hovertemplate="trial %{customdata} diverged at %{x:,} tokens<extra></extra>",
    )  # fmt: skip


def rungs(counts: Sequence[RungCounts]) -> go.Figure:
    """Draw the number of trials that reached each report, by their further course."""
    figure = new_figure(height=300, barmode="stack", bargap=0.25)
    parts = (
        ("continued", PALE, "", [r.continued for r in counts]),
        ("finished", FINISHED, "", [r.finished for r in counts]),
        ("stopped here", STOPPED, "/", [r.stopped for r in counts]),
        ("diverged", DIVERGED, "x", [r.diverged for r in counts]),
        ("unfinished", FAINT, ".", [r.other for r in counts]),
    )
    levels = [r.level for r in counts]
    for name, colour, shape, numbers in parts:
        if any(numbers):
            figure.add_bar(
                x=levels, y=numbers, name=name,
                marker={
                    "color": colour, "pattern": {
                        "shape": shape, "bgcolor": colour, "fgcolor": PAPER, "size": 7,
                        "solidity": 0.2,
                    },
                },
                hovertemplate="report %{x}: %{y} " + name + "<extra></extra>",
            )  # fmt: skip
    ticks = {"tickmode": "linear", "dtick": 1} if len(counts) <= 12 else {}
    figure.update_xaxes(title_text="report", showgrid=False, **ticks)
    figure.update_yaxes(title_text="trials", rangemode="tozero", tickformat="d")
    if max((r.reached for r in counts), default=0) <= 5:
        figure.update_yaxes(dtick=1)
    return figure


def front(plane: Front) -> go.Figure:
    """Draw two objectives; a line joins the trials on the Pareto front."""
    figure = new_figure(height=400)
    for chosen, name, style in (
        (False, "not on the front", {"mode": "markers", "marker": {"color": STOPPED, "size": 8}}),
        (True, "on the front", {
            "mode": "lines+markers", "line": {"color": WINNER, "width": 2, "shape": "linear"},
            "marker": {"color": WINNER, "size": 11, "symbol": "diamond"},
        }),
    ):  # fmt: skip
        points = sorted((x, y, n) for n, x, y, is_on_front in plane.points if is_on_front is chosen)
        if points:
            xs, ys, numbers = zip(*points, strict=True)
            figure.add_scatter(
                x=xs, y=ys, customdata=numbers, name=name, **style,
                hovertemplate="trial %{customdata}<br>%{x:.5~g} / %{y:.5~g}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(value_axis([p[1] for p in plane.points], plane.metrics[0]))
    figure.update_yaxes(value_axis([p[2] for p in plane.points], plane.metrics[1]))
    return figure


# the confirmed comparison ----------------------------------------------------------------------


def confirmed(confirmation: Confirmation, selected: dict[int, float], metric: str) -> go.Figure:
    """Draw, for each configuration, its seeds, their mean with interval, and its selected value.

    Args:
        confirmation: retrained configurations.
        selected: value of each trial in the search, by number.
        metric: objective.
    """
    figure = new_figure(height=86 + 54 * len(confirmation.ranked))
    names = {entry.number: f"trial {entry.number}" for entry in confirmation.ranked}
    winner = confirmation.ranked[0].number
    for is_winner, colour in ((True, WINNER), (False, FINISHED)):
        means = [e for e in confirmation.ranked if e.count and (e.number == winner) is is_winner]
        if not means:
            continue
        halves = [(e.high - e.low) / 2 if e.count > 1 else 0.0 for e in means]
        figure.add_scatter(
            x=[e.mean for e in means], y=[names[e.number] for e in means], mode="markers",
            name="mean and 95 % interval" + (" of the winner" if is_winner else ""),
            customdata=halves, marker={"symbol": "diamond", "size": 12, "color": colour},
            error_x={"array": halves, "color": colour, "thickness": 2.5, "width": 7},
            hovertemplate="%{y}: %{x:.4f} ± %{customdata:.4f}<extra></extra>",
        )  # fmt: skip
    seeds = [
        (value, names[entry.number])
        for entry in confirmation.ranked
        for value in entry.values if value is not None and isfinite(value)
    ]  # fmt: skip
    figure.add_scatter(
        x=[value for value, _ in seeds], y=[name for _, name in seeds], mode="markers",
        name="one fresh seed",
        marker={"symbol": "circle-open", "size": 9, "color": FAINT, "line": {"width": 1.5}},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    marks = [(v, names[n]) for n, v in selected.items() if n in names and isfinite(v)]
    figure.add_scatter(
        x=[v for v, _ in marks], y=[name for _, name in marks], mode="markers",
        name="in the search",
        marker={"symbol": "line-ns-open", "size": 16, "color": INK, "line": {"width": 2}},
        hovertemplate="%{y} in the search: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5], categoryorder="array", categoryarray=list(names.values()),
        tickfont={"color": INK, "size": 13}, **NAMES,
    )  # fmt: skip
    figure.update_xaxes(title_text=safe(metric))
    return figure


# texts -----------------------------------------------------------------------------------------


def value_text(value: float) -> str:
    """Format a value of an objective for plots."""
    size = abs(value)
    if size < 1e3:
        return metric_text(value)
    return f"{value:,.1f}" if size < 1e5 else f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time is shown, and its seconds."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)
