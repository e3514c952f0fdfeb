"""Pictures of pages, drawn by Plotly in the colours of the light theme: style, axes, lines, texts.

The number of traces does not grow with the number of trials: lines of one style are one trace with
gaps. All plots are SVG; Plotly's own parallel coordinates need WebGL, which phones limit and
machines without a screen lack.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import plotly.graph_objects as go

from tuner.report.palette import FAINT, GRID, INK, PAPER
from tuner.report.series import is_wide, window
from tuner.space.objective import sign_of
from tuner.texts.formatting import metric_text

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NAMES = {"ticks": "outside", "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"}  # distance to the axis
_MARGIN = 0.05  # of an axis, beyond the values
_FEWEST_TICKS = 3


@dataclass(frozen=True)
class Picture:
    """One plot of a page.

    Attributes:
        key: id of the element.
        title: title above the plot.
        caption: text below the plot.
        figure: figure of Plotly.
        min_width: pixels; on a narrower screen the plot scrolls sideways. 0 for no limit.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure
    min_width: int = 0

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.figure.layout.height)


@dataclass(frozen=True)
class Section:
    """Pictures of a page that belong together.

    Attributes:
        title: title.
        caption: text below the title.
        pictures: the pictures, side by side where there is space.
        has_one_legend: True if a name means the same in all pictures.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]
    has_one_legend: bool = True


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


def add_lines(
    figure: go.Figure,
    lines: Iterable[tuple[int, Sequence[float], Sequence[float]]],
    hover: str,
    **style: Any,
) -> None:
    """Add the lines of trials, all of one style, as one trace.

    Args:
        figure: figure to add to.
        lines: number of each trial, its horizontal and its vertical values.
        hover: text of a point, in which %{customdata} is the number of the trial.
        style: attributes of the trace.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    numbers: list[int | None] = []
    for number, x, y in lines:
        xs += [*x, None]
        ys += [*y, None]
        numbers += [*[number] * len(x), None]
    figure.add_scatter(
        x=xs, y=ys, customdata=numbers, hovertemplate=f"{hover}<extra></extra>", **style
    )


def add_band(
    figure: go.Figure, x: Sequence[float], low: Sequence[float], high: Sequence[float], **style: Any
) -> None:
    """Fill the area between two lines, in the style of a trace."""
    figure.add_scatter(
        x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines", line={"width": 0},
        hoverinfo="skip", **style,
    )  # fmt: skip


# axes --------------------------------------------------------------------------------------------


def value_axis(
    values: Sequence[float], metric: str, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the layout of an axis of objectives; without `ends`, outliers are outside of it."""
    ends = ends or window(values, sign_of(metric))
    if ends is None:
        return {"title": {"text": safe(metric)}}
    low, high = ends
    if is_wide(low, high):
        return log_axis(ends, metric, form=",g")
    margin = _MARGIN * (high - low) or 0.05 * abs(high) or 0.5
    return {"title": {"text": safe(metric)}, "range": [low - margin, high + margin]}


def log_axis(values: Sequence[float], title: str, form: str = "~s") -> dict[str, Any]:
    """Return the layout of a logarithmic axis over values, with ticks at round numbers.

    Args:
        values: values; those above 0 are shown.
        title: title of the axis.
        form: form of the ticks: ~s for 20k and 3M, ~e for 3e-4, ~g or ,g for plain numbers.
    """
    axis: dict[str, Any] = {"type": "log", "title": {"text": safe(title)}, "tickformat": form}
    positive = [value for value in values if value > 0]
    if not positive:
        return axis
    low, high = log10(min(positive)), log10(max(positive))
    margin = _MARGIN * (high - low) or 0.1
    axis["range"] = [low - margin, high + margin]
    axis["tickvals"] = round_values(*(10**end for end in axis["range"]))
    return axis


def round_values(low: float, high: float) -> list[float]:
    """Return a few round numbers in a range of positive numbers."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    ladders = [
        [digit * 10.0**power for power in powers for digit in (1, 2, 5)[::each]] for each in (3, 1)
    ]
    step = 10.0 ** floor(log10((high - low) / _FEWEST_TICKS))  # three fit into a narrow range
    for each in (5 * step, 2 * step, step):
        ladders.append([i * each for i in range(ceil(low / each), floor(high / each) + 1)])
    inside = ([float(f"{v:.9g}") for v in ladder if low <= v <= high] for ladder in ladders)
    return next((values for values in inside if len(values) >= _FEWEST_TICKS), [])


# texts -------------------------------------------------------------------------------------------


def safe(text: str) -> str:
    """Escape a text that Plotly would read as HTML."""
    return html.escape(text, quote=False)


def value_text(value: float) -> str:
    """Format a value of an objective for plots."""
    size = abs(value)
    if size < 1e3:
        return metric_text(value)
    return f"{value:,.1f}" if size < 1e5 else f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"
