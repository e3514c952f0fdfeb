"""Loss against learning rate, and what a factor of two costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from tuner.report.palette import FAINT, FINISHED, INK, WINNER, ordered
from tuner.report.picture import Picture, log_axis, new_figure, value_axis
from tuner.report.series import ReportData
from tuner.results.advice import comparable
from tuner.results.range_edit import named
from tuner.results.sensitivity import Basin, basins

_POINTS = 60  # of a parabola


def basins_of(series: ReportData) -> tuple[list[Basin], str]:
    """Return the basins of the searched learning rates, and the budget of the trials as text."""
    points, budget = comparable(series.result.space, series.originals)
    return basins(series.result.space, points), budget


def pictures(series: ReportData) -> list[Picture]:
    """Draw the basins of the learning rates; none for several objectives."""
    found, budget = basins_of(series)
    if not found or len(series.result.space.objectives) > 1:
        return []
    text, drawn = caption(found, series, budget), figure(found, series)
    return [Picture("sensitivity", "Loss against learning rate", text, drawn)]


def caption(found: Sequence[Basin], series: ReportData, budget: str) -> str:
    """Return the caption: what a factor of two costs at each bottom, with intervals."""
    sign, metric = series.sign, series.metric
    parts = [
        f"{named(b.parameter)}: lowest at {b.bottom:.3g} with {sign * b.loss:.4f}; a factor of "
        f"two costs {b.cost:.4f} ({b.low:.4f} … {b.high:.4f}), over {len(b.rates)} trials"
        for b in found
    ]
    text = (
        f"{metric} at {budget} against the learning rate, and a parabola in its logarithm through "
        f"the trials near the best ones; the other parameters differ from trial to trial. "
        f"{'. '.join(parts)}. The intervals hold 90 % of 400 resamples of the trials."
    )
    if len(found) > 1:
        text += " Of basins that are about as deep, prefer the flat one: it forgives more."
    return text


def figure(found: Sequence[Basin], series: ReportData) -> go.Figure:
    """Draw trials and parabola of each basin."""
    drawn, sign = new_figure(height=320), series.sign
    shown: list[float] = []
    for index, basin in enumerate(found):
        colour = FINISHED if len(found) == 1 else ordered(index / (len(found) - 1))
        name = named(basin.parameter)
        drawn.add_scatter(
            x=basin.rates.tolist(), y=(sign * basin.losses).tolist(), mode="markers", name=name,
            marker={"color": colour, "size": 7},
            hovertemplate=f"{name} %{{x:.3g}}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        xs, ys = parabola(basin, sign)
        drawn.add_scatter(
            x=xs, y=ys, mode="lines", name=f"parabola of {name}", hoverinfo="skip",
            line={"color": WINNER if len(found) == 1 else colour, "width": 2},
        )  # fmt: skip
        drawn.add_scatter(
            x=[basin.bottom], y=[sign * basin.loss], mode="markers", name=f"bottom of {name}",
            marker={"symbol": "diamond", "size": 9, "color": INK, "line": {"color": FAINT}},
            hovertemplate=f"bottom of {name}: %{{y:.4f}} at %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
        shown += [*(sign * basin.losses).tolist(), *ys]
    rates = [rate for basin in found for rate in basin.rates.tolist()]
    drawn.update_xaxes(log_axis(rates, "learning rate", "~g"))
    drawn.update_yaxes(value_axis(shown, series.metric))
    return drawn


def parabola(basin: Basin, sign: int) -> tuple[list[float], list[float]]:
    """Return rates and losses of the parabola, over the rates of its trials."""
    xs = np.geomspace(basin.rates.min(), basin.rates.max(), _POINTS).tolist()
    return xs, [sign * basin.value(x) for x in xs]
