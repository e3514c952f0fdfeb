"""Occupancy of the slots in a search: the share of time in which they wait for a trial.

    python bench/refill.py                 64 trials of lm.yaml, two minutes on two cores
    python bench/refill.py --slots 1 2     with 1 and with 2 slots for each worker, alternating
    python bench/refill.py --orders auto arrival   with both orders of reports, alternating
    python bench/refill.py --quick         a few short trials, as a test of the bench
    python bench/refill.py --out FILE.json --plot FILE.png

The bench runs `tuner search` on a Ray cluster of its own, whose workers count (`Worker.usage`). The
*slot-time* of a worker is its slots times the seconds from the start of its first trial to the
moment when the last new trial got a slot. *Idle* is the share of slot-time in which a slot held no
trial: the slot was free, and its next trial had not arrived or was being built. *Engine idle* is
the share of time in which a worker had no trial at all; *training* is the share spent in training
steps. The rest is validation and saving checkpoints.

The *tail* comes after that: only paused trials are left, some of which are promoted. A slot is then
often free because the search has no trial for it. This time is counted separately (*none left*)
from the time in which a slot waits for an existing trial (*idle*), and is not part of the goal.

*Wasted* tokens were trained past the report at which a trial was stopped or paused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from parts import measuring

ROOT = measuring.ROOT
GOAL = 0.03
Counts = Mapping[str, Any]


def main() -> int:
    """Run the searches, and print the occupancy of their slots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default=str(ROOT / "search_spaces" / "lm.yaml"))
    parser.add_argument("--trials", type=int, help="of each search (default: 64)")
    parser.add_argument("--tokens", type=int, help="of a complete trial (default: the space's)")
    parser.add_argument("--slots", type=int, nargs="+", help="of a worker (default: the space's)")
    parser.add_argument("--orders", nargs="+", help="values of search.order (default: the space's)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="six trials of a few tokens")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--plot", type=Path, help="write a picture: where the slots' time goes")
    options = parser.parse_args()
    options.trials = options.trials or (6 if options.quick else 64)
    options.tokens = options.tokens or (20_000 if options.quick else None)
    with tempfile.TemporaryDirectory() as home:
        sides = {
            _name(slots, order): partial(one_search, slots, order, options, home)
            for slots in options.slots or [None]
            for order in options.orders or [None]
        }
        measurements = measuring.by_turns(sides, options.rounds)
    result = result_of(measurements, options)
    measuring.finish(result, options.out, partial(plot, measurements), options.plot)
    return 0


def _name(slots: int | None, order: str | None) -> str:
    name = "as configured" if slots is None else f"{slots} per worker"
    return name if order is None else f"{name}, {order}"


def one_search(
    slots: int | None, order: str | None, options: argparse.Namespace, home: str
) -> dict[str, float]:
    """Run one search, and return the occupancy of its slots, its times and tokens."""
    overrides = [
        "confirm=off",
        f"search.trials={options.trials}",
        f"engine.device={options.device}",
    ]
    overrides += [f"budget.tokens={options.tokens}"] if options.tokens else []
    overrides += [f"engine.slots={slots}"] if slots else []
    overrides += [f"search.order={order}"] if order else []
    watched, log = Path(home, "watch.json"), Path(home, "log")
    search = ["search", "--json", "--fresh", "--home", home, "--space", options.space]
    for override in overrides:
        search += ["--set", override]
    command, environment = measuring.module_command("parts.watched_search", str(watched), *search)
    began = time.monotonic()
    with log.open("w") as errors:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(log.read_text())
    result = json.loads(done.stdout.splitlines()[-1])
    watch = json.loads(watched.read_text())
    return {
        "wall_seconds": time.monotonic() - began,
        "search_seconds": watch["ended"] - watch["began"],
        **shares(watch["until_last"]),
        **{f"tail_{name}": value for name, value in shares(watch, watch["until_last"]).items()},
        "tokens": sum(usage["tokens"] for usage in watch["usage"]),
        "wasted": sum(usage["tokens"] for usage in watch["usage"]) - result["tokens_spent"],
        "best_val_loss": result["best_val_loss"],
    }


def shares(counts: Counts, before: Counts | None = None) -> dict[str, float]:
    """Return the shares of slot-time from the start, or from `before`, to `counts`."""

    def total(now: Counts, name: str) -> float:
        return float(sum(usage[name] for usage in now["usage"]))

    def passed(name: str) -> float:
        return total(counts, name) - (total(before, name) if before else 0.0)

    slots = counts["usage"][0]["slots"]
    seconds = passed("seconds")
    lacking = counts["lacking"] - (before["lacking"] if before else 0.0)
    idle = max(0.0, passed("free_slot_seconds") - lacking)
    refills = counts["jobs"] - (before["jobs"] if before else slots * len(counts["usage"]))
    return {
        "seconds": seconds / len(counts["usage"]),
        "idle": idle / (slots * seconds),
        "none_left": lacking / (slots * seconds),
        "engine_idle": passed("idle_seconds") / seconds,
        "training": passed("training_seconds") / seconds,
        "refills": refills,
        "ms_per_refill": 1000 * idle / refills if refills > 0 else 0.0,
    }


def result_of(
    measurements: Mapping[str, list[dict[str, float]]], options: argparse.Namespace
) -> Any:
    """Return the result in the format of `parts.measuring`."""

    def rows(prefix: str, names: list[str]) -> list[list[Any]]:
        return [
            [side, *(measuring.brief([run[prefix + name] for run in runs]) for name in names)]
            for side, runs in measurements.items()
        ]

    parts = ["seconds", "idle", "none_left", "engine_idle", "training", "refills", "ms_per_refill"]
    columns = [
        "slots", "seconds", "idle", "none left", "engine idle", "training", "refills",
        "ms a refill",
    ]  # fmt: skip
    costs = ["wall_seconds", "search_seconds", "tokens", "wasted", "best_val_loss"]
    idle = max(
        measuring.spread(run["idle"] for run in runs).median for runs in measurements.values()
    )
    what = f"{options.trials} trials of {Path(options.space).name}"
    goals = [measuring.goal("share of slot-time that is idle", idle, most=GOAL)]
    return {
        "bench": "refill",
        "about": measuring.about(["torch", "ray"], options.device),
        "tables": [
            {"title": f"{what}, while new ones begin", "columns": columns, "rows": rows("", parts)},
            {"title": "its tail", "columns": columns, "rows": rows("tail_", parts)},
            {
                "title": "the whole",
                "columns": ["slots", "wall, s", "search, s", "tokens", "wasted", "best loss"],
                "rows": rows("", costs),
            },
        ],
        "goals": [] if options.quick else goals,
        "notes": ["Shares are of slot-time (idle, none left) or of time (engine idle, training)."],
        "numbers": measurements,
    }


def plot(measurements: Mapping[str, list[dict[str, float]]], path: Path) -> None:
    """Draw a bar of slot-time for the first round of each search, and one for its tail."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = {
        f"{side}, {when}": (runs[0][prefix + "idle"], runs[0][prefix + "none_left"])
        for side, runs in measurements.items()
        for when, prefix in (("new trials begin", ""), ("tail", "tail_"))
    }
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(bars) + 1.3))
    names, left = list(reversed(bars)), [0.0] * len(bars)
    parts = {
        "holds a trial": [1 - sum(bars[name]) for name in names],
        "waits for a trial": [bars[name][0] for name in names],
        "none left for it": [bars[name][1] for name in names],
    }
    for (label, widths), colour in zip(parts.items(), ("C0", "C3", "lightgrey"), strict=True):
        axes.barh(names, widths, left=left, label=label, color=colour, height=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("slot-time")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    measuring.save_figure(figure, path, dpi=140)


if __name__ == "__main__":
    sys.exit(main())
