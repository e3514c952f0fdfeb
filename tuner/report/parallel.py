"""Parallel coordinates of the page, as plain lines: every trial across all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from tuner.report.axes import Axis, Line, axes_of, lines
from tuner.report.figures import figure, safe, value_text
from tuner.report.palette import DIVERGED, FAINT, INK, VEIL, WINNER, ordered
from tuner.report.series import Ending, ReportData, is_wide, window

_GROUPS = 5  # of trials, by their rank
_NOT_DRAWN, _BEYOND = -0.1, 1.1  # places outside of an axis
_HEIGHT = 420
WIDTH_EACH = 96  # pixels that an axis needs
_CROWD = 100  # trials, from which on lines are finer
_LONGEST = 15  # letters of a line of a title
_NAMES = ("worst fifth", "fourth fifth", "middle fifth", "second fifth", "best fifth")


@dataclass(frozen=True)
class Scale:
    """The axis of the objective.

    Attributes:
        low: its lower end.
        high: its upper end.
        sign: -1 if large values are good.
    """

    low: float
    high: float
    sign: int

    @property
    def is_log(self) -> bool:
        """Whether it is logarithmic, as other pictures of these values are."""
        return is_wide(self.low, self.high)

    def place(self, value: float | None) -> float:
        """Where a value lies; None, a trial that diverged, beyond the bad end."""
        if value is None:
            return _BEYOND if self.sign > 0 else _NOT_DRAWN
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / ((self.high - self.low) or 1.0)


def scale_of(found: Sequence[Line], series: ReportData) -> Scale:
    """From the best value to the worst usual one."""
    values = [line.value for line in found if line.value is not None]
    low, high = window(values, series.sign) or (0.0, 1.0)
    return Scale(low, high, series.sign)


def groups(found: Sequence[Line], sign: int) -> list[list[Line]]:
    """The trials with a value in up to five groups of equal size, the worst first."""
    ranked = sorted(
        (line for line in found if line.value is not None),
        key=lambda line: (-sign * (line.value or 0.0), line.number),
    )
    count = min(_GROUPS, len(ranked))
    ends = [round(i * len(ranked) / count) for i in range(count + 1)] if count else []
    return [ranked[a:b] for a, b in pairwise(ends)]


def parallel(series: ReportData, winner: int | None) -> go.Figure:
    """One vertical axis for each parameter and one for the objective."""
    axes, found = axes_of(series), lines(series)
    scale = scale_of(found, series)
    drawn = figure(height=_HEIGHT, margin={"l": 4, "r": 4, "t": 64, "b": 16})
    bad = [line for line in found if line.value is None]
    if bad:
        style = {"color": DIVERGED, "width": 1.2, "dash": "dot"}
        _add(drawn, bad, scale, name="diverged", line=style, opacity=0.7)
    members, fine = groups(found, series.sign), 0.6 if len(found) > _CROWD else 1.0
    names = _NAMES if len(members) == _GROUPS else [""] * len(members)
    for index, (name, group) in enumerate(zip(names, members, strict=True)):
        colour = ordered(index / max(len(members) - 1, 1))
        # the legend shows the thicker of the two
        shows = any(line.ending is Ending.FINISHED and line.number != winner for line in group)
        for done in (False, True):  # those that were stopped are thin
            chosen = [
                line for line in group
                if (line.ending is Ending.FINISHED) is done and line.number != winner
            ]  # fmt: skip
            if chosen:
                style = {"color": colour, "width": (2 if done else 1) * fine}
                _add(
                    drawn, chosen, scale, name=name, line=style,
                    opacity=(0.95 if done else 0.7) * fine, showlegend=bool(name) and done is shows,
                )  # fmt: skip
    best = [line for line in found if line.number == winner]
    if best:
        style = {"color": WINNER, "width": 4}
        _add(drawn, best, scale, name=f"winner, trial {winner}", line=style)
    _dress(drawn, axes, scale, series.metric, found)
    return drawn


def _add(drawn: go.Figure, members: Sequence[Line], scale: Scale, **style: Any) -> None:
    """Lines that look alike, as one trace with gaps."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    told: list[tuple[int, str]] = []
    for line in members:
        places = [_NOT_DRAWN if place is None else place for place in line.places]
        ys += [*places, scale.place(line.value), None]
        xs += [*range(len(places) + 1), None]
        value = "diverged" if line.value is None else value_text(line.value)
        texts = [safe(text) or "not drawn" for text in line.texts]
        told += [(line.number, text) for text in (*texts, value, "")]
    drawn.add_scatter(
        x=xs, y=ys, mode="lines", customdata=told, cliponaxis=False,
        hovertemplate="trial %{customdata[0]}: %{customdata[1]}<extra></extra>", **style,
    )  # fmt: skip


def _dress(
    drawn: go.Figure, axes: Sequence[Axis], scale: Scale, metric: str, found: Sequence[Line]
) -> None:
    """Axes with their ticks and titles."""
    ends = ((0.0, value_text(scale.low)), (1.0, value_text(scale.high)))
    dressed = [(axis.title, axis.when, axis.ticks) for axis in axes]
    for x, (title, when, ticks) in enumerate([*dressed, (metric, "", ends)]):
        is_last = x == len(axes)
        drawn.add_shape(
            type="line", x0=x, x1=x, y0=0, y1=1, line={"color": INK if is_last else FAINT},
            layer="below",
        )  # fmt: skip
        heading = "<br>".join(map(safe, _folded(title)))
        if when:
            heading += "".join(f"<br><i>{safe(part)}</i>" for part in _folded(when))
        drawn.add_annotation(
            x=x, y=1, yref="paper", text=f"<b>{heading}</b>" if is_last else heading,
            showarrow=False, yanchor="bottom", font={"color": INK, "size": 13},
        )  # fmt: skip
        for place, text in ticks:
            drawn.add_annotation(
                x=x, y=place, text=safe(text), showarrow=False, xanchor="left", xshift=3,
                font={"color": FAINT, "size": 11}, bgcolor=VEIL, borderpad=1,
            )  # fmt: skip
    low, high = 0.0, 1.0
    missing = [x for line in found for x, place in enumerate(line.places) if place is None]
    if missing:
        _note(drawn, min(missing), _NOT_DRAWN, "not drawn")
        low = _NOT_DRAWN
    if any(line.value is None for line in found):
        beyond = scale.place(None)
        _note(drawn, len(axes), beyond, "diverged")
        low, high = min(low, beyond), max(high, beyond)
    blank = {"visible": False, "fixedrange": True}
    drawn.update_xaxes(**blank, range=[-0.42, len(axes) + 0.42])
    drawn.update_yaxes(**blank, range=[low - 0.03, high + 0.04])


def _folded(title: str) -> list[str]:
    """A title in lines that fit above an axis: `α_min / α_max` and `tied_embeddings` have two."""
    found: list[str] = []
    for part in title.replace(" / ", "\n/ ").split("\n"):
        words = part.replace("_", "_ ") if len(part) > _LONGEST else part
        found += [line.replace("_ ", "_") for line in wrap(words, _LONGEST)]
    return found


def _note(drawn: go.Figure, x: float, y: float, text: str) -> None:
    drawn.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", xshift=3, bgcolor=VEIL,
        font={"color": FAINT, "size": 11},
    )  # fmt: skip
