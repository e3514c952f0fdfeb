"""Plots of the report for papers: PNGs of 300 dots per inch, drawn by matplotlib.

The numbers are those of the page. Plotly could not draw PNGs without Chrome.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.report.axes import Axis, Mark, Slice, axes_of, lines, slices_of
from tuner.report.palette import DIVERGED, FAINT, FINISHED, GRID, INK, PALE, STOPPED, WINNER
from tuner.report.parallel import groups, scale_of
from tuner.report.picture import value_text
from tuner.report.progress import time_unit
from tuner.report.scale.collapse import collapses_of
from tuner.report.scale.compute import Compute, compute_of
from tuner.report.scale.sensitivity import basins_of, parabola
from tuner.report.series import Ending, Front, ReportData, is_wide, window
from tuner.report.shares import METHODS, Shares, shares_of
from tuner.results.collapse import Collapse
from tuner.results.range_edit import named
from tuner.results.result import SearchResult
from tuner.results.sensitivity import Basin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 300
_WIDTH = 6.5  # inches: a page between its margins
_SLICES_ACROSS = 3
_MOST_TICKS = 12
_LOOK = {
    "font.size": 9, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "xtick.color": FAINT,
    "ytick.color": FAINT, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8,
    "text.color": INK,
}  # fmt: skip


def draw_all(result: SearchResult, folder: Path) -> list[Path]:
    """Write a PNG for each plot that has data; return the paths.

    Raises:
        OSError: if a file cannot be written.
    """
    import matplotlib as mpl  # takes half a second

    paths = []
    with mpl.rc_context(_LOOK):  # type: ignore[arg-type]
        for name, figure in _figures(result):
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], format="png", dpi=_DPI)
    return paths


def _figures(result: SearchResult) -> Iterator[tuple[str, Figure]]:
    series = ReportData(result)
    winner = result.best.number if len(result.space.objectives) == 1 else None
    if winner is None:
        for front in series.fronts:
            if front.points:
                yield f"front-{front.metrics[1]}", _front(front)
    elif series.best_so_far is not None:
        yield "best-by-tokens", _best(series, by_time=False)
        if series.best_so_far.seconds is not None:
            yield "best-by-time", _best(series, by_time=True)
    yield from _progress(series, winner)
    yield from _matters(series, winner)


def _progress(series: ReportData, winner: int | None) -> Iterator[tuple[str, Figure]]:
    if any(curve.tokens for curve in series.curves):
        yield "curves", _curves(series, winner)
    found = compute_of(series)
    if found is not None:
        yield "compute", _compute(found, series)
    for band in collapses_of(series):
        yield f"collapse-{band.key}", _collapse(band, series)
    if series.rungs:
        yield "rungs", _rungs(series)
    confirmation = series.result.confirmation
    if confirmation is not None and any(entry.count for entry in confirmation.ranked):
        yield "confirmed", _confirmed(series)


def _matters(series: ReportData, winner: int | None) -> Iterator[tuple[str, Figure]]:
    shares = shares_of(series)
    if shares.bars:
        yield "importance", _importance(shares)
    basins, _ = basins_of(series)
    if basins and winner is not None:
        yield "sensitivity", _sensitivity(basins, series)
    if series.result.space.searched and any(curve.values for curve in series.curves):
        yield "parallel", _parallel(series, winner)
        yield "slices", _slices(series, winner)


def _sheet(height: float, **grid: Any) -> tuple[Figure, Any]:
    """Return a figure of the width of a page, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots(**grid)


def _ordered(strength: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.85 - 0.8 * strength)


def _scale(
    ax: Axes, values: Sequence[float], series: ReportData, ends: tuple[float, float] | None = None
) -> None:
    """Set the vertical axis of the objective; without `ends`, outliers are outside of it."""
    ends = ends or window(values, series.sign)
    ax.set_ylabel(series.metric)
    if ends is None:
        return
    low, high = ends
    if is_wide(low, high):
        ax.set_yscale("log")
        margin = (high / low) ** 0.05
        ax.set_ylim(low / margin, high * margin)
    else:
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        ax.set_ylim(low - margin, high + margin)


def _tokens(ax: Axes, label: str) -> None:
    from matplotlib.ticker import EngFormatter

    ax.set_xlabel(label)
    if ax.get_xscale() != "log":
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def _front(front: Front) -> Figure:
    figure, ax = _sheet(3.8)
    for n, x, y, is_on_front in front.points:
        look = {"color": WINNER, "marker": "D"} if is_on_front else {"color": STOPPED}
        ax.scatter([x], [y], s=26, zorder=3 if is_on_front else 2, **look)
        if is_on_front:
            ax.annotate(f" {n}", (x, y), fontsize=7)
    ax.set(xlabel=front.metrics[0], ylabel=front.metrics[1])
    return figure


def _best(series: ReportData, *, by_time: bool) -> Figure:
    best = series.best_so_far
    assert best is not None
    figure, ax = _sheet(2.8)
    unit, per_unit = time_unit((best.seconds or (0.0,))[-1]) if by_time else ("tokens", 1.0)
    xs = [s / per_unit for s in best.seconds or ()] if by_time else list(best.tokens)
    ax.step(xs, best.values, where="post", color=WINNER, linewidth=2, label="best so far")
    if series.defaults is not None:
        label = f"defaults {value_text(series.defaults)}"
        ax.axhline(series.defaults, color=INK, linestyle="--", linewidth=1, label=label)
    values = [*best.values, *([] if series.defaults is None else [series.defaults])]
    _scale(ax, values, series, (min(values), max(values)))
    ax.set_xlim(left=0)
    if by_time:
        ax.set_xlabel(f"{unit} since the search started")
    else:
        _tokens(ax, "tokens trained by all trials")
    ax.legend()
    return figure


def _curves(series: ReportData, winner: int | None) -> Figure:
    figure, ax = _sheet(3.8)
    first = series.defaults_number
    others = [c for c in series.curves if c.number not in (first, winner) and c.tokens]
    levels = sorted({c.level for c in others if not c.diverged})
    labelled: set[str] = set()
    for index, level in enumerate(levels):
        colour = _ordered(index / (len(levels) - 1) if len(levels) > 1 else 1.0)
        for c in (c for c in others if c.level == level and not c.diverged):
            done = c.ending is Ending.FINISHED
            name = "finished" if done else f"{c.ending} at report {level}"
            label = f"_{name}" if name in labelled else name
            labelled.add(name)
            marker = "." if len(c.tokens) == 1 else ""
            ax.plot(
                c.tokens, c.values, marker=marker, color=colour, label=label,
                linewidth=1.2 if done else 0.7, alpha=0.95 if done else 0.75,
            )  # fmt: skip
    for c in series.curves:
        if c.number == winner:
            label = f"winner, trial {winner}"
            ax.plot(c.tokens, c.values, color=WINNER, linewidth=2.6, label=label, zorder=4)
        elif c.number == first:
            ax.plot(c.tokens, c.values, "--", color=INK, linewidth=1.2, label="defaults")
        if c.diverged:
            label = "_diverged" if "diverged" in labelled else "diverged"
            labelled.add("diverged")
            ax.plot(c.tokens, c.values, ":", color=DIVERGED, linewidth=0.9)
            ax.plot(*c.diverged, "x", color=DIVERGED, markersize=5, zorder=3, label=label)
    _scale(ax, [v for c in series.curves for v in c.values], series)
    _tokens(ax, "tokens trained by the trial")
    ax.legend(ncols=2)
    return figure


def _compute(found: Compute, series: ReportData) -> Figure:
    figure, ax = _sheet(3.4)
    for index, size in enumerate(found.sizes):
        colour, label = _ordered(index / (len(found.sizes) - 1)), f"{size:,} weights"
        for curve in (c for c in found.curves if c.parameters == size):
            ax.plot(curve.flops, curve.values, marker=".", color=colour, linewidth=0.8, label=label)
            label = f"_{label}"
    xs, ys, _ = zip(*found.front, strict=True)
    ax.step(xs, ys, where="post", color=WINNER, linewidth=2.2, label="front", zorder=4)
    _scale(ax, [v for c in found.curves for v in c.values], series)
    ax.set(xlabel="FLOPs of the training", xscale="log")
    ax.legend(ncols=2)
    return figure


def _collapse(found: Collapse, series: ReportData) -> Figure:
    figure, ax = _sheet(3.2)
    ax.fill_between(found.shares, found.lower, found.upper, color=PALE, linewidth=0)
    for curve in found.curves:
        strength = found.sizes.index(curve.parameters) / len(found.sizes)
        colour = DIVERGED if curve.left else _ordered(strength)
        look = {"linestyle": ":" if curve.left else "-", "lw": 1.6 if curve.is_good else 0.7}
        ax.plot(found.shares[: len(curve.values)], curve.values, color=colour, **look)
    for index, size in enumerate(found.sizes):
        ax.plot([], [], color=_ordered(index / len(found.sizes)), label=f"{size:,} weights")
    ax.legend()
    _scale(ax, [v for curve in found.curves for v in curve.values], series)
    ax.set(xlabel="share of the training", ylabel=f"{series.metric} / best of its size")
    return figure


def _sensitivity(basins: Sequence[Basin], series: ReportData) -> Figure:
    figure, ax = _sheet(3.0)
    for index, basin in enumerate(basins):
        ax.plot(*parabola(basin, series.sign), color=f"C{index}", label=named(basin.parameter))
        ax.plot(basin.rates, series.sign * basin.losses, ".", color=f"C{index}")
        ax.plot([basin.bottom], [series.sign * basin.loss], "D", color=INK, markersize=5)
    ax.set(xlabel="learning rate", xscale="log", ylabel=series.metric)
    ax.legend()
    return figure


def _rungs(series: ReportData) -> Figure:
    figure, ax = _sheet(2.8)
    levels = [r.level for r in series.rungs]
    bottom = [0] * len(levels)
    parts: tuple[tuple[str, str, str, list[int]], ...] = (
        ("continued", PALE, "", [r.continued for r in series.rungs]),
        ("finished", FINISHED, "", [r.finished for r in series.rungs]),
        ("stopped here", STOPPED, "////", [r.stopped for r in series.rungs]),
        ("diverged", DIVERGED, "xxxx", [r.diverged for r in series.rungs]),
        ("unfinished", FAINT, "....", [r.other for r in series.rungs]),
    )
    for name, colour, hatch, counts in parts:
        if any(counts):
            ax.bar(
                levels, counts, bottom=bottom, color=colour, hatch=hatch, edgecolor="white",
                linewidth=0, label=name,
            )  # fmt: skip
            bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
    ax.set(xlabel="report", ylabel="trials")
    ax.grid(axis="x", visible=False)
    if len(levels) <= _MOST_TICKS:
        ax.set_xticks(levels)
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return figure


def _confirmed(series: ReportData) -> Figure:
    confirmation = series.result.confirmation
    assert confirmation is not None
    ranked = confirmation.ranked
    figure, ax = _sheet(1.0 + 0.45 * len(ranked))
    trials = {trial.number: trial for trial in series.trials}
    for y, entry in enumerate(ranked):
        if entry.count:
            half = (entry.high - entry.low) / 2 if entry.count > 1 else 0.0
            ax.errorbar(
                [entry.mean], [y], xerr=[half], fmt="D", capsize=4,
                color=WINNER if y == 0 else FINISHED,
            )  # fmt: skip
        seeds = [v for v in entry.values if v is not None and math.isfinite(v)]
        ax.plot(seeds, [y] * len(seeds), "o", color=FAINT, fillstyle="none", markersize=5)
        trial = trials.get(entry.number)
        if trial is not None and math.isfinite(v := trial.objective(series.metric)):
            ax.plot([v], [y], "|", color=INK, markersize=12)
    ax.set_yticks(range(len(ranked)), [f"trial {entry.number}" for entry in ranked])
    ax.set_ylim(len(ranked) - 0.5, -0.5)
    ax.set_xlabel(f"{series.metric}: mean with 95 % interval, ○ a fresh seed, | in the search")
    return figure


def _importance(shares: Shares) -> Figure:
    figure, ax = _sheet(0.9 + 0.38 * len(shares.bars))
    for (method, name), colour, offset in zip(
        METHODS.items(), (FINISHED, STOPPED), (-0.19, 0.19), strict=True
    ):
        values = [(y, b.shares[method]) for y, b in enumerate(shares.bars) if method in b.shares]
        if values:
            ax.barh(
                [y + offset for y, _ in values], [100 * s[0] for _, s in values], 0.36,
                color=colour, xerr=[100 * s[1] for _, s in values],
                error_kw={"ecolor": INK, "elinewidth": 1}, label=name,
            )  # fmt: skip
    ax.set_yticks(range(len(shares.bars)), [bar.title for bar in shares.bars])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("share explained, % (± one standard deviation)")
    ax.legend()
    return figure


def _parallel(series: ReportData, winner: int | None) -> Figure:
    axes, trials = axes_of(series), lines(series)
    scale, ranked = scale_of(trials, series), groups(trials, series.sign)
    figure, ax = _sheet(3.6)
    looks: list[tuple[Any, Any, float]] = [
        (line, {"color": DIVERGED, "linestyle": ":"}, 0.8) for line in trials if line.value is None
    ]
    for index, group in enumerate(ranked):
        colour = _ordered(index / max(len(ranked) - 1, 1))
        looks += [
            (line, {"color": colour}, 1.2 if line.ending is Ending.FINISHED else 0.6)
            for line in group if line.number != winner
        ]  # fmt: skip
    looks += [(line, {"color": WINNER}, 2.6) for line in trials if line.number == winner]
    for line, look, width in looks:
        places = [-0.1 if p is None else p for p in line.places]
        ax.plot(range(len(places) + 1), [*places, scale.place(line.value)], lw=width, **look)
    ends = ((0.0, value_text(scale.low)), (1.0, value_text(scale.high)))
    ticks = [*((axis.title, axis.ticks) for axis in axes), (series.metric, ends)]
    for x, (title, marks) in enumerate(ticks):
        ax.plot([x, x], [0, 1], color=FAINT, linewidth=0.8, zorder=0)
        ax.text(x, 1.05, title.replace(" / ", "\n/ "), ha="center", va="bottom", fontsize=8)
        for place, text in marks:
            ax.text(
                x + 0.04, place, text, fontsize=6, color=FAINT, va="center",
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )  # fmt: skip
    ax.set_axis_off()
    ax.set_xlim(-0.1, len(axes) + 0.5)
    return figure


def _slices(series: ReportData, winner: int | None) -> Figure:
    pieces = slices_of(series)
    rows = -(-len(pieces) // _SLICES_ACROSS)
    figure, grid = _sheet(0.3 + 1.9 * rows, nrows=rows, ncols=_SLICES_ACROSS, squeeze=False)
    panels = grid.flatten()
    for ax, s in zip(panels, pieces, strict=False):
        _slice(ax, s, series, winner)
    for ax in panels[len(pieces) :]:
        ax.set_axis_off()
    for ax in panels:
        if not ax.get_subplotspec().is_first_col():
            ax.set_ylabel("")
    _legend(figure, pieces, winner)
    return figure


_LOOKS: Mapping[Mark, dict[str, Any]] = {
    Mark.STOPPED: {"marker": "o", "facecolors": "none", "edgecolors": STOPPED, "s": 14},
    Mark.UNFINISHED: {"marker": "o", "facecolors": "none", "edgecolors": FAINT, "s": 14},
    Mark.FINISHED: {"marker": "o", "color": FINISHED, "s": 18},
    Mark.DIVERGED: {"marker": "x", "color": DIVERGED, "s": 18},
    Mark.DEFAULTS: {"marker": "s", "color": INK, "s": 22, "zorder": 3},
    Mark.WINNER: {"marker": "*", "color": WINNER, "s": 90, "zorder": 4},
}


def _legend(figure: Figure, pieces: Sequence[Slice], winner: int | None) -> None:
    """Add one legend for all slices."""
    present = {mark for s in pieces for mark, points in s.marked(winner).items() if points}
    marks = [
        figure.axes[0].scatter([], [], label=str(mark), **look)
        for mark, look in _LOOKS.items() if mark in present
    ]  # fmt: skip
    if marks:
        figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))


def _slice(ax: Axes, piece: Slice, series: ReportData, winner: int | None) -> None:
    _scale(ax, [p.value for p in piece.points if p.value is not None], series)
    bad = ax.get_ylim()[1 if series.sign > 0 else 0]
    _range(ax, piece.axis)
    for mark, points in piece.marked(winner).items():
        values = [bad if p.value is None else p.value for p in points]
        ax.scatter([p.x for p in points], values, clip_on=False, **_LOOKS[mark])


def _range(ax: Axes, axis: Axis) -> None:
    """Set the scale of a parameter, with its ends and ticks."""
    ax.set_xlabel(axis.full_title)
    ax.grid(axis="x", visible=False)
    if axis.values:
        ax.set_xticks(range(len(axis.values)), list(axis.values))
        ax.set_xlim(-0.5, len(axis.values) - 0.5)
        return
    scaled: Callable[[float], float] = math.log10 if axis.is_log else float
    low, high = scaled(axis.low), scaled(axis.high)
    margin = 0.07 * (high - low) or 0.5
    unscaled = (lambda v: 10**v) if axis.is_log else float
    if axis.is_log:
        ax.set_xscale("log")
    ax.set_xticks([unscaled(low + place * (high - low)) for place, _ in axis.ticks], minor=False)
    ax.set_xticklabels([text for _, text in axis.ticks])
    ax.minorticks_off()
    ax.set_xlim(unscaled(low - margin), unscaled(high + margin))
    for inner, outer in ((low, low - margin), (high, high + margin)):
        ax.axvspan(unscaled(inner), unscaled(outer), color=FAINT, alpha=0.12, linewidth=0)
        ax.axvline(unscaled(inner), color=FAINT, linewidth=0.8)
