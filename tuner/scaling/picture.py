"""Pictures of a scaling study: basins, optima, laws and the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tuner.report.palette import FINISHED, INK, PALE, WINNER, shades
from tuner.report.picture import Picture, Section, add_band, log_axis, new_figure, value_axis
from tuner.report.write import write_pictures
from tuner.results.bowls import Estimate
from tuner.scaling.laws import Law, ScalingLaws

_LABELS = {
    "parameters": "weights", "flops": "FLOPs", "tokens": "tokens",
    "loss": "val_loss", "α_max": "α_max", "B": "B",
}  # fmt: skip
_POINTS = 60  # of a line
_HEIGHT = 320
_OCTAVES = 1.6  # of a parabola, to each side of its lowest point


def draw_scaling(
    laws: ScalingLaws, path: Path, name: str, target: Mapping[str, float] | None = None
) -> None:
    """Write a page: the basins of all sizes, then a picture for each law.

    Laws of two variables are drawn over the weights, at the tokens of each size.

    Raises:
        TunerError: if the file cannot be written.
    """
    sections = [
        Section(
            "Optima", "Each point is a trial; a diamond is the optimum of a size, smoothed by a "
            "quadratic in the logarithm. An optimum at the edge of the trials has none.",
            [_basins(laws)],
        ),
        Section(
            "Laws", "Intervals hold 90 % of the resamples; that of a prediction is of one trial.",
            [_law(laws, law, target) for law in laws.laws],
        ),
    ]  # fmt: skip
    if laws.kind == "isoflop":
        sections.append(Section("Best size", "", [_best_size(laws)]))
    write_pictures(path, "Scaling laws", name, "optima and laws, 90 % intervals", sections)


def _basins(laws: ScalingLaws) -> Picture:
    figure, optima = new_figure(height=400), laws.optima.all
    name = next(n for n in laws.optima.draws if n != "loss")
    rates, losses = [], []
    for optimum, colour in zip(optima, shades(len(optima)), strict=True):
        runs = sorted(optimum.size.runs, key=lambda run: run.rate)
        xs = [run.rate if name == "α_max" else run.batch for run in runs]
        rates += xs
        losses += [run.loss for run in runs]
        label = f"{optimum.size.parameters:,} weights" + (" (edge)" if optimum.edges else "")
        figure.add_scatter(
            x=xs, y=[run.loss for run in runs], mode="markers", name=label,
            marker={"color": colour, "size": 7},
            hovertemplate=f"{label}: %{{y:.4f}} at %{{x:.3~g}}<extra></extra>",
        )  # fmt: skip
        if len(optimum.values) == 1:
            line = optimum.values[name] * 2 ** np.linspace(-_OCTAVES, _OCTAVES, _POINTS)
            figure.add_scatter(
                x=line, y=optimum.curve(name, line), mode="lines",
                line={"color": colour, "width": 1.6}, hoverinfo="skip",
            )  # fmt: skip
        if not optimum.edges:
            figure.add_scatter(
                x=[optimum.values[name]], y=[optimum.loss], mode="markers",
                marker={"color": colour, "size": 13, "symbol": "diamond", "line": {"color": INK}},
                hovertemplate=f"optimum of {label}: %{{y:.4f}} at %{{x:.3~g}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(log_axis(rates, name, "~g"))
    figure.update_yaxes(value_axis(losses, "val_loss"))
    return Picture("optima", f"val_loss against {name}", "", figure)


def _law(laws: ScalingLaws, law: Law, target: Mapping[str, float] | None) -> Picture:
    figure, variable, quantity = new_figure(height=_HEIGHT), law.variables[0], law.quantity
    xs, ys = _optima(laws, law)
    ends = [*xs, *([target[variable]] if target and variable in target else [])]
    line = np.geomspace(min(ends), max(ends), _POINTS).tolist()
    values: list[Estimate] = []
    if len(law.variables) == 1:
        values = [law.predict({variable: x}) for x in line]
        low, high = [v.low for v in values], [v.high for v in values]
        add_band(figure, line, low, high, fillcolor=PALE, name="90 % interval")
        figure.add_scatter(
            x=line, y=[v.value for v in values], mode="lines", name="law",
            line={"color": FINISHED, "width": 2}, hoverinfo="skip",
        )  # fmt: skip
    if ys:
        figure.add_scatter(
            x=xs, y=ys, mode="markers", name="optimum of a size",
            marker={"color": FINISHED, "size": 10, "symbol": "diamond"},
            hovertemplate="%{y:.4~g} at %{x:.3~s}<extra></extra>",
        )  # fmt: skip
    if target and all(v in target for v in law.variables):
        at = law.predict(target)
        values.append(at)
        figure.add_scatter(
            x=[target[variable]], y=[at.value], mode="markers", name="prediction",
            marker={"color": WINNER, "size": 15, "symbol": "star"},
            error_y={
                "array": [at.high - at.value], "arrayminus": [at.value - at.low],
                "color": WINNER, "thickness": 2, "width": 5,
            },
            hovertemplate="predicted %{y:.4~g} at %{x:.3~s}<extra></extra>",
        )  # fmt: skip
    shown = [*ys, *(end for v in values for end in (v.low, v.high))]
    figure.update_xaxes(log_axis(ends, _LABELS[variable]))
    if quantity == "loss":
        figure.update_yaxes(value_axis(shown, "val_loss", (min(shown), max(shown))))
    else:
        form = "~s" if quantity == "parameters" else "~g"
        figure.update_yaxes(log_axis(shown, _LABELS[quantity], form))
    ways = [
        f"{_LABELS[name]}^{e.text()}" for name, e in zip(law.variables, law.exponents, strict=True)
    ]
    above = f", above {law.constant.value:.3f}" if law.constant else ""
    caption = f"{_LABELS[quantity]} ∝ {' · '.join(ways)}{above}"
    return Picture(f"law-{quantity}", _LABELS[quantity], caption, figure)


def _optima(laws: ScalingLaws, law: Law) -> tuple[list[float], list[float]]:
    """Return the variable and the quantity of a law at each optimum that it was fitted to."""
    if laws.kind != "levels":
        used = laws.optima.used
        xs = [float(getattr(o.size, law.variables[0])) for o in used]
        return xs, [o.loss if law.quantity == "loss" else o.values[law.quantity] for o in used]
    xs = [best.flops for best in laws.best_sizes]
    if law.quantity not in ("parameters", "loss"):
        return xs, []
    return xs, [getattr(best, law.quantity).value for best in laws.best_sizes]


def _best_size(laws: ScalingLaws) -> Picture:
    (best,), used = laws.best_sizes, laws.optima.used
    figure, n = new_figure(height=_HEIGHT), best.parameters
    figure.add_vrect(x0=n.low, x1=n.high, fillcolor=PALE, line_width=0, layer="below")
    figure.add_vline(x=n.value, line={"color": WINNER, "width": 2})
    figure.add_scatter(
        x=[o.size.parameters for o in used], y=[o.loss for o in used], mode="markers",
        marker={"color": FINISHED, "size": 10, "symbol": "diamond"},
        hovertemplate="%{y:.4f} with %{x:,} weights<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(log_axis([*(o.size.parameters for o in used), n.low, n.high], "weights"))
    figure.update_yaxes(value_axis([o.loss for o in used], "val_loss"))
    caption = (
        f"The best size at {best.flops:.3g} FLOPs has {n.value:,.0f} weights "
        f"({n.low:,.0f} … {n.high:,.0f})."
    )
    return Picture("best-size", "val_loss against weights", caption, figure)
