"""Growth of cost with slots, width, context, vocabulary and number of trials, as exponents.

    python bench/scaling.py                                 about 7 minutes on two quiet cores
    python bench/scaling.py --device cuda                   the same on a GPU
    python bench/scaling.py --quick                         few small sizes, as a test of the bench
    python bench/scaling.py --out FILE.json --plot FILE.png

Each row of a table is the least-squares line through the logarithms of cost and size; ± is the
standard error of its slope. An exponent of 1 means proportional cost; below 1, part of the cost is
paid once and shared.

A tick trains each slot on one micro-batch. Steps of the engine are timed, except the first of each
stack and those that end in a report; on a CPU in processor seconds, which other processes disturb
less. Sizes alternate, and the line is fitted to the median of the rounds. Width, context and
vocabulary are fitted on the FLOPs of a tick, because attention must grow with the square of the
context, and matrices with the square of the width. A tick reads the same number of tokens at all
contexts.

The trials of a search are stubs, and the search runs in a process of its own
(parts/scaling/driver.py). Its processor time is fitted on the number of trials, both counted from
the first eighth: by then the modules are loaded, and the sampler's model has its full size of 1,000
trials. The points are cumulative sums, so that their standard error is too small.

A cost is worse than linear if its exponent exceeds 1 by more than its error and {margin}.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from parts import synthetic
from parts.measuring import about, by_turns, finish, goal, module_command

from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec

MARGIN = 0.1
TOKENS = 1024  # of a tick and slot
STEPS = 32  # of each trial
SEQUENCES = 512  # of training data
TOLERANCE = 1e-3  # between losses of the same trial in stacks of different widths
SMALL: Mapping[str, int] = {"vocab_size": 512, "d_model": 64, "n_layers": 2, "context_length": 64}
SIZES: Mapping[str, tuple[int, ...]] = {
    "slots": (1, 2, 4, 8, 16),
    "width": (64, 128, 256, 512),
    "context": (32, 64, 128, 256, 512, 1024),
    "vocabulary": (512, 1024, 2048, 4096, 8192, 16384),
}
QUICK: Mapping[str, tuple[int, ...]] = {
    "slots": (1, 2, 4),
    "width": (32, 64, 128),
    "context": (32, 64, 128),
    "vocabulary": (512, 1024, 2048),
}
FIELDS = {"width": "d_model", "context": "context_length", "vocabulary": "vocab_size"}
DRIVERS = (("tpe", "none"), ("random", "asha"))


class Line(NamedTuple):
    """Line through points in logarithmic scales."""

    exponent: float
    error: float  # standard error of the exponent
    factor: float  # cost at size 1

    @property
    def is_worse(self) -> bool:
        """True if cost grows faster than size."""
        return self.exponent - self.error > 1 + MARGIN


class Row(NamedTuple):
    """Growth of one cost with one size."""

    name: str
    cost: str
    on: str  # quantity of `x`
    sizes: Sequence[float]
    x: Sequence[float]
    y: Sequence[float]

    @property
    def line(self) -> Line:
        """Line through all points."""
        return fitted(self.x, self.y)


def fitted(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit log y on log x by least squares; needs at least three points."""
    u, v = np.log(x), np.log(y)
    u0 = u - u.mean()
    slope = float(u0 @ v / (u0 @ u0))
    rest = v - v.mean() - slope * u0
    error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(u0 @ u0))
    return Line(slope, error, float(np.exp(v.mean() - slope * u.mean())))


# ticks ------------------------------------------------------------------------------------------


def architecture(**sizes: int) -> Architecture:
    """Return the small model with other sizes; heads are 32 wide."""
    all_sizes = {**SMALL, **sizes}
    return Architecture(n_heads=all_sizes["d_model"] // 32, **all_sizes)  # type: ignore[arg-type]


def flops(a: Architecture) -> float:
    """Return the FLOPs of a tick of one slot.

    A multiplication counts as two, the backward pass as twice the forward pass. The optimizer is
    left out: its FLOPs are fewer by a factor of the tokens of a tick.
    """
    block = 4 * a.d_model**2 + 3 * a.d_model * a.d_ff + 2 * a.context_length * a.d_model
    return 6.0 * TOKENS * (a.n_layers * block + a.vocab_size * a.d_model)


def spec_of(a: Architecture, seed: int) -> TrialSpec:
    """Return a trial of a few updates of one tick each."""
    rows = {
        "batch_size": TOKENS // a.context_length,
        "max_learning_rate": 0.003,
        "total_steps": STEPS,
    }
    return synthetic.trial(a, seed, rows, (SEQUENCES, 4))


def tick(a: Architecture, slots: int, width: int, device: str) -> tuple[float, list[float]]:
    """Return the seconds in which each slot trains for one tick, and the final losses."""
    from model.engine.engine import Engine

    rng = np.random.default_rng(0)
    count = np.arange((SEQUENCES + 8) * a.context_length + 1) % 251
    ids = np.where(rng.random(len(count)) < 0.2, rng.integers(a.vocab_size, size=len(count)), count)
    split = SEQUENCES * a.context_length + 1
    train, validation = (part.astype(np.uint16) for part in (ids[:split], ids[split:]))
    engine = Engine(train, validation, slots=slots, width=width, device=device)
    for number in range(slots):
        engine.add_trial(str(number), spec_of(a, number))
    for _ in range(slots // width):
        engine.step()
    assert not engine.failures, engine.failures
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds, tokens, losses = 0.0, 0, {}
    while engine.num_pending:
        began, before = clock(), engine.tokens
        reports = engine.step()
        if not reports:
            seconds += clock() - began
            tokens += engine.tokens - before
        losses |= {report.trial_id: report.val_loss for report in reports}
    return seconds * TOKENS * slots / tokens, [losses[str(i)] for i in range(slots)]


def tick_rows(sizes: Mapping[str, Sequence[int]], rounds: int, device: str) -> list[Row]:
    """Measure the seconds of a tick by number of slots, width, context and vocabulary.

    Raises:
        SystemExit: if the loss of a trial in a wide stack differs from that in a narrow one.
    """
    sides: dict[str, Callable[[], tuple[float, list[float]]]] = {}
    for k in sizes["slots"]:
        sides[f"wide {k}"] = partial(tick, architecture(), k, k, device)
        sides[f"narrow {k}"] = partial(tick, architecture(), k, 1, device)
    for name, field in FIELDS.items():
        for size in sizes[name]:
            sides[f"{name} {size}"] = partial(tick, architecture(**{field: size}), 1, 1, device)
    runs_by_side = by_turns(sides, rounds)
    for k in sizes["slots"]:
        for wide, narrow in zip(
            runs_by_side[f"wide {k}"], runs_by_side[f"narrow {k}"], strict=True
        ):
            if not np.allclose(wide[1], narrow[1], rtol=TOLERANCE):
                raise SystemExit(f"losses differ at K = {k}: {wide[1]} and {narrow[1]}")
    seconds = {
        side: statistics.median(run[0] for run in runs) for side, runs in runs_by_side.items()
    }
    rows = [
        Row(label, "seconds of a tick of all slots", "slots", slots, slots,
            [seconds[f"{side} {k}"] for k in slots])
        for label, side, slots in (
            ("slots of one wide stack", "wide", sizes["slots"]),
            ("stacks one slot wide, by turns", "narrow", sizes["slots"]),
        )
    ]  # fmt: skip
    for name, field in FIELDS.items():
        x = [flops(architecture(**{field: size})) for size in sizes[name]]
        y = [seconds[f"{name} {size}"] for size in sizes[name]]
        rows.append(Row(name, "seconds of a tick", "FLOPs of a tick", sizes[name], x, y))
    return rows


# trials -----------------------------------------------------------------------------------------


def driver_rows(trials: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """Run searches of stubs in parallel; return their rows and their measurements."""
    processes = {}
    for sampler, scheduler in DRIVERS:
        settings = ["--trials", str(trials), "--sampler", sampler, "--scheduler", scheduler]
        command, environment = module_command("parts.scaling.driver", *settings)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        processes[f"trials of a search: {sampler}, {scheduler}"] = process
    rows, all_samples = [], []
    for name, process in processes.items():
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name} failed")
        samples = json.loads(out)
        n, seconds = samples["trials"], samples["seconds"]
        first = next(i for i, trials_so_far in enumerate(n) if trials_so_far >= trials / 8)
        later = range(first + 1, len(n))
        x, y = [n[i] - n[first] for i in later], [seconds[i] - seconds[first] for i in later]
        rows.append(Row(name, "processor seconds of the driver", "later trials", n[first:], x, y))
        all_samples.append(
            {**samples, "kilobytes_per_trial": _slope(n[first:], samples["bytes"][first:])}
        )
    return rows, all_samples


def _slope(trials: Sequence[int], taken: Sequence[float]) -> float:
    """Return the growth in kilobytes per trial."""
    return float(np.polyfit(trials, taken, 1)[0]) / 1e3


def driver_table(all_samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a table of the cost of a trial by the number of trials before it."""
    places = all_samples[0]["trials"]
    shown = [0, len(places) // 2, len(places) - 1]
    return {
        "title": "What a trial costs the driver",
        "columns": ["search", *(f"ms at {places[i]:,} trials" for i in shown), "kB of memory"],
        "rows": [
            [
                f"{samples['sampler']}, {samples['scheduler']}, {samples['reports']} reports",
                *(_milliseconds(samples, i) for i in shown),
                samples["kilobytes_per_trial"],
            ]
            for samples in all_samples
        ],
    }


def _milliseconds(samples: Mapping[str, Any], index: int) -> float:
    """Return the milliseconds of a trial between a measured place and the one before it."""
    before = [(0, 0.0), *zip(samples["trials"], samples["seconds"], strict=True)][index]
    trials, seconds = samples["trials"][index] - before[0], samples["seconds"][index] - before[1]
    return float(1e3 * seconds / trials)


# results ----------------------------------------------------------------------------------------


def result_of(
    rows: Sequence[Row], drivers: Sequence[Mapping[str, Any]], device: str
) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`."""
    table = {
        "title": "How cost grows",
        "columns": ["with", "cost", "fitted on", "sizes", "least", "most", "exponent", "±", ""],
        "rows": [
            [
                row.name, row.cost, row.on, f"{row.sizes[0]:,} – {row.sizes[-1]:,}",
                row.y[0], row.y[-1], round(row.line.exponent, 2), round(row.line.error, 2),
                "WORSE THAN LINEAR" if row.line.is_worse else "",
            ]
            for row in rows
        ],
    }  # fmt: skip
    worst = max(rows, key=lambda row: row.line.exponent - row.line.error)
    return {
        "bench": "scaling",
        "about": about(("torch", "numpy", "optuna"), device),
        "tables": [table, driver_table(drivers)],
        "goals": [
            goal(
                f"largest exponent less its error ({worst.name})",
                worst.line.exponent - worst.line.error,
                most=1 + MARGIN,
            ),
            goal(
                "kB of the driver per trial",
                max(samples["kilobytes_per_trial"] for samples in drivers),
                most=50.0,
            ),
        ],
        "notes": [
            "Trials in a wide stack reach the losses that they reach in narrow ones, within "
            f"{TOLERANCE:g}."
        ],
        "numbers": {
            "rows": [{**row._asdict(), **row.line._asdict()} for row in rows],
            "drivers": list(drivers),
        },
    }


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw a panel for each row: the points and the line."""
    from matplotlib.figure import Figure

    columns = 4
    figure = Figure(figsize=(3.4 * columns, 3.1 * math.ceil(len(rows) / columns)))
    for index, row in enumerate(rows):
        axes = figure.add_subplot(math.ceil(len(rows) / columns), columns, index + 1)
        ends = np.array([row.x[0], row.x[-1]])
        line = row.line
        color = "#c0392b" if line.is_worse else "#2b6cb0"
        axes.loglog(ends, line.factor * ends**line.exponent, color=color, linewidth=1)
        axes.loglog(row.x, row.y, "o", color=color, markersize=4)
        axes.set_title(f"{row.name}\n{line.exponent:.2f} ± {line.error:.2f}", fontsize=9)
        axes.set_xlabel(row.on, fontsize=8)
        axes.set_ylabel(row.cost, fontsize=8)
        for axis, values in ((axes.xaxis, row.x), (axes.yaxis, row.y)):
            ticks = sorted({values[0], values[len(values) // 2], values[-1]})
            axis.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks], fontsize=7)
            axis.set_ticks([], minor=True)
        axes.grid(visible=True, alpha=0.25)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure, fit and print."""
    text = (__doc__ or "").format(margin=MARGIN)
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few small sizes, once")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--trials", type=int, help="number in each search of stubs (10,000)")
    parser.add_argument("--rounds", type=int, help="measurements of each size (3)")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--plot", type=Path, help="write a picture")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    trials = options.trials or (64 if options.quick else 10_000)
    rows = tick_rows(QUICK if options.quick else SIZES, rounds, options.device)
    driven, drivers = driver_rows(trials)
    result = result_of([*rows, *driven], drivers, options.device)
    finish(result, options.out, partial(plot, [*rows, *driven]), options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
