"""Part `law` of gpu.py: is a trial a pure function of its specification on this device?

    python -m parts.gpu.law CASE DTYPE WHERE      trains a case again, for a replay in a new process

K = slots in a stack.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.device.memory import begin_peak, give_back, peak_bytes
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from parts import synthetic
from parts.fusion.jobs import SEQUENCES, SIZES, Size
from parts.fusion.jobs import TINY as TINY_SIZE
from parts.gpu.fusion import bench_of, losses_of
from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where
from parts.gpu.pytests import TESTS, run_tests
from parts.gpu.trials import (
    SMALL,
    TINY,
    Outcome,
    differing,
    largest_difference,
    mixed,
    outcomes,
    spec_of,
    ticks_of_a_gpu,
)
from parts.measuring import completed, last_message, module_command, ratios, spread

K = 4
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
# lm_gpu.yaml's model and batches
REAL = Size(
    Architecture(vocab_size=32768, d_model=768, n_layers=12, n_heads=12, context_length=1024),
    batch=32,
    most=2,
)
PRICED = {"1M": 64, "10M": 16, "50M": 4}  # size → K
TOO_DEAR = 1.1  # times the time of a step without determinism


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part."""
    of_dtype: dict[str, tuple[Any, float]] = {
        "neighbours": (neighbours, 40),
        "a new process": (partial(in_a_new_process, "mixed"), 35),
        "every slot": (every_slot, 8),
        "resumed": (resumed, 6),
        "without graphs": (partial(otherwise, graphs=False), 12),
        "across widths": (across_widths, 25),
        "without the kernel": (partial(otherwise, kernel=False), 12),
    }
    first, *others = where.dtypes

    def in_dtype(name: str, dtype: str) -> dict[str, Measurement]:
        measure, seconds = of_dtype[name]
        return {f"{name}, {dtype}": Measurement(partial(measure, dtype), seconds)}

    if where.quick:
        others = []
    found = in_dtype("neighbours", first)
    for dtype in others:  # does it train at all?
        found |= in_dtype("neighbours", dtype)
    for name in of_dtype:
        found |= in_dtype(name, first)
    for size in ["tiny"] if where.quick else PRICED:
        found[f"price of determinism, {size}"] = Measurement(partial(price, size), 45)
    found[f"lm_gpu.yaml's model, {first}"] = Measurement(partial(real_size, first), 60)
    for name in of_dtype:
        for dtype in others:
            found |= in_dtype(name, dtype)
    tests = TESTS[:1] if where.quick else TESTS
    return found | {file: Measurement(partial(run_tests, file), 45) for file in tests}


# cases -------------------------------------------------------------------------------------------


def _shape(where: Where) -> Architecture:
    return TINY if where.quick else SMALL


def _mixed(where: Where) -> dict[str, TrialSpec]:
    specs = mixed(_shape(where))
    return dict(list(specs.items())[::6]) if where.quick else specs


def _train_mixed(dtype: str, where: Where) -> list[Outcome]:
    """Train all kinds of trials in K slots; the second trial is stopped after a report."""
    return outcomes([*_mixed(where).values()], where, slots=K, dtype=dtype, stop={1: 1})


def _plain(size: Size, seed: int, updates: int) -> TrialSpec:
    rows = {"batch_size": size.batch, "max_learning_rate": 1e-3, "total_steps": updates}
    ticks = max(1, size.batch // 8)
    return synthetic.trial(size.architecture, seed, rows, (SEQUENCES, 8), reports=2, ticks=ticks)


def _train_real(dtype: str, where: Where) -> list[Outcome]:
    """Train two trials of lm_gpu.yaml's model."""
    size, updates = (TINY_SIZE, 4) if where.quick else (REAL, 12)
    specs = [_plain(size, seed, updates) for seed in range(2)]
    return outcomes(specs, where, slots=2, dtype=dtype)


CASES = {"mixed": _train_mixed, "real": _train_real}


def _compared(names: Sequence[str], one: Sequence[Outcome], other: Sequence[Outcome]) -> Numbers:
    return {
        "trials": len(names),
        "differing": differing(names, one, other),
        "largest_difference": largest_difference(one, other),
    }


def neighbours(dtype: str, where: Where) -> Numbers:
    """Train all kinds of trials together, with refills, and each one alone."""
    specs = _mixed(where)
    with ticks_of_a_gpu(where) as ticks:
        together = _train_mixed(dtype, where)
        replayed = ticks.replayed
        alone = []
        for number, spec in enumerate(specs.values()):
            stop = {0: 1} if number == 1 else None
            alone += outcomes([spec], where, slots=K, dtype=dtype, stop=stop)
    ends = [outcome.status for outcome in together]
    return {
        **_compared([*specs], together, alone),
        "ends": {end: ends.count(end) for end in sorted(set(ends))},
        "ticks_of_graphs": replayed,
    }


def every_slot(dtype: str, where: Where) -> Numbers:
    """Train one trial in every slot."""
    spec = spec_of(_shape(where), dropout=0.1, total_steps=8)
    with ticks_of_a_gpu(where):
        first, *others = outcomes([spec] * K, where, slots=K, dtype=dtype)
    return _compared([f"slot {n}" for n in range(1, K)], [first] * (K - 1), others)


def in_a_new_process(case: str, dtype: str, where: Where) -> Numbers:
    """Train a case here and in a new process, as a replay does."""
    with ticks_of_a_gpu(where):
        here = CASES[case](dtype, where)
    give_back(torch.device(where.device))
    command, environment = module_command(
        "parts.gpu.law", case, dtype, json.dumps(asdict(replace(where, known={})))
    )
    done = completed(command, environment, where.limit)
    if done.returncode:
        raise RuntimeError(f"the new process failed: {last_message(done)}")
    there = [
        Outcome(tuple(map(tuple, reports)), state)
        for reports, state in json.loads(done.stdout.splitlines()[-1])
    ]
    return _compared([f"trial {n}" for n in range(len(here))], here, there)


def resumed(dtype: str, where: Where) -> Numbers:
    """Stop trials at their first report, and resume them in other slots beside another trial."""
    a = _shape(where)
    specs = [
        spec_of(a, 0, dropout=0.1),
        spec_of(a, 1, optimizer="lion"),
        spec_of(a, 2, ema_decay=0.9, batch_size=6),
    ]
    with ticks_of_a_gpu(where), tempfile.TemporaryDirectory() as folder:
        whole = outcomes(specs, where, slots=K, dtype=dtype)
        stop = dict.fromkeys(range(len(specs)), 1)
        first = outcomes(specs, where, slots=K, dtype=dtype, stop=stop, folder=Path(folder))
        saved = {
            number + 1: max(Path(folder, str(number)).glob("*.safetensors"))
            for number in range(len(specs))
        }
        rest = outcomes(
            [spec_of(a, 9, total_steps=7), *specs], where, slots=K, dtype=dtype, resume=saved
        )[1:]
    joined = [
        Outcome(begun.reports + end.reports, end.state)
        for begun, end in zip(first, rest, strict=True)
    ]
    return _compared([f"trial {n}" for n in range(len(specs))], whole, joined)


def otherwise(dtype: str, where: Where, **off: bool) -> Numbers:
    """Train all kinds of trials with and without graphs, or the kernel of the update.

    The kernel updates stacks of AdamW alone, so that without the others each has its own stack.
    """
    specs = [spec_of(_shape(where), seed, batch_size=4 + 2 * (seed % 2)) for seed in range(K + 1)]

    def train() -> list[Outcome]:
        return outcomes(specs, where, slots=K, dtype=dtype)

    with ticks_of_a_gpu(where):
        usual = train()
    with ticks_of_a_gpu(where, **off):
        other = train()
    return _compared([f"trial {n}" for n in range(len(specs))], usual, other)


def across_widths(dtype: str, where: Where) -> Numbers:
    """Train one trial in stacks of many widths, each with other trials in the other slots."""
    size = TINY_SIZE if where.quick else SIZES["cuda"]["1M"]
    rows = []
    with ticks_of_a_gpu(where):
        for width in WIDTHS[:3] if where.quick else WIDTHS:
            specs = [_plain(size, seed, 16) for seed in range(width)]
            rows.append((width, outcomes(specs, where, slots=width, dtype=dtype)[0]))
    alone = rows[0][1]
    return {
        "widths": [width for width, _ in rows],
        "equal": [outcome == alone for _, outcome in rows],
        "difference": [largest_difference([alone], [outcome]) for _, outcome in rows],
        "loss": [outcome.loss for _, outcome in rows],
    }


def price(size: str, where: Where) -> Numbers:
    """Measure the time of a step with and without strict determinism, by turns."""
    from fusion import rates_of

    bench, losses = bench_of(where), losses_of(where)
    chosen = TINY_SIZE if where.quick else SIZES["cuda"][size]
    trials = 2 if where.quick else PRICED[size]
    plan = {side: [bench.job(chosen, side, trials)] for side in ("ours", "not deterministic")}
    rates, failed = rates_of(bench, {**plan, "peak": [bench.job(chosen, "peak")]}, losses)
    if failed:
        raise RuntimeError(f"{failed}")
    return {
        "trials": trials,
        "rates": rates,
        "ratio": ratios(rates["not deterministic"], rates["ours"]),
        "largest_difference": losses.largest,
    }


def real_size(dtype: str, where: Where) -> Numbers:
    """Train lm_gpu.yaml's model: speed, memory, and a replay in a new process."""
    device = torch.device(where.device)
    begin_peak(device)
    began = time.perf_counter()
    compared = in_a_new_process("real", dtype, where)
    size, updates = (TINY_SIZE, 4) if where.quick else (REAL, 12)
    tokens = 2 * updates * size.batch * size.architecture.context_length
    return {
        **compared,
        "parameters": size.architecture.num_parameters,
        "tokens": tokens,
        "seconds_of_both": time.perf_counter() - began,
        "peak_bytes": peak_bytes(device),
    }


# the result --------------------------------------------------------------------------------------


def _compared_ones(numbers: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {name: each for name, each in numbers.items() if "differing" in each}


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    compared = _compared_ones(numbers)
    found = []
    if compared:
        rows = [
            [name, each["trials"], len(each["differing"]), f"{each['largest_difference']:.1g}"]
            for name, each in compared.items()
        ]
        columns = ["trained again", "trials", "that differ", "largest difference of a loss"]
        found.append({"title": "Equal bit for bit", "columns": columns, "rows": rows})
    widths = {name: each for name, each in numbers.items() if "widths" in each}
    if widths:
        rows = [
            [f"{name}, K = {k}", "yes" if same else "no", f"{difference:.1g}"]
            for name, each in widths.items()
            for k, same, difference in zip(
                each["widths"], each["equal"], each["difference"], strict=True
            )
        ]
        columns = ["stack", "bits of K = 1", "difference of the loss"]
        found.append({"title": "Across widths", "columns": columns, "rows": rows})
    priced = {name: each for name, each in numbers.items() if "ratio" in each}
    if priced:
        rows = [
            [
                name,
                each["trials"],
                [*spread(each["rates"]["ours"])],
                [*spread(each["rates"]["not deterministic"])],
                each["ratio"],
            ]
            for name, each in priced.items()
        ]
        columns = ["model", "K", "tokens/s", "without determinism", "times as fast without"]
        found.append({"title": "Price of determinism", "columns": columns, "rows": rows})
    real = {name: each for name, each in numbers.items() if "peak_bytes" in each}
    if real:
        rows = [
            [name, each["parameters"], each["tokens"], each["peak_bytes"] / 2**30]
            for name, each in real.items()
        ]
        columns = ["model", "parameters", "tokens trained twice", "GiB at most"]
        found.append({"title": "At its real size", "columns": columns, "rows": rows})
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    compared = _compared_ones(numbers)
    kinds = {
        "neighbours": "trials that differ beside others, or after a refill",
        "every slot": "slots in which a trial differs",
        "a new process": "trials that differ in a new process",
        "resumed": "trials that differ when resumed",
        "without graphs": "trials that differ without CUDA graphs",
        "without the kernel": "trials that differ without the kernel of the update",
        "lm_gpu.yaml's model": "trials of lm_gpu.yaml's model that differ in a new process",
    }
    for kind, what in kinds.items():
        own = [each for name, each in compared.items() if name.startswith(kind)]
        reached = sum(len(each["differing"]) for each in own) if own else None
        found.add(what, reached, most=0)
    for size in PRICED:
        each = numbers.get(f"price of determinism, {size}")
        reached = spread(each["ratio"]).median if each else None
        found.add(f"{size}: time of a step, times that without determinism", reached, most=TOO_DEAR)
    tests = [numbers[file] for file in TESTS if file in numbers]
    tests = [each for each in tests if each.get("passed") or each.get("failed")]
    failed = sum(len(each["failed"]) for each in tests) if tests else None
    found.add("failed tests of tests/gpu", failed, most=0)
    return found


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    found = [
        f"{name}: {', '.join(each['differing'])} differ."
        for name, each in _compared_ones(numbers).items()
        if each["differing"]
    ]
    for name, each in numbers.items():
        if "ends" in each:
            ends = ", ".join(f"{count} {end}" for end, count in each["ends"].items())
            found.append(f"{name}: {ends}; {each['ticks_of_graphs']} ticks were replayed graphs.")
        if name in TESTS and "passed" in each:
            failed = f"failed: {', '.join(each['failed'])}" if each["failed"] else "none failed"
            cut = "" if each["ended"] else "; the run was cut off"
            found.append(f"{name}: {each['passed']} tests passed, {failed}{cut}.")
        elif name in TESTS:
            found.append(f"{name} was not run: {each['skipped']}.")
    return found


def main() -> int:
    """Train a case, and print its outcomes."""
    case, dtype, where = sys.argv[1], sys.argv[2], Where(**json.loads(sys.argv[3]))
    with ticks_of_a_gpu(where):
        print(json.dumps(CASES[case](dtype, where)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
