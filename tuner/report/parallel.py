"""Parallel coordinates, drawn as plain lines: every trial across all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, log
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from tuner.report.axes import Axis, axes_of, place, text_of
from tuner.report.palette import DIVERGED, FAINT, INK, VEIL, WINNER, shades
from tuner.report.picture import Picture, new_figure, safe, value_text
from tuner.report.series import Ending, ReportData, ending, is_wide, window

_GROUPS = 5  # of trials, by their rank
_NOT_DRAWN, _BEYOND = -0.1, 1.1  # places outside of an axis
_HEIGHT = 420
_WIDTH_EACH = 96  # least pixels of an axis
_CROWD = 100  # trials; above, lines are thinner
_LONGEST = 15  # letters of a line of a title
_NAMES = ("worst fifth", "fourth fifth", "middle fifth", "second fifth", "best fifth")


@dataclass(frozen=True)
class Line:
    """One trial across all axes.

    Attributes:
        number: number of the trial.
        places: place from 0 to 1 on each axis; None if the trial does not have the parameter.
        texts: drawn value on each axis as text; "" if the trial does not have the parameter.
        value: objective at the last report; None if the trial diverged.
        ending: how the trial ended.
    """

    number: int
    places: tuple[float | None, ...]
    texts: tuple[str, ...]
    value: float | None
    ending: Ending


@dataclass(frozen=True)
class Scale:
    """Axis of the objective.

    Attributes:
        low: lower end.
        high: upper end.
        sign: -1 if large values are good, else 1.
    """

    low: float
    high: float
    sign: int

    @property
    def is_log(self) -> bool:
        """True if the axis is logarithmic, as in the other plots of these values."""
        return is_wide(self.low, self.high)

    def place(self, value: float | None) -> float:
        """Return the place of a value; None (a trial that diverged) is beyond the bad end."""
        if value is None:
            return _BEYOND if self.sign > 0 else _NOT_DRAWN
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / ((self.high - self.low) or 1.0)


def lines(series: ReportData) -> list[Line]:
    """Return the trials that have a finite value or diverged, by number."""
    searched = series.result.space.searched
    return [
        Line(
            t.number,
            tuple(place(p, t.draw[p.label]) if p.label in t.draw else None for p in searched),
            tuple(text_of(t.draw[p.label]) if p.label in t.draw else "" for p in searched),
            value if isfinite(value := t.objective(series.metric)) else None,
            ending(t),
        )
        for t in series.trials
        if ending(t) is Ending.DIVERGED or isfinite(t.objective(series.metric))
    ]


def scale_of(trials: Sequence[Line], series: ReportData) -> Scale:
    """Return a scale from the best value to the worst value that is not an outlier."""
    values = [line.value for line in trials if line.value is not None]
    low, high = window(values, series.sign) or (0.0, 1.0)
    return Scale(low, high, series.sign)


def groups(trials: Sequence[Line], sign: int) -> list[list[Line]]:
    """Split the trials that have a value into up to five groups of equal size, worst first."""
    ranked = sorted(
        (line for line in trials if line.value is not None),
        key=lambda line: (-sign * (line.value or 0.0), line.number),
    )
    count = min(_GROUPS, len(ranked))
    ends = [round(i * len(ranked) / count) for i in range(count + 1)] if count else []
    return [ranked[a:b] for a, b in pairwise(ends)]


def pictures(series: ReportData, winner: int | None) -> list[Picture]:
    """Draw one vertical axis for each parameter and one for the objective."""
    searched = series.result.space.searched
    if not searched or not any(curve.values for curve in series.curves):
        return []
    caption, figure = _caption(series), _figure(series, winner)
    width = _WIDTH_EACH * (len(searched) + 1)
    return [Picture("parallel", "All parameters at once", caption, figure, width)]


def _caption(series: ReportData) -> str:
    """Return the parameter in which the best trials agree most."""
    ranked = groups(lines(series), series.sign)
    text = "Each line is a trial, thin if it was stopped; better trials have a stronger colour"
    best = ranked[-1] if ranked else []
    spans = [(span, title, ends) for span, title, ends in _spans(best, series) if span < 0.5]
    if len(best) > 1 and spans:
        _, title, (low, high) = min(spans)
        where = f"from {low} to {high}" if low != high else f"at {low}"
        return f"{text}. The best {len(best)} trials are closest together in {title}, {where}."
    return f"{text}."


def _spans(best: Sequence[Line], series: ReportData) -> list[tuple[float, str, tuple[str, str]]]:
    """Return, for each axis, the share that the trials span, its title, and both ends as text."""
    spans = []
    for index, axis in enumerate(axes_of(series)):
        places = [(p, line.texts[index]) for line in best if (p := line.places[index]) is not None]
        if len(places) == len(best) and places and axis.low < axis.high:
            low, high = min(places), max(places)
            spans.append((high[0] - low[0], axis.title, (low[1], high[1])))
    return spans


def _figure(series: ReportData, winner: int | None) -> go.Figure:
    axes, trials = axes_of(series), lines(series)
    scale = scale_of(trials, series)
    figure = new_figure(height=_HEIGHT, margin={"l": 4, "r": 4, "t": 64, "b": 16})
    bad = [line for line in trials if line.value is None]
    if bad:
        style = {"color": DIVERGED, "width": 1.2, "dash": "dot"}
        _add(figure, bad, scale, name="diverged", line=style, opacity=0.7)
    members, fine = groups(trials, series.sign), 0.6 if len(trials) > _CROWD else 1.0
    names = _NAMES if len(members) == _GROUPS else [""] * len(members)
    for name, group, colour in zip(names, members, shades(len(members)), strict=True):
        # one of the two traces of a group is in the legend: the thick one, if there is one
        has_thick = any(line.ending is Ending.FINISHED and line.number != winner for line in group)
        for done in (False, True):  # lines of stopped trials are thin
            chosen = [
                line for line in group
                if (line.ending is Ending.FINISHED) is done and line.number != winner
            ]  # fmt: skip
            if chosen:
                style = {"color": colour, "width": (2 if done else 1) * fine}
                _add(
                    figure, chosen, scale, name=name, line=style,
                    opacity=(0.95 if done else 0.7) * fine,
                    showlegend=bool(name) and done is has_thick,
                )  # fmt: skip
    best = [line for line in trials if line.number == winner]
    if best:
        style = {"color": WINNER, "width": 4}
        _add(figure, best, scale, name=f"winner, trial {winner}", line=style)
    _add_axes(figure, axes, scale, series.metric, trials)
    return figure


def _add(figure: go.Figure, members: Sequence[Line], scale: Scale, **style: Any) -> None:
    """Add lines of one style, as one trace with gaps."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    labels: list[tuple[int, str]] = []
    for line in members:
        places = [_NOT_DRAWN if place is None else place for place in line.places]
        ys += [*places, scale.place(line.value), None]
        xs += [*range(len(places) + 1), None]
        value = "diverged" if line.value is None else value_text(line.value)
        texts = [safe(text) or "not drawn" for text in line.texts]
        labels += [(line.number, text) for text in (*texts, value, "")]
    figure.add_scatter(
        x=xs, y=ys, mode="lines", customdata=labels, cliponaxis=False,
        hovertemplate="trial %{customdata[0]}: %{customdata[1]}<extra></extra>", **style,
    )  # fmt: skip


def _add_axes(
    figure: go.Figure, axes: Sequence[Axis], scale: Scale, metric: str, trials: Sequence[Line]
) -> None:
    """Add the axes with their ticks and titles."""
    ends = ((0.0, value_text(scale.low)), (1.0, value_text(scale.high)))
    columns = [(axis.title, axis.when, axis.ticks) for axis in axes]
    for x, (title, when, ticks) in enumerate([*columns, (metric, "", ends)]):
        is_last = x == len(axes)
        figure.add_shape(
            type="line", x0=x, x1=x, y0=0, y1=1, line={"color": INK if is_last else FAINT},
            layer="below",
        )  # fmt: skip
        heading = "<br>".join(map(safe, _folded(title)))
        if when:
            heading += "".join(f"<br><i>{safe(part)}</i>" for part in _folded(when))
        figure.add_annotation(
            x=x, y=1, yref="paper", text=f"<b>{heading}</b>" if is_last else heading,
            showarrow=False, yanchor="bottom", font={"color": INK, "size": 13},
        )  # fmt: skip
        for y, text in ticks:
            figure.add_annotation(
                x=x, y=y, text=safe(text), showarrow=False, xanchor="left", xshift=3,
                font={"color": FAINT, "size": 11}, bgcolor=VEIL, borderpad=1,
            )  # fmt: skip
    low, high = 0.0, 1.0
    missing = [x for line in trials for x, place in enumerate(line.places) if place is None]
    if missing:
        _note(figure, min(missing), _NOT_DRAWN, "not drawn")
        low = _NOT_DRAWN
    if any(line.value is None for line in trials):
        beyond = scale.place(None)
        _note(figure, len(axes), beyond, "diverged")
        low, high = min(low, beyond), max(high, beyond)
    hidden = {"visible": False, "fixedrange": True}
    figure.update_xaxes(**hidden, range=[-0.55, len(axes) + 0.5])
    figure.update_yaxes(**hidden, range=[low - 0.03, high + 0.04])


def _folded(title: str) -> list[str]:
    """Break a title into lines that fit above an axis: `tied_embeddings` becomes two."""
    folded: list[str] = []
    for part in title.replace(" / ", "\n/ ").split("\n"):
        breakable = part.replace("_", "_ ") if len(part) > _LONGEST else part
        folded += [line.replace("_ ", "_") for line in wrap(breakable, _LONGEST)]
    return folded


def _note(figure: go.Figure, x: float, y: float, text: str) -> None:
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", xshift=3, bgcolor=VEIL,
        font={"color": FAINT, "size": 11},
    )  # fmt: skip
