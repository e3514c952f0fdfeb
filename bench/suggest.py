"""How good `tuner suggest` is where it has no trial of the target.

    python bench/suggest.py            train the suggestions, for minutes
    python bench/suggest.py --quick    judge some by the atlas alone, as a test of the bench

For each cell of the atlas, a text, a size and a budget, settings are suggested from a part of the
atlas: from models of at most a quarter of the weights (*size*), from the other texts (*text*), or
from trials of at most a tenth of the weights times tokens (*compute*).
Regret is the expected loss above that of the settings that all trials of the atlas together suggest
for the cell. It is measured twice: on the bowl that is fitted to all trials (*smooth*), and by
training both settings with fresh seeds (*trained*, small cells only), which no model can flatter.
*Intervals* are the shares of the 90 % intervals of settings that hold the centre of that bowl, and
of losses that hold the mean loss of the trained suggestion.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts.atlas.cells import CONTEXT
from parts.atlas.judging import LEFT_OUT, Judge, Judged, row_of, size_of
from parts.atlas.training import Workshop, train_missing
from parts.measuring import about, add_options, finish, goal, save_figure

from tuner.knowledge.atlas import read_atlas

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (1001, 1002)  # no trial of the atlas has them
DEAREST = 6e10  # weights times tokens of the cells whose suggestions are trained
MEAN, WORST, HOLD = 0.005, 0.015, 0.85  # goals
QUICK = 3  # suggestions that the quick mode judges
Lines = Mapping[str, Mapping[str, Any]]


def trained_of(
    judge: Judge, judged: Sequence[Judged], names: Mapping[str, str], shop: Workshop, dearest: float
) -> Lines:
    """Train the suggestions of cheap cells, and the best settings by all trials."""
    every = {}
    for each in judged:
        target = each.target
        if target.parameters * target.tokens > dearest:
            continue
        points = {
            f"{each.cell}/{each.left_out}": each.point,
            f"{each.cell}/all": judge.best(each.cell),
        }
        for key, point in points.items():
            for seed in SEEDS:
                row = row_of(key, names[target.text], target, point, CONTEXT, seed)
                every[row.key] = row
    return train_missing(list(every.values()), "suggestions.jsonl", shop)


def entry(each: Judged, names: Mapping[str, str], lines: Lines) -> dict[str, Any]:
    """Return the numbers of a suggestion."""
    size, tokens = size_of(each.target)
    losses = {
        key: [
            lines[k]["curve"][-1][1] for s in SEEDS if (k := f"{each.cell}/{key}/seed {s}") in lines
        ]
        for key in (each.left_out, "all")
    }
    own, best = losses[each.left_out], losses["all"]
    has_both = len(own) == len(best) == len(SEEDS) and None not in (*own, *best)
    return {
        "left_out": each.left_out,
        "text": names[each.target.text],
        "model": f"{size.d_model}x{size.n_layers}",
        "weights": round(each.target.weights),
        "tokens": tokens,
        "expected": each.expected,
        "smooth": each.smooth,
        "holds": float(np.mean(each.holds)),
        "loss": list(each.loss),
        "level": each.level,
        "trained": float(np.mean(own) / np.mean(best) - 1) if has_both else None,
        "losses": own if has_both else [],
    }


def result_of(found: Mapping[str, Any], where: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`."""
    entries = found["suggestions"]
    rows, goals = [], []
    for left_out in LEFT_OUT:
        some = [e for e in entries if e["left_out"] == left_out]
        if not some:
            continue
        summary = _summary(some)
        rows.append([left_out, len(some), *summary["cells"]])
        if not where["rehearsal"]:
            goals += _goals(left_out, summary)
    single = [
        [
            e["left_out"], e["text"], e["model"], e["tokens"], _percent(e["expected"]),
            _percent(e["smooth"]), _percent(e["trained"]), f"{e['loss'][0]:.3f}",
            f"{e['loss'][1]:.3f} – {e['loss'][2]:.3f}",
            f"{np.mean(e['losses']):.3f}" if e["losses"] else "",
        ]
        for e in sorted(entries, key=_order)
    ]  # fmt: skip
    return {
        "bench": "suggest",
        "about": where,
        "tables": [
            {
                "title": "Suggestions without a trial of the target, regret in %",
                "columns": [
                    "left out", "cells", "expected", "smooth, mean", "worst", "trained, mean",
                    "worst", "intervals of settings", "of losses", "error of losses",
                ],
                "rows": rows,
            },
            {
                "title": "Each suggestion, regret in %",
                "columns": [
                    "left out", "text", "model", "tokens", "expected", "smooth", "trained",
                    "expected loss", "90 % interval", "trained loss",
                ],
                "rows": single,
            },
        ],
        "goals": goals,
        "notes": [],
        "numbers": found,
    }  # fmt: skip


def _order(e: Mapping[str, Any]) -> tuple[Any, ...]:
    return e["left_out"], e["text"], e["weights"], e["tokens"]


def _summary(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    trained = [e["trained"] for e in some if e["trained"] is not None]
    pairs = [(e["loss"], float(np.mean(e["losses"]))) for e in some if e["losses"]]
    held = [low <= loss <= high for (_, low, high), loss in pairs]
    errors = [abs(value / loss - 1) for (value, _, _), loss in pairs]
    smooth, holds = [e["smooth"] for e in some], float(np.mean([e["holds"] for e in some]))
    return {
        "trained": trained,
        "smooth": smooth,
        "holds": holds,
        "cells": [
            _percent(np.mean([e["expected"] for e in some])),
            _percent(np.mean(smooth)), _percent(max(smooth)),
            _percent(np.mean(trained)) if trained else "",
            _percent(max(trained)) if trained else "",
            f"{100 * holds:.0f} %", f"{100 * np.mean(held):.0f} %" if held else "",
            _percent(np.mean(errors)) if errors else "",
        ],
    }  # fmt: skip


def _goals(left_out: str, summary: Mapping[str, Any]) -> list[Any]:
    goals = []
    for how in ("smooth", "trained"):
        if regrets := summary[how]:
            what = f"{left_out} left out, {how} regret"
            goals.append(goal(f"{what}, mean", float(np.mean(regrets)), most=MEAN))
            goals.append(goal(f"{what}, worst", float(max(regrets)), most=WORST))
    what = f"{left_out} left out, share of 90 % intervals of settings that hold"
    return [*goals, goal(what, summary["holds"], least=HOLD)]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the regret that was expected and the one that came out."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for left_out, marker in zip(LEFT_OUT, "os^", strict=True):
        some = [e for e in result["numbers"]["suggestions"] if e["left_out"] == left_out]
        for how, filled in (("smooth", "none"), ("trained", None)):
            points = [(100 * e["expected"], 100 * e[how]) for e in some if e[how] is not None]
            if points:
                x, y = zip(*points, strict=True)
                colour = {"size": "tab:blue", "text": "tab:orange"}.get(left_out, "tab:green")
                axes.scatter(
                    x, y, marker=marker, edgecolor=colour, facecolor=filled or colour, s=24,
                    label=f"{left_out} left out, {how}",
                )  # fmt: skip
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set_xlabel("expected regret, %")
    axes.set_ylabel("regret, %")
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path, 130)


def main() -> int:
    """Judge, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "atlas", help="texts and trained trials"
    )
    parser.add_argument(
        "--dearest", type=float, default=DEAREST,
        help="weights times tokens up to which suggestions are trained (default: 6e10)",
    )  # fmt: skip
    add_options(parser, f"{QUICK} suggestions, nothing trained")
    options = parser.parse_args()
    judge = Judge(read_atlas())
    names = {text: name for name, text in read_atlas().card["fingerprints"].items()}
    judged = []
    for each in judge.suggestions():
        judged.append(each)
        if options.quick and len(judged) == QUICK:
            break
    shop = Workshop(options.folder, options.processes, nice=5)
    lines = {} if options.quick else trained_of(judge, judged, names, shop, options.dearest)
    found = {"suggestions": [entry(each, names, lines) for each in judged]}
    where = about(["numpy", "scipy"], rehearsal=options.quick, trials=read_atlas().source.trials)
    finish(result_of(found, where), options, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
