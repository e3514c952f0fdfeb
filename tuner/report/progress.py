"""Progress of a search: the best value so far, Pareto fronts, and the trials at each report."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

import plotly.graph_objects as go

from tuner.report.palette import (
    DIVERGED,
    FAINT,
    FINISHED,
    INK,
    PALE,
    PAPER,
    STOPPED,
    VEIL,
    WINNER,
)
from tuner.report.picture import Picture, new_figure, value_axis, value_text
from tuner.report.series import BestSoFar, Front, ReportData, RungCounts, better_direction
from tuner.texts.formatting import clock, counted

_LABEL_ROOM = 0.08  # of the axis, beyond its ends


# the best value so far ---------------------------------------------------------------------------


def best_so_far(series: ReportData) -> list[Picture]:
    """Draw the best value of the finished trials by tokens, and by time if it is recorded."""
    best = series.best_so_far
    if best is None:
        return []
    tokens = _steps(best, series, best.tokens, "tokens trained by all trials", "~s")
    pictures = [
        Picture("best-tokens", "Best so far, by tokens", _best_caption(best, series), tokens)
    ]
    if best.seconds is not None:
        unit, per_unit = _time_unit(best.seconds[-1])
        xs = [seconds / per_unit for seconds in best.seconds]
        time = _steps(best, series, xs, f"{unit} since the search started", "")
        last, end = clock(best.seconds[-2]), clock(best.seconds[-1])
        caption = f"The same curve over time: best value after {last}, last report after {end}."
        pictures.append(Picture("best-time", "Best so far, by time", caption, time))
    return pictures


def _best_caption(best: BestSoFar, series: ReportData) -> str:
    """Return the first and the last value, and the speed of the improvement."""
    values, trial = best.values, best.trials[-1]
    at = f"after {best.tokens[-2]:,} training tokens of all trials"
    metric = series.metric
    if len(set(values)) == 1:
        text = (
            f"The first finished trial was the best: {value_text(values[0])}, trial {trial}, {at}."
        )
    else:
        verb = "fell" if series.sign > 0 else "rose"
        text = (
            f"The best {metric} {verb} from {value_text(values[0])} to {value_text(values[-1])}, "
            f"which trial {trial} reached {at}."
        )
        half = (values[0] + values[-1]) / 2
        middle = next(i for i, v in enumerate(values) if series.sign * v <= series.sign * half)
        text += f" Half of this change was reached after {best.tokens[middle]:,} tokens."
    if series.defaults is not None:
        text += f" The dashed line shows the defaults, {value_text(series.defaults)}."
    if best.seconds is None:
        text += " The record does not have all times, so trials are shown one after another."
    return text


def _steps(
    best: BestSoFar, series: ReportData, xs: Sequence[float], title: str, form: str
) -> go.Figure:
    """Draw the best value so far as steps, and the defaults as a line."""
    figure = new_figure(height=320)
    values = [*best.values, *([] if series.defaults is None else [series.defaults])]
    axis = value_axis(values, series.metric, (min(values), max(values)))
    low, high = axis["range"]
    room = _LABEL_ROOM * (high - low)
    axis["range"] = [low - room, high + room]
    figure.update_yaxes(axis)
    figure.update_xaxes(title_text=title, rangemode="tozero", tickformat=form)

    def label(x: float, value: float, text: str, colour: str, *, is_good: bool) -> None:
        """Write a label on the good or the bad side of a value, where no line is."""
        is_below = is_good is (series.sign > 0)
        figure.add_annotation(
            x=x, xref="x" if is_good else "paper", xanchor="right" if is_good else "left",
            y=log10(value) if axis.get("type") == "log" else value,
            yanchor="top" if is_below else "bottom", yshift=-4 if is_below else 4,
            xshift=0 if is_good else 6, text=text, showarrow=False, font={"color": colour},
            bgcolor=VEIL, borderpad=0,
        )  # fmt: skip

    if series.defaults is not None:
        figure.add_hline(y=series.defaults, line={"color": INK, "width": 1.5, "dash": "dash"})
        text = f"defaults {value_text(series.defaults)}"
        label(0, series.defaults, text, INK, is_good=False)
    figure.add_scatter(
        x=xs, y=best.values, mode="lines+markers",
        line={"color": WINNER, "width": 3, "shape": "hv"},
        marker={"size": [7] * (len(xs) - 1) + [0], "color": WINNER},
        customdata=[[n] for n in best.trials],
        hovertemplate="%{y:.4f} by trial %{customdata[0]}<extra></extra>",
    )  # fmt: skip
    end = f"<b>{value_text(best.values[-1])}</b> trial {best.trials[-1]}"
    label(xs[-1], best.values[-1], end, WINNER, is_good=True)
    return figure


def _time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time is shown, and its seconds."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


# several objectives ------------------------------------------------------------------------------


def fronts(series: ReportData) -> list[Picture]:
    """Draw the first objective with each further one."""
    return [
        Picture(f"front-{i}", f"{f.metrics[0]} and {f.metrics[1]}", _front_caption(f), _front(f))
        for i, f in enumerate(series.fronts) if f.points
    ]  # fmt: skip


def _front_caption(plane: Front) -> str:
    best = [n for n, _, _, is_on_front in plane.points if is_on_front]
    x, y = plane.metrics
    numbers = ", ".join(map(str, best[:12])) + (", …" if len(best) > 12 else "")
    return (
        f"{len(best)} of the {len(plane.points)} finished trials are on the Pareto front "
        f"({numbers}): no other trial is better in every objective. Horizontal axis: {x}, "
        f"{better_direction(x)}; vertical axis: {y}, {better_direction(y)}."
    )


def _front(plane: Front) -> go.Figure:
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


# reports -----------------------------------------------------------------------------------------


def rungs(series: ReportData) -> list[Picture]:
    """Draw the number of trials that reached each report, by their further course."""
    if not series.rungs:
        return []
    return [Picture("rungs", "Trials at each report", _rungs_caption(series), _bars(series.rungs))]


def _rungs_caption(series: ReportData) -> str:
    """Return how many trials were stopped, and the tokens that were saved."""
    counts, result = series.rungs, series.result
    first = counts[0].reached if counts else 0
    stops = sorted(((r.stopped, r.level) for r in counts if r.stopped), reverse=True)
    text = f"{first} of {counted(len(series.trials), 'trial')} reached the first report"
    branched = sum(trial.parent is not None for trial in series.trials)
    if branched:
        text += f", {branched} continued from the checkpoint of another trial"
    if stops:
        (count, level), total = stops[0], sum(n for n, _ in stops)
        most = ", most of them" if len(stops) > 1 and 2 * count > total else ""
        where = f"{most} at report {level}" if most or len(stops) == 1 else ""
        text += f"; {total} {'was' if total == 1 else 'were'} stopped{where}"
    text += f"; {sum(r.finished for r in counts)} finished. "
    spent, full = result.tokens_spent, result.tokens_full
    if not full:
        return text + "Nothing was trained: the results of all trials were reused."
    share = 100 * (1 - spent / full)
    if result.halted is not None:
        return text + f"The trials trained {spent:,} tokens; the full budgets are {full:,}."
    if not stops:
        return text + f"No trial was stopped early: {spent:,} tokens were trained."
    return text + (
        f"Early stopping saved {full - spent:,} of {full:,} tokens, {share:.0f} % of the full "
        f"budgets."
    )


def _bars(counts: Sequence[RungCounts]) -> go.Figure:
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
