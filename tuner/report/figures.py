"""The pictures of the page, drawn by Plotly in the colours of the light theme.

There are few traces, whatever the number of trials: those that look alike are one trace with gaps.
Everything is SVG; parallel coordinates of Plotly's own would need WebGL, which phones limit and
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
from tuner.report.series import BestSoFar, Curve, Ending, Front, ReportData, Rung, is_wide, window
from tuner.space.objective import sign_of

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NAMES = {"ticks": "outside", "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"}  # a little off the axis
_MARGIN = 0.05  # of an axis, beyond the values


def figure(*, height: int, **layout: Any) -> go.Figure:
    """An empty one in the style of the page, which writes the legends: there they wrap."""
    drawn = go.Figure()
    drawn.update_layout(
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
    drawn.update_layout(layout)
    axis = {
        "gridcolor": GRID, "linecolor": FAINT, "tickcolor": FAINT, "zeroline": False,
        "tickfont": {"color": FAINT, "size": 12},
        "title": {"font": {"color": INK, "size": 13}, "standoff": 10},
        "showline": False, "automargin": True, "ticks": "",
    }  # fmt: skip
    drawn.update_xaxes(axis)
    drawn.update_yaxes(axis)
    return drawn


def safe(text: str) -> str:
    """A text that Plotly will not read as HTML."""
    return html.escape(text, quote=False)


def value_axis(
    values: Sequence[float], metric: str, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Scale and ends of an axis of objectives; without ends, those of usual values."""
    ends = ends or window(values, sign_of(metric))
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
    """Some round numbers in a range: 1, 2, 5, 10, …; of many decades only powers of ten."""
    digits = (1, 2, 5) if high < 1e3 * low else (1,)
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    values = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [value for value in values if low <= value <= high]


# how the search went -------------------------------------------------------------------------


def best_so_far(best: BestSoFar, series: ReportData, *, by_time: bool) -> go.Figure:
    """Steps, and the defaults as a line."""
    unit, per_unit = time_unit(best.seconds[-1]) if by_time and best.seconds else ("tokens", 1.0)
    xs = [s / per_unit for s in best.seconds or ()] if by_time else list(best.tokens)
    drawn = figure(height=320)
    known = [*best.values, *([] if series.defaults is None else [series.defaults])]
    if series.defaults is not None:
        # the curve ends there: then the label stands where it began
        whole = max(known) - min(known)
        is_low = abs(series.defaults - best.values[-1]) < 0.12 * whole
        drawn.add_hline(
            y=series.defaults, line={"color": INK, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"defaults {value_text(series.defaults)}", "font": {"color": INK},
                "x": 0 if is_low else 1, "xanchor": "left" if is_low else "right",
                "yanchor": "bottom", "showarrow": False,
            },
        )  # fmt: skip
    drawn.add_scatter(
        x=xs, y=best.values, mode="lines+markers",
        line={"color": WINNER, "width": 3, "shape": "hv"},
        marker={"size": [7] * (len(xs) - 1) + [0], "color": WINNER},
        customdata=[[n] for n in best.trials],
        hovertemplate="%{y:.4f} by trial %{customdata[0]}<extra></extra>",
    )  # fmt: skip
    first = best.trials[-1]
    drawn.add_annotation(
        x=xs[-1], y=best.values[-1], text=f"<b>{value_text(best.values[-1])}</b> trial {first}",
        showarrow=False, xanchor="right", yshift=-14 * series.sign, font={"color": WINNER},
    )  # fmt: skip
    axis = value_axis(known, series.metric, (min(known), max(known)))
    low, high = axis["range"]  # the label needs room at the good end
    room = 0.08 * (high - low)
    axis["range"] = [low - room, high] if series.sign > 0 else [low, high + room]
    if axis.get("type") == "log":
        _on_log_axis(drawn)
    drawn.update_yaxes(axis)
    title = f"{unit} since the search began" if by_time else "tokens trained by all trials"
    drawn.update_xaxes(title_text=title, rangemode="tozero", tickformat="" if by_time else "~s")
    return drawn


def _on_log_axis(drawn: go.Figure) -> None:
    """Annotations, unlike lines, want logarithms."""
    for note in drawn.layout.annotations:
        if note.y is not None:
            note.y = log10(note.y)


def curves(series: ReportData, winner: int | None) -> go.Figure:
    """Every trial: the further it came, the stronger its colour."""
    drawn = figure(height=430)
    rest = [c for c in series.curves if c.number != winner and c.tokens]
    levels = sorted({c.level for c in rest if c.ending is not Ending.DIVERGED})
    for index, level in enumerate(levels):
        colour = ordered(index / (len(levels) - 1) if len(levels) > 1 else 1.0)
        members = [c for c in rest if c.level == level]
        for kind in (Ending.STOPPED, Ending.OTHER, Ending.FINISHED):
            _add_curves(drawn, [c for c in members if c.ending is kind], kind, level, colour)
    _add_diverged(drawn, [c for c in series.curves if c.diverged])
    for number, name, style in (
        (0, "defaults", {"color": INK, "width": 2, "dash": "dash"}),
        (winner, f"winner, trial {winner}", {"color": WINNER, "width": 4}),
    ):
        chosen = [c for c in series.curves if c.number == number and c.tokens]
        if chosen and (number == winner or winner != 0):
            _add_lines(drawn, chosen, name=name, line=style)
    drawn.update_yaxes(value_axis([v for c in series.curves for v in c.values], series.metric))
    tokens = [t for c in series.curves for t in c.tokens if t > 0]
    wide = bool(tokens) and max(tokens) > 30 * min(tokens)
    scale = {"type": "log"} if wide else {"range": [0, 1.01 * max(tokens, default=1)]}
    drawn.update_xaxes(title_text="tokens that the trial has trained", tickformat="~s", **scale)
    return drawn


def _add_curves(
    drawn: go.Figure, members: list[Curve], kind: Ending, level: int, colour: str
) -> None:
    """Curves that look alike."""
    members = [c for c in members if c.number != 0]  # the defaults have a line of their own
    if not members:
        return
    done = kind is Ending.FINISHED
    name = "finished" if done else f"{kind} at report {level}"
    line = {"color": colour, "width": 2 if done else 1.1}
    _add_lines(drawn, members, name=name, line=line, opacity=0.95 if done else 0.75)


def _add_lines(drawn: go.Figure, members: Iterable[Curve], **style: Any) -> None:
    xs: list[int | None] = []
    ys: list[float | None] = []
    numbers: list[int | None] = []
    longest = 0
    for curve in members:
        xs += [*curve.tokens, None]
        ys += [*curve.values, None]
        numbers += [*[curve.number] * len(curve.tokens), None]
        longest = max(longest, len(curve.tokens))
    drawn.add_scatter(
        x=xs, y=ys, mode="lines" if longest > 1 else "markers", customdata=numbers,
        marker={"size": 4 + style["line"]["width"], "color": style["line"]["color"]},
        hovertemplate="trial %{customdata}: %{y:.4f} at %{x:,} tokens<extra></extra>", **style,
    )  # fmt: skip


def _add_diverged(drawn: go.Figure, members: list[Curve]) -> None:
    """Dotted curves, and a cross where they ended."""
    marks = [(c.number, *c.diverged) for c in members if c.diverged]
    if not marks:
        return
    line = {"color": DIVERGED, "width": 1.2, "dash": "dot"}
    _add_lines(drawn, members, name="diverged", line=line, showlegend=False)
    numbers, xs, ys = zip(*marks, strict=True)
    drawn.add_scatter(
        x=xs, y=ys, mode="markers", name="diverged", customdata=numbers,
        marker={"symbol": "x", "size": 9, "color": DIVERGED},
        hovertemplate="trial %{customdata} diverged at %{x:,} tokens<extra></extra>",
    )  # fmt: skip


def rungs(found: Sequence[Rung]) -> go.Figure:
    """How many came to each report, and what became of them there."""
    drawn = figure(height=300, barmode="stack", bargap=0.25)
    parts = (
        ("went on", PALE, "", [r.went_on for r in found]),
        ("finished", FINISHED, "", [r.finished for r in found]),
        ("stopped here", STOPPED, "/", [r.stopped for r in found]),
        ("diverged on the way here", DIVERGED, "x", [r.diverged for r in found]),
        ("unfinished", FAINT, ".", [r.other for r in found]),
    )
    levels = [r.level for r in found]
    for name, colour, shape, counts in parts:
        if any(counts):
            drawn.add_bar(
                x=levels, y=counts, name=name,
                marker={
                    "color": colour, "pattern": {
                        "shape": shape, "bgcolor": colour, "fgcolor": PAPER, "size": 7,
                        "solidity": 0.2,
                    },
                },
                hovertemplate="report %{x}: %{y} " + name + "<extra></extra>",
            )  # fmt: skip
    few = len(found) <= 12
    ticks = {"tickmode": "linear", "dtick": 1} if few else {}
    drawn.update_xaxes(title_text="report", showgrid=False, **ticks)
    drawn.update_yaxes(title_text="trials", rangemode="tozero", tickformat="d")
    if max((r.came for r in found), default=0) <= 5:
        drawn.update_yaxes(dtick=1)
    return drawn


def front(found: Front) -> go.Figure:
    """Two objectives, with the trials that no other one beats joined by a line."""
    drawn = figure(height=400)
    for chosen, name, style in (
        (False, "beaten", {"mode": "markers", "marker": {"color": STOPPED, "size": 8}}),
        (True, "on the front", {
            "mode": "lines+markers", "line": {"color": WINNER, "width": 2, "shape": "linear"},
            "marker": {"color": WINNER, "size": 11, "symbol": "diamond"},
        }),
    ):  # fmt: skip
        points = sorted((x, y, n) for n, x, y, is_on in found.points if is_on is chosen)
        if points:
            xs, ys, numbers = zip(*points, strict=True)
            drawn.add_scatter(
                x=xs, y=ys, customdata=numbers, name=name, **style,
                hovertemplate="trial %{customdata}<br>%{x:.5~g} / %{y:.5~g}<extra></extra>",
            )  # fmt: skip
    drawn.update_xaxes(value_axis([p[1] for p in found.points], found.metrics[0]))
    drawn.update_yaxes(value_axis([p[2] for p in found.points], found.metrics[1]))
    return drawn


# the confirmed comparison ----------------------------------------------------------------------


def confirmed(found: Confirmation, selected: dict[int, float], metric: str) -> go.Figure:
    """Each configuration: its seeds, their mean with the interval, and its value in the search."""
    drawn = figure(height=86 + 54 * len(found.ranked))
    names = {entry.number: f"trial {entry.number}" for entry in found.ranked}
    winner = found.ranked[0].number
    for is_winner, colour in ((True, WINNER), (False, FINISHED)):
        means = [e for e in found.ranked if e.count and (e.number == winner) is is_winner]
        if not means:
            continue
        halves = [(e.high - e.low) / 2 if e.count > 1 else 0.0 for e in means]
        drawn.add_scatter(
            x=[e.mean for e in means], y=[names[e.number] for e in means], mode="markers",
            name="mean and 95 % interval" + (" of the winner" if is_winner else ""),
            customdata=halves, marker={"symbol": "diamond", "size": 12, "color": colour},
            error_x={"array": halves, "color": colour, "thickness": 2.5, "width": 7},
            hovertemplate="%{y}: %{x:.4f} ± %{customdata:.4f}<extra></extra>",
        )  # fmt: skip
    seeds = [
        (value, names[entry.number])
        for entry in found.ranked for value in entry.values if value is not None and isfinite(value)
    ]  # fmt: skip
    drawn.add_scatter(
        x=[value for value, _ in seeds], y=[name for _, name in seeds], mode="markers",
        name="one fresh seed",
        marker={"symbol": "circle-open", "size": 9, "color": FAINT, "line": {"width": 1.5}},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    known = [(v, names[n]) for n, v in selected.items() if n in names and isfinite(v)]
    drawn.add_scatter(
        x=[v for v, _ in known], y=[name for _, name in known], mode="markers",
        name="in the search",
        marker={"symbol": "line-ns-open", "size": 16, "color": INK, "line": {"width": 2}},
        hovertemplate="%{y} in the search: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    drawn.update_yaxes(
        range=[len(names) - 0.5, -0.5], categoryorder="array", categoryarray=list(names.values()),
        tickfont={"color": INK, "size": 13}, **NAMES,
    )  # fmt: skip
    drawn.update_xaxes(title_text=safe(metric))
    return drawn


# words -----------------------------------------------------------------------------------------


def value_text(value: float) -> str:
    """A value of an objective as it is written on pictures."""
    size = abs(value)
    if size < 1e3:
        return metric_text(value)
    return f"{value:,.1f}" if size < 1e5 else f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time is told, and its seconds."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)
