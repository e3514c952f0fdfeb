"""Pictures of the learning rates that a search space can draw (`tuner validate --plot`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plotly.graph_objects import Figure

from tuner.report.palette import INK, KINDS
from tuner.report.picture import Picture, Section, log_axis, new_figure, safe
from tuner.report.write import write_pictures
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.summaries.rates import RateCurve, rate_curves

_WIDE_RANGE = 20  # highest peak / lowest peak: above, the scale is logarithmic
_DECADES = 3  # shown below the lowest peak on a log scale, at most
_PLATEAU = "As if val_loss never stopped falling."
_STYLES = ("dash", "solid", "dot", "dashdot")


def draw_rates(space: SearchSpace, facts: DataFacts, path: str | Path) -> None:
    """Write a page with a picture of each schedule.

    Raises:
        TunerError: if the file cannot be written.
    """
    pictures = [
        Picture(schedule, schedule, _PLATEAU if schedule == "plateau" else "", _figure(curves))
        for schedule, curves in rate_curves(space, facts).items()
    ]  # fmt: skip
    section = Section("Schedules", "", pictures, has_one_legend=False)
    about = "the defaults, and one parameter at a time at its ends"
    write_pictures(path, "Learning rates", space.name, about, [section])


def _figure(curves: list[RateCurve]) -> Figure:
    """Draw one schedule: a colour for each parameter, a line style for each value."""
    figure = new_figure(height=340)
    for curve in [*curves[1:], curves[0]]:
        parameter, value = curve.place
        line = {
            "color": KINDS[parameter % len(KINDS)],
            "width": 1.6,
            "dash": _STYLES[value % len(_STYLES)],
        }
        if curve is curves[0]:
            line = {"color": INK, "width": 3}
        figure.add_scatter(
            x=curve.steps.astype(np.int32), y=curve.rates.astype(np.float32), mode="lines",
            name=curve.label, line=line,
            hovertemplate=f"{safe(curve.label)}: %{{y:.3~g}} at update %{{x:,}}<extra></extra>",
        )  # fmt: skip
    peaks = [float(curve.rates.max()) for curve in curves]
    if max(peaks) > _WIDE_RANGE * min(peaks):
        lowest = min(float(curve.rates[curve.rates > 0].min()) for curve in curves)
        ends = [max(lowest, min(peaks) / 10**_DECADES), max(peaks)]
        figure.update_yaxes(log_axis(ends, "learning rate α_t", "~g"))
    else:
        figure.update_yaxes(title_text="learning rate α_t", range=[0, 1.05 * max(peaks)])
    figure.update_xaxes(title_text="update t", rangemode="tozero", tickformat="~s")
    return figure
