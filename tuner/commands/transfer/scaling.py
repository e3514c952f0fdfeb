"""`tuner scaling`: laws of searches over several sizes, and predictions by them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner.commands.output import consoles, print_json, recorded_home
from tuner.errors import TunerError
from tuner.formatting import counted, listed, number
from tuner.home import Home
from tuner.report.write import check_output
from tuner.scaling.laws import DESCRIPTIONS, LawValue, ScalingLaws, fit_laws
from tuner.scaling.optima import SizeOptimum, optimum_of, smooth
from tuner.scaling.prediction import Prediction, find_prediction, write_prediction
from tuner.scaling.runs import SizeRuns, measure
from tuner.terminal.tables import table
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
        return _compare(options, home, searches, results)
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
        results.print(f"wrote {path}", highlight=False, soft_wrap=True)
        results.print(
            f"after the target is trained: tuner scaling {' '.join(searches)} --compare SEARCH",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if output:
        from tuner.scaling.picture import draw_scaling

        draw_scaling(found, output, ", ".join(searches), target)
        results.print(f"wrote {output}", highlight=False, soft_wrap=True)
    print_json(options, {
        "searches": searches, "kind": found.kind, "noise": found.optima.noise,
        "sizes": [_size(o) for o in found.optima.all],
        "left_out": list(found.optima.few),
        "laws": [{
            "quantity": law.quantity,
            "exponents": {n: asdict(e) for n, e in zip(law.variables, law.exponents, strict=True)},
            "constant": asdict(law.constant) if law.constant else None,
        } for law in found.laws],
        "best_sizes": [asdict(b) for b in found.best_sizes],
        "prediction": prediction.model_dump(mode="json") if prediction else None,
        "prediction_file": str(path) if path else None,
        "picture": str(output) if output else None,
    })  # fmt: skip
    return 0


def _size(o: SizeOptimum) -> dict[str, Any]:
    return {
        "parameters": o.size.parameters, "tokens": o.size.tokens, "flops": o.size.flops,
        "trials": len(o.size.runs), "fitted": o.kept, "loss": o.loss, "edges": list(o.edges),
        **o.values,
    }  # fmt: skip


def _print_sizes(console: Console, found: ScalingLaws) -> None:
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
    console.print(table("optima, smoothed by a bowl in the logarithm", columns, rows))
    for text in optima.few:
        console.print(f"left out, too few different values: {text}", highlight=False)
    if any(o.edges for o in optima.all):
        console.print(
            "An optimum at the edge of the trials is unknown, and enters no law: widen the range.",
            style="yellow",
        )
    console.print(
        f"A trial's loss deviates from its bowl by {optima.noise:.3g} "
        f"({counted(optima.freedom, 'degree')} of freedom).",
        highlight=False,
    )
    console.print()


def _print_laws(console: Console, found: ScalingLaws) -> None:
    console.print(f"{DESCRIPTIONS[found.kind]}.", highlight=False)
    rows = []
    for law in found.laws:
        ways = [
            f"{name}^{_interval(e, '+.2f')}"
            for name, e in zip(law.variables, law.exponents, strict=True)
        ]
        above = ""
        if law.quantity == "loss":
            above = f"above {_interval(law.constant, '.3f')}" if law.constant else "no constant"
        rows.append([law.quantity, "∝", " · ".join(ways), above])
    console.print(table("laws, with 90 % intervals", ["", "", "", ""], rows))
    for best in found.best_sizes:
        p, loss = best.parameters, best.loss
        text = (
            "is at the edge of the sizes or beyond; train smaller or larger ones"
            if best.is_edge
            else f"has {p.value:,.0f} weights ({p.low:,.0f} … {p.high:,.0f}) and a loss of "
            f"{_interval(loss, '.4f')}"
        )
        console.print(f"At {best.flops:.3g} FLOPs the best size {text}.", highlight=False)
    console.print()


def _print_prediction(console: Console, found: ScalingLaws, prediction: Prediction) -> None:
    rows = [
        [name, number(_rounded(v.value)), f"{number(_rounded(v.low))} … {number(_rounded(v.high))}"]
        for name, v in prediction.values.items()
    ]
    title = f"prediction at {_target(prediction.target)}"
    console.print(table(title, ["", "value", "90 % interval"], rows))
    n = prediction.target.get("parameters")
    if n and "tokens" not in prediction.target and not math.isnan(found.tokens_exponent):
        console.print(
            f"It is that of {found.tokens_at(n):,.0f} tokens, as the trials' tokens follow the "
            f"size.",
            highlight=False,
        )
    largest = max(o.size.parameters for o in found.optima.used)
    if n and n > 10 * largest:
        console.print(
            f"The target is {n / largest:,.0f} times as large as the largest model of the trials; "
            f"intervals know nothing of laws that bend.",
            style="yellow", highlight=False,
        )  # fmt: skip


def _compare(options: argparse.Namespace, home: Home, searches: list[str], out: Console) -> int:
    """Compare a search with the oldest prediction of its size."""
    target = load_search(options.compare, home=home)
    measure([*(load_search(name, home=home) for name in searches), target])  # or refuse
    path, prediction, size = find_prediction(home, searches, measure([target]))
    is_before = prediction.date.timestamp() * 1000 < target.started
    actual = _measured(size)
    rows, verdicts = [], {}
    for name, v in prediction.values.items():
        predicted = f"{number(_rounded(v.low))} … {number(_rounded(v.high))}"
        if name not in actual:
            rows.append([name, number(_rounded(v.value)), predicted, "", "not measured"])
            continue
        value, *ends = actual[name]
        verdicts[name] = v.holds(value, *ends)
        measured = number(_rounded(value))
        if ends != [value, value]:
            measured += f" ({' … '.join(number(_rounded(end)) for end in ends)})"
        verdict = "holds" if verdicts[name] else f"misses by {100 * (value / v.value - 1):+.1f} %"
        rows.append([name, number(_rounded(v.value)), predicted, measured, verdict])
    title = f"{options.compare} and the prediction at {_target(prediction.target)}"
    out.print(table(title, ["", "predicted", "90 % interval", "measured", ""], rows))
    when = f"{prediction.date:%Y-%m-%d %H:%M} UTC"
    if is_before:
        out.print(f"{path.name} was written on {when}, before the search began.", highlight=False)
    else:
        out.print(
            f"{path.name} was written on {when}, after the search had begun: it proves nothing.",
            style="yellow", highlight=False,
        )  # fmt: skip
    print_json(options, {
        "search": options.compare, "prediction": prediction.model_dump(mode="json"),
        "prediction_file": str(path), "written_before": is_before,
        "measured": {name: values[0] for name, values in actual.items()},
        "holds": verdicts,
    })  # fmt: skip
    return 0 if all(verdicts.values()) else 1


def _measured(size: SizeRuns) -> dict[str, tuple[float, float, float]]:
    """Return the optimum of a size with its interval, if it has one, and its lowest loss.

    The bowl has the shape of these trials alone: with the shape of the searches that predict, a
    wrong shape would make both wrong alike.
    """
    optimum = optimum_of(size)
    values = {}
    if optimum is not None:
        values = {
            n: (v, *optimum.intervals[n])
            for n, v in optimum.values.items() if n not in optimum.edges
        }  # fmt: skip
    loss = min(run.loss for run in size.runs)
    return {**values, "loss": (loss, loss, loss)}


def _target(target: Mapping[str, float]) -> str:
    return listed([f"{value:,.6g} {_UNITS[name]}" for name, value in target.items()], "and")


def _interval(value: LawValue, form: str) -> str:
    return f"{value.value:{form}} ({value.low:{form}} … {value.high:{form}})"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
