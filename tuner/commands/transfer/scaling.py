"""`tuner scaling`: laws of searches over several sizes, and predictions by them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from tuner.commands.output import consoles, home_option, print_json, recorded_home
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.report.write import check_output
from tuner.scaling.findings import PredictionCheck, ScalingFindings
from tuner.scaling.laws import DESCRIPTIONS, ScalingLaws, fit_laws
from tuner.scaling.optima import smooth
from tuner.scaling.prediction import PredictedValue, Prediction, write_prediction
from tuner.scaling.runs import measure
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import counted, listed, number
from tuner.trained.load_search import load_search

_UNITS = {"parameters": "weights", "tokens": "tokens", "flops": "FLOPs"}


def run_scaling(options: argparse.Namespace) -> int:
    """Fit laws and predict; with --compare, exit status 1 if a prediction does not hold."""
    home, searches = recorded_home(options), list(dict.fromkeys(options.searches))
    if options.tokens and not options.parameters:
        raise TunerError("--tokens says how long a model of --parameters is trained; give both")
    output = Path(options.output) if options.output else None
    if output:
        check_output(output)
    results, _ = consoles(options)
    if options.compare:
        if options.parameters or options.flops or output or options.of:
            raise TunerError(
                "--compare reads the prediction that was written; give only searches with it"
            )
        return _compare(options, home, searches)
    target = {name: getattr(options, name) for name in _UNITS if getattr(options, name)}
    variable = "flops" if options.flops else "parameters" if options.parameters else None
    sizes = measure([load_search(name, home=home) for name in searches])
    found = fit_laws(smooth(sizes), variable, options.of)
    _print_sizes(results, found)
    _print_laws(results, found)
    prediction, path = None, None
    if target:
        prediction = Prediction.of(found, searches, target)
        path, prediction = write_prediction(prediction, home)
        _print_prediction(results, found, prediction)
        results.write_line(f"wrote {path}")
        results.write_line(
            f"after the target is trained: tuner scaling {' '.join(searches)} --compare SEARCH"
            + home_option(options)
        )
    if output:
        from tuner.scaling.picture import draw_scaling

        draw_scaling(found, output, ", ".join(searches), target)
        results.write_line(f"wrote {output}")
    print_json(options, ScalingFindings(searches, found, prediction, path, output))
    return 0


def _print_sizes(console: PlainConsole, found: ScalingLaws) -> None:
    optima = found.optima
    names = list(optima.all[0].values)
    rows = [
        [
            f"{o.size.parameters:,}", f"{o.size.tokens:,.0f}", f"{o.size.flops:.3g}",
            f"{o.kept} of {len(o.size.runs)}",
            *(number(_rounded(o.values[n])) for n in names), f"{o.loss:.4f}",
            f"edge of {listed(o.edges, 'and')}" if o.edges else "",
        ]
        for o in optima.all
    ]  # fmt: skip
    columns = ["weights", "tokens", "FLOPs", "trials fitted", *names, "val_loss", ""]
    console.table("optima, smoothed by a bowl in the logarithm", columns, rows)
    for text in optima.few:
        console.print(f"left out, too few different values: {text}")
    if any(o.edges for o in optima.all):
        console.print(
            "An optimum at the edge of the trials is unknown, and enters no law: widen the range.",
            style="yellow",
        )
    console.print(
        f"A trial's loss deviates from its bowl by {optima.noise:.3g} "
        f"({counted(optima.freedom, 'degree')} of freedom)."
    )
    console.print()


def _print_laws(console: PlainConsole, found: ScalingLaws) -> None:
    console.print(f"{DESCRIPTIONS[found.kind]}.")
    rows = []
    for law in found.laws:
        pairs = zip(law.variables, law.exponents, strict=True)
        ways = [f"{name}^{e.text()}" for name, e in pairs]
        above = ""
        if law.quantity == "loss":
            above = f"above {law.constant.text('.3f')}" if law.constant else "no constant"
        rows.append([law.quantity, "∝", " · ".join(ways), above])
    console.table("laws, with 90 % intervals", ["", "", "", ""], rows)
    for best in found.best_sizes:
        p = best.parameters
        text = (
            "is at the edge of the sizes or beyond; train smaller or larger ones"
            if best.is_edge
            else f"has {p.value:,.0f} weights ({p.low:,.0f} … {p.high:,.0f}) and a loss of "
            f"{best.loss.text('.4f')}"
        )
        console.print(f"At {best.flops:.3g} FLOPs the best size {text}.")
    console.print()


def _print_prediction(console: PlainConsole, found: ScalingLaws, prediction: Prediction) -> None:
    rows = [_predicted(name, value) for name, value in prediction.values.items()]
    title = f"prediction at {_target(prediction.target)}"
    console.table(title, ["", "value", "90 % interval"], rows)
    n = prediction.target.get("parameters")
    if n and "tokens" not in prediction.target and not math.isnan(found.tokens_exponent):
        console.print(
            f"It is that of {found.tokens_at(n):,.0f} tokens, as the trials' tokens follow the "
            f"size."
        )
    largest = max(o.size.parameters for o in found.optima.used)
    if n and n > 10 * largest:
        console.print(
            f"The target is {n / largest:,.0f} times as large as the largest model of the trials; "
            f"intervals know nothing of laws that bend.",
            style="yellow",
        )


def _compare(options: argparse.Namespace, home: Home, searches: list[str]) -> int:
    """Compare a search with the oldest prediction of its size."""
    target = load_search(options.compare, home=home)
    check = PredictionCheck.of(home, [load_search(name, home=home) for name in searches], target)
    prediction, results = check.prediction, consoles(options)[0]
    rows = []
    for name, value in prediction.values.items():
        text, verdict = "", "not measured"
        if name in check.measured:
            measured, *ends = check.measured[name]
            text = number(_rounded(measured))
            if ends != [measured, measured]:
                text += f" ({' … '.join(number(_rounded(end)) for end in ends)})"
            change = 100 * (measured / value.value - 1)
            verdict = "holds" if check.holds[name] else f"misses by {change:+.1f} %"
        rows.append([*_predicted(name, value), text, verdict])
    title = f"{options.compare} and the prediction at {_target(prediction.target)}"
    results.table(title, ["", "predicted", "90 % interval", "measured", ""], rows)
    written = f"{check.prediction_file.name} was written on {prediction.date:%Y-%m-%d %H:%M} UTC"
    if check.written_before:
        results.print(f"{written}, before the search began.")
    else:
        results.print(f"{written}, after the search had begun: it proves nothing.", style="yellow")
    print_json(options, check)
    return 0 if all(check.holds.values()) else 1


def _predicted(name: str, value: PredictedValue) -> list[str]:
    low, high = number(_rounded(value.low)), number(_rounded(value.high))
    return [name, number(_rounded(value.value)), f"{low} … {high}"]


def _target(target: Mapping[str, float]) -> str:
    return listed([f"{value:,.6g} {_UNITS[name]}" for name, value in target.items()], "and")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
