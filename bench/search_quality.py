"""Quality of searches, replayed on tables of trained configurations.

    python bench/search_quality.py                        replay all searches, 30 seeds; the page
    python bench/search_quality.py replay --quick         a few short ones, as a test of the bench
    python bench/search_quality.py replay --methods tpe   only methods with "tpe" in their name
    python bench/search_quality.py replay --bounds        what is possible, and sources that mislead
    python bench/search_quality.py replay --study curves  on the other table
    python bench/search_quality.py left                   does the interval of what is left hold
    python bench/search_quality.py table --study curves   train a table, ten seconds a row

Nothing is trained here: configurations of a space, the defaults and points of a scrambled Sobol
sequence, were trained to the end beforehand, and searches are replayed on the reports of these
trials. Conductor, samplers and schedulers are those of `tuner search`. There are two studies:
lm.yaml, whose losses after one report rank nearly as those at the end, and *curves*, four schedules
with long warm-ups, where they do not.

Tokens are given in complete trials: the tokens of one trial that is not stopped. *Best* is the best
finished trial so far, by val_loss, and *regret* what it lies above the best of the table, in % of
that; — : nothing had finished. A cell is the median, and the quartiles, over the seeds. The first
trial is always the defaults, never stopped but where they are raced. As the slots train at the same
time, hardly anything can finish before as many complete trials' worth of tokens are spent as there
are slots: the baselines, which train one after another, have no such beginning.

A suggestion is snapped to the nearest configuration that the search has not used yet, so late in a
search it may be far away: a sampler cannot refine, only choose. Distances weigh each parameter by
how much it tells about the loss. The table says by which factor the regrets of a configuration and
of its nearest neighbour then differ, typically (regrets below 1 % counting as about equal). The
sampler observes the configuration that was used, with its own losses.

*sampler · scheduler* have the settings of `SearchConfig` otherwise, and no priors. *the file* is
the space as it is, with its sampler, scheduler and priors, but with trials until the tokens are
spent; *the file, 24 trials*, ends when the file says.

*What is possible*: a *perfect sampler* suggests the configurations of the table from the best on;
*perfect proposals* are its best three as those of `search.learn_from`, after which tpe goes on.
*Learned from the atlas* has what `learn_from: [atlas]` proposes if the table's text, and models of
less than 2.5 times and more than 1/2.5 of its weights, are left out of the atlas. Sources that
*mislead* propose with confidence (`parts/search_quality/sources.py`).

Baselines: *one report, then top k* trains random configurations for one report each, for half of
its tokens, and the best of them to the end with the other half (Egele et al. 2024,
arXiv:2404.04111); each budget is a run that knows its budget. *Step Law* trains once, with α_max
and B by the rule of Li et al. 2025 (arXiv:2503.04715) and the defaults for the rest; it was trained
for this, not snapped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.measuring import about, add_options, finish
from parts.search_quality import left as lefts
from parts.search_quality import result as results
from parts.search_quality import table as tables
from parts.search_quality.baselines import one_report_then_top_k
from parts.search_quality.replay import FILE, Lab, Trace, snap_error
from parts.search_quality.result import plot, result_of
from parts.search_quality.sources import LEARNED, MISLEADING, PERFECT

from model.corpus.prepare import prepare
from tuner.space_file.load import load_space

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "bench" / "parts" / "search_quality" / "tables"
PAGES = ROOT / "docs" / "bench"
# name → space, table, numbers of the page
STUDIES: Mapping[str, tuple[Path, Path, Path]] = {
    "lm": (
        ROOT / "search_spaces" / "lm.yaml",
        TABLES / "lm.json.gz",
        PAGES / "search_quality.cpu.json",
    ),
    "curves": (
        TABLES / "curves.yaml",
        TABLES / "curves.json.gz",
        PAGES / "search_quality_curves.cpu.json",
    ),
}

SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    "none": {"scheduler": "none"},
    "asha-stop": {"scheduler": "asha", "asha": "stop"},
    "asha-promote": {"scheduler": "asha", "asha": "promote"},
    "hyperband": {"scheduler": "hyperband"},
    "bohb": {"scheduler": "bohb"},
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    f"{sampler} · {name}": {"sampler": sampler, **settings}
    for name, settings in SCHEDULERS.items()
    for sampler in ("random", "grid", "qmc", "tpe", "gp")
    if name != "bohb" or sampler == "tpe"  # it has a sampler of its own
}
SLOW, SLOW_MOST = "gp", 10.0  # its suggestions take from 20 ms to several tenths of a second
_DEFAULT = METHODS["tpe · asha-promote"]
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    results.DEFAULT: {"prior": FILE},  # the space file, but for its number of trials
    results.AS_IT_IS: {"prior": FILE, "trials": None},
    **{
        results.variant(prior is not None, sampler, slots, defaults): {
            **_DEFAULT,
            "prior": prior,
            "sampler": sampler,
            "slots": slots,
            "defaults": defaults,
        }
        for prior in (None, 0.75)
        for slots in (1, 4)
        for defaults in ("full", "raced")
        for sampler in ("tpe", "gp")
    },
}

# What is possible: with a sampler that knows the table, and with sources that know it or mislead
BOUNDS: Mapping[str, Mapping[str, Any]] = {
    results.bound(name, slots): {**settings, "slots": slots}
    for name, settings in {
        results.DEFAULT: {"prior": FILE},
        results.PERFECT_ASHA: {**_DEFAULT, "perfect": True},
        results.PERFECT_PROPOSALS: {**_DEFAULT, "perfect": True, "proposals": PERFECT},
        PERFECT: {**_DEFAULT, "proposals": PERFECT},
        results.LEARNED: {**_DEFAULT, "proposals": LEARNED},
        **{results.misled(how): {**_DEFAULT, "proposals": how} for how in MISLEADING},
        results.COLD: _DEFAULT,
    }.items()
    for slots in results.SLOTS
}
ALL: Mapping[str, Mapping[str, Any]] = {**METHODS, **VARIANTS, **BOUNDS}


# replaying --------------------------------------------------------------------------------------


@cache
def _lab(table: Path, space: Path, slots: int, most: float) -> Lab:
    read = tables.Table.read(table, load_space(space))
    return Lab(read, slots, round(most * _complete(read)))


def _complete(table: tables.Table) -> int:
    """Return the tokens of a complete trial."""
    return table.space.budget_tokens(table.facts)


def _trace(job: tuple[Path, Path, int, float, Mapping[str, Any], int]) -> Trace:
    *lab, settings, seed = job
    return _lab(*lab).search(settings, seed)


def _settle_down() -> None:
    """Lower the priority of this process, and limit torch to one thread."""
    os.nice(5)
    torch.set_num_threads(1)


def _searches(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each method, and its summary."""
    lab = _lab(options.table, options.space, options.slots, options.most)
    some = BOUNDS if options.bounds else METHODS | VARIANTS
    chosen = {n: s for n, s in some.items() if options.methods in n}
    if options.quick:
        quick = (results.REFERENCE, "gp · hyperband", results.DEFAULT, results.AS_IT_IS)
        if options.bounds:
            quick = tuple(results.bound(n, 2) for n in (results.COLD, results.misled("the worst")))
        chosen = {name: some[name] for name in quick}
    with ProcessPoolExecutor(options.processes, initializer=_settle_down) as pool:
        for name, settings in chosen.items():
            began = time.monotonic()
            is_slow = settings.get("sampler") == SLOW
            seeds = options.slow_seeds if is_slow and name in METHODS else options.seeds
            until = min(options.most, SLOW_MOST) if is_slow else options.most
            # the reference search tries all configurations; that of the file runs to its end
            whole = name in {results.REFERENCE, results.AS_IT_IS} and not options.quick
            most = len(lab.table.draws) if whole else until
            place = (options.table, options.space, options.slots, float(most))
            jobs = [(*place, settings, seed) for seed in range(seeds)]
            traces = list(pool.map(_trace, jobs))
            seconds = (time.monotonic() - began) / seeds
            kinds = {"variant": name in VARIANTS, "bound": name in BOUNDS}
            summary = _summary(lab.table, traces, until) | kinds
            reach = "–".join(f"{v:.1f}" for v in summary["reach"])
            trials = traces[0].trials
            print(f"{name:24} to 1 %: {reach:18} {trials:4} trials, {seconds:5.1f} s a search")
            yield name, summary


def _summary(table: tables.Table, traces: Sequence[Trace], most: float) -> dict[str, Any]:
    unit, best = _complete(table), table.best

    @cache
    def regret(tokens: float) -> list[float]:
        return [t.at(tokens * unit) / best - 1 for t in traces]

    reach = [t.reaches(best * (1 + results.GOAL)) / unit for t in traces]

    def _mean_to(level: float) -> tuple[float, float]:
        return results.mean_to([t.reaches(best * (1 + level)) / unit for t in traces], most)

    ends = [trace.at(math.inf) / best - 1 for trace in traces]
    return _described(regret, len(traces), most) | {
        "reach": results.quartiles(reach),
        "mean_to": {str(x): _mean_to(x) for x in results.LEVELS},
        "spent": float(np.median([trace.spent for trace in traces])) / unit,
        "end": results.quartiles(ends),
        "end_mean": float(np.mean(ends)),
    }


def _described(
    regret: Callable[[float], Sequence[float]], seeds: int, most: float
) -> dict[str, Any]:
    at = results.curve_points(most)
    low, median, high = zip(*(results.quartiles(regret(tokens)) for tokens in at), strict=True)
    budgets = [b for b in results.BUDGETS if b <= most]
    return {
        "seeds": seeds,
        "most": most,
        "reach": [],
        "variant": False,
        "regret": {str(b): results.quartiles(regret(b)) for b in budgets},
        "mean": {str(b): float(np.mean(regret(b))) for b in budgets},
        "curve": {"at": at, "low": low, "median": median, "high": high},
    }


def _baselines(table: tables.Table, seeds: int, most: float) -> dict[str, dict[str, Any]]:
    """Return the summaries of the baselines."""

    @cache
    def top_k(tokens: float) -> list[float]:
        found = [one_report_then_top_k(table, [tokens], seed)[0] for seed in range(seeds)]
        return [loss / table.best - 1 for loss in found]

    law = float(table.law_losses[-1]) / table.best - 1
    return {
        results.TOP_K: _described(top_k, seeds, most),
        results.STEP_LAW: _described(lambda tokens: [law], 1, most),
    }


def _equal_tokens(table: tables.Table, spent: float) -> dict[str, Any]:
    """Return the regret of the top-k baseline with the tokens of the default search."""
    found = [one_report_then_top_k(table, [spent], seed)[0] / table.best - 1 for seed in range(300)]
    return {"spent": spent, "end": results.quartiles(found), "end_mean": float(np.mean(found))}


def replay(options: argparse.Namespace) -> int:
    """Replay searches, and write numbers, page and picture."""
    if options.quick:
        options.seeds = options.slow_seeds = 2
        options.most = 4.0
    table = _lab(options.table, options.space, options.slots, options.most).table
    old: dict[str, Any] = {"methods": {}}
    if options.methods and options.out.exists():  # the other methods stay as they were
        old = json.loads(options.out.read_text(encoding="utf-8"))["numbers"]
    new = dict(_searches(options))
    if not options.bounds:
        new |= _baselines(table, 10 * options.seeds, options.most)
    found = {**old, "table": _about_table(options)}
    if results.AS_IT_IS in new:
        found["equal_tokens"] = _equal_tokens(table, new[results.AS_IT_IS]["spent"])
    methods = old["methods"] | new
    order = [*METHODS, results.TOP_K, results.STEP_LAW, *VARIANTS, *BOUNDS]
    found["methods"] = {name: methods[name] for name in order if name in methods}
    where = about(
        ["optuna", "numpy"], rehearsal=options.quick, study=options.study, slots=options.slots,
        bounds=options.bounds,
    )  # fmt: skip
    finish(result_of(_rounded(found), where), options, None if options.bounds else plot)
    return 0


def _about_table(options: argparse.Namespace) -> dict[str, Any]:
    lab = _lab(options.table, options.space, options.slots, options.most)
    table, names = lab.table, [p.name for p in lab.table.space.searched]
    return {
        **table.about,
        "space": options.space.name,
        "rows": len(table.draws),
        "best": table.best,
        "defaults": float(table.final[0]),
        "step_law": float(table.law_losses[-1]),
        "diverged": int((~(table.final < math.inf)).sum()),
        "within_goal": int((table.final <= table.best * (1 + results.GOAL)).sum()),
        "weights": dict(zip(names, (lab.weights / lab.weights.max()).tolist(), strict=True)),
        "snap_error": snap_error(table, lab.weights),
        "snap_error_plain": snap_error(table, 0 * lab.weights + 1),
    }


def _rounded(value: Any) -> Any:
    """Round to six digits; infinity becomes null, because JSON has none."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


# what is left -----------------------------------------------------------------------------------


def left(options: argparse.Namespace) -> int:
    """Count how often the interval of what is left holds the truth."""
    torch.set_num_threads(1)
    count, seeds = (20, 2) if options.quick else (1000, options.seeds)
    sizes = lefts.SIZES[:1] if options.quick else lefts.SIZES
    read = {
        name: tables.Table.read(table, load_space(space))
        for name, (space, table, _) in STUDIES.items()
    }
    sources = {f"{name}, random": lefts.table_draw(table.final) for name, table in read.items()}
    for parameters, noise in lefts.BOWLS:
        name = f"bowl of {parameters}, noise {noise:g}"
        sources[name] = lefts.bowl_draw(parameters, noise)
    intervals = [
        lefts.row(name, size, lefts.random_cases(draw, size, count))
        for name, draw in sources.items()
        for size in sizes
    ]
    stops = []
    for name, table in read.items():
        lab = Lab(table, 1, 10**12)
        for method, settings in lefts.REPLAYS.items():
            for size in sizes:
                cases = list(lefts.replayed_cases(lab, settings, size, seeds))
                intervals.append(lefts.row(f"{name}, {method}", size, cases))
                print(*intervals[-1], sep="  ", flush=True)
        for share in lefts.SHARES[:1] if options.quick else lefts.SHARES:
            settings, most = lefts.REPLAYS["tpe · asha"], len(table.draws) // 2
            ends = [lefts.stopped(lab, settings, share, seed, most) for seed in range(seeds)]
            stops.append(lefts.stop_row(f"{name}, tpe · asha", share, ends))
    where = about(["optuna", "numpy"], rehearsal=options.quick)
    finish(lefts.result_of({"intervals": intervals, "stopped": stops}, where), options)
    return 0


# the table --------------------------------------------------------------------------------------


def build(options: argparse.Namespace) -> int:
    """Train the table, and pack it."""
    space = load_space(options.space)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    corpus = prepare(space.data, space.tokenizer, options.corpora)
    try:
        tables.train(space, corpus, options.configurations, options.seed, options.rows)
    except KeyboardInterrupt:
        print("interrupted: packing what there is", file=sys.stderr)
    command = (
        f"python bench/search_quality.py table --study {options.study} "
        f"--configurations {options.configurations} --seed {options.seed}"
    )
    tables.pack(space, corpus, options.rows, options.table, command)
    return 0


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers()
    replaying = commands.add_parser("replay", help="replay searches on the table")
    training = commands.add_parser("table", help="train the table")
    for command in (replaying, training):
        command.add_argument("--study", default="lm", choices=STUDIES)
        command.add_argument("--space", type=Path, help="another space than the study's")
        command.add_argument("--table", type=Path, help="another table than the study's")
    replaying.add_argument("--seeds", type=int, default=30)
    replaying.add_argument("--slow-seeds", type=int, default=10, help="of gp but its variants")
    replaying.add_argument("--slots", type=int, default=2, help="two workers of one slot")
    replaying.add_argument(
        "--most", type=float, default=24, help="complete trials' worth of tokens"
    )
    replaying.add_argument("--methods", default="", help="only those whose name has this")
    replaying.add_argument("--bounds", action="store_true", help="only those of what is possible")
    replaying.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    add_options(replaying, "two seeds, short searches")
    replaying.set_defaults(command=replay)
    training.add_argument("--configurations", type=int, default=300, help="beside the defaults")
    training.add_argument("--seed", type=int, default=0, help="of the sequence that draws them")
    training.add_argument("--rows", type=Path, help="JSON lines, one for each configuration")
    training.add_argument("--corpora", type=Path, default=ROOT / "runs" / "corpora")
    training.set_defaults(command=build)
    telling = commands.add_parser("left", help="does the interval of what is left hold?")
    telling.add_argument("--seeds", type=int, default=40, help="of the replayed searches")
    add_options(telling, "a few searches", has_picture=False)
    telling.set_defaults(command=left)
    options = parser.parse_args(sys.argv[1:] or ["replay"])
    if options.command is left:
        options.out = options.out or (None if options.quick else PAGES / "left.cpu.json")
        return left(options)
    space, table, out = STUDIES[options.study]
    options.space, options.table = options.space or space, options.table or table
    if options.command is replay:
        if options.bounds:
            out = out.with_name(out.name.replace("search_quality", "learning"))
        options.out = options.out or out
        options.plot = options.plot or options.out.with_suffix(".png")
    else:
        options.rows = options.rows or ROOT / "runs" / "bench" / f"{options.study}.jsonl"
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
