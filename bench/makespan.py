"""Time of a complete search: `tuner search` beside Ray Tune and Optuna on the same search.

    python bench/makespan.py                    64 trials of lm.yaml, about 20 minutes on two cores
    python bench/makespan.py --quick            two short trials, as a test of the bench
    python bench/makespan.py --sides ours ray   only some of the sides
    python bench/makespan.py --processes        also where the processor time goes (Linux)
    python bench/makespan.py --sides ours --processes --tokens 1_200_000   a search of long trials
    python bench/makespan.py --device cuda --space search_spaces/lm_gpu.yaml
    python bench/makespan.py --out FILE.json --plot FILE.png

Sides, each in a process of its own, in alternating order (parts/makespan/peers.py has the peers):

    ours          `tuner search`, in float32 on a CPU, as the others
    ours-auto     `tuner search` as it is: products in bfloat16 and compiled ticks, where they pay;
                  what is compiled stays from one round to the next, as from search to search
    no-refill     `tuner search`, but a free slot waits until all slots are free
    ray           Ray Tune, a process for each trial
    ray-reuse     Ray Tune, processes that are used again
    optuna        Optuna, a process for each trial
    optuna-pool   Optuna, processes that are used again
    optuna-plain  the same, with a training loop of torch's own parts (parts/makespan/plain.py)

All sides have the same ranges, seed, sampler (TPE), rungs (1/9 and 1/3 of the budget, η = 3),
validation and prepared corpus, and the defaults as their first trial; all but the plain loop have
our trainer. No side confirms its best trials. Only ours uses the priors of the space.
Wall time is the time of the process from start to end. Ours writes all its usual output (MLflow,
journal, checkpoints at every report, the HTML report); the peers write none of it. The peers use
the stopping form of successive halving, the only one they have; ours uses the promoting form.
So the sides train different trials for different numbers of tokens, and a ratio of wall times
compares complete searches; seconds per trained token compare what the searches cost.

*Training* is the share of the cores' time spent in training steps, without validation; on a GPU
the share of time in which the GPU was busy, from nvidia-smi. *Wasted* tokens were trained past the
report at which a trial was stopped or paused.

*Beside the workers* (--processes): share of the cores' time that is not processor time of the
processes that train: idle, driver, Ray, MLflow. The goal is for searches of at least five times the
tokens of the space.

The bench fails if the first report of the defaults differs between sides. The second goal beside
time is that our best loss is within 5 % of the best of all sides (with --quick there are no goals).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from parts import measuring
from parts.makespan.peers import Setup, space_of
from parts.makespan.program import Program, tables

from model.corpus.prepare import prepare
from tuner.journal.events import Reported, TrialEnded
from tuner.journal.journal import read_journal

ROOT = measuring.ROOT
OURS = ("ours", "ours-auto", "no-refill")
COMPARED = ("ours", "ours-auto")  # with the peers, by the goals
NAMES = {
    "ours": "tuner search, float32 on a CPU",
    "ours-auto": "tuner search",
    "no-refill": "tuner search, no refill",
    "ray": "Ray Tune, process per trial",
    "ray-reuse": "Ray Tune, processes reused",
    "optuna": "Optuna, process per trial",
    "optuna-pool": "Optuna, processes reused",
    "optuna-plain": "plain loop, Optuna, processes reused",
}
CLIENTS = {True: "client", False: "worker"}  # what an actor of Ray Tune is: those of ours only wait
QUICK_SIDES = ["ray"]  # ours is what refill.py runs, and a quick gpu.py Optuna's pool
BINS = 100  # of the picture
# side → how many times as fast ours shall be, in wall time and per trained token
GOALS = {
    "cpu": {"ray": 3.0, "optuna-plain": 1.5, "optuna-pool": 1.0},
    "cuda": {"ray": 8.7},
}
LONG, MOST_BESIDE = 5, 0.08  # times the tokens of the space; share of the cores' time
# relative difference of the first loss: torch's modules and bfloat16 round differently
FIRST_TOLERANCES = {"optuna-plain": 1e-3, "ours-auto": 5e-3}
TOLERANCE = 1.05  # times the best loss of any side, at which ours is as good
Samples = list[tuple[float, float]]  # moment, seconds in training until then


def main() -> int:
    """Measure all sides, and print the result."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        measure = partial(one_search, options=options, folder=Path(folder))
        space = space_of(_setup(options, Path(folder)))
        prepare(space.data, space.tokenizer, Path(folder, "corpora"))
        measurements = measuring.by_turns(
            {side: partial(measure, side) for side in options.sides}, options.rounds
        )
    check(measurements)
    result = result_of(measurements, options)
    measuring.finish(result, options.out, partial(plot, result), options.plot)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default=str(ROOT / "search_spaces" / "lm.yaml"))
    parser.add_argument("--trials", type=int, help="of each search (default: 64)")
    parser.add_argument("--tokens", type=int, help="of a complete trial (default: the space's)")
    parser.add_argument("--processes", action="store_true", help="measure the processor time")
    parser.add_argument("--sides", nargs="+", choices=NAMES, help="default: all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--concurrent", type=int, help="trials of a peer at one time")
    parser.add_argument("--quick", action="store_true", help="two trials of a few tokens")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--plot", type=Path, help="write a picture: training over time")
    options = parser.parse_args()
    options.space = str(Path(options.space).resolve())  # Ray's processes work elsewhere
    options.trials = options.trials or (2 if options.quick else 64)
    options.tokens = options.tokens or (10_000 if options.quick else None)
    options.sides = options.sides or (QUICK_SIDES if options.quick else list(NAMES))
    options.cores = len(os.sched_getaffinity(0))
    on_gpu = options.device == "cuda"
    # one for each core; on a GPU no more than eight, each of which needs a core as well
    options.concurrent = options.concurrent or (min(8, options.cores) if on_gpu else options.cores)
    return options


def _setup(options: argparse.Namespace, folder: Path) -> Setup:
    overrides = [
        "confirm=off",
        f"search.trials={options.trials}",
        f"engine.device={options.device}",
    ]
    if options.tokens:
        overrides.append(f"budget.tokens={options.tokens}")
    corpus = next((p.parent for p in folder.parent.glob("corpora/*/meta.json")), folder)
    return Setup(
        space=options.space,
        overrides=overrides,
        corpus=str(corpus),
        folder=str(folder),
        trials=options.trials,
        concurrent=options.concurrent,
        device=options.device,
    )


# one search -------------------------------------------------------------------------------------


def one_search(side: str, *, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one search of one side, and return its times, tokens and losses."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        setup = _setup(options, Path(own))
        program = Program(options.processes, CLIENTS[side in OURS])
        run = our_search if side in OURS else a_peers_search
        gpu = _GpuSamples(enabled=options.device == "cuda")
        began = time.time()
        measurements = run(side, setup, program)
        measurements["wall"] = time.time() - began
        busy = gpu.stop() or measurements.pop("samples")
        measurements["tokens_wasted"] = measurements["tokens"] - measurements.pop("reported_tokens")
        measurements["first_training"] = (
            min(low for part in busy for low, _, _ in spells(part)) - began
        )
        measurements["curve"] = curve(
            busy, began, measurements["wall"], gpu.devices or options.cores
        )
        measurements["training"] = sum(measurements["curve"]) / len(measurements["curve"])
        measurements["seconds_per_million"] = measurements["wall"] / measurements["tokens"] * 1e6
        measurements |= program.spent(began, measurements, options.cores)
        return measurements


def our_search(side: str, setup: Setup, program: Program) -> dict[str, Any]:
    """Run `tuner search` in a home of its own with the prepared corpus."""
    folder = Path(setup.folder)
    home, watched = folder / "home", folder / "watch.json"
    home.mkdir()
    (home / "corpora").symlink_to(Path(setup.corpus).parent)
    command = ["--no-refill"] if side == "no-refill" else []
    overrides = [*setup.overrides]
    if side != "ours-auto" and setup.device == "cpu":
        overrides.append("engine.dtype=float32")
    command += [str(watched), "search", "--json", "--home", str(home), "--space", setup.space]
    for override in overrides:
        command += ["--set", override]
    measurements = program.output("parts.watched_search", command, folder / "log")
    watch = json.loads(watched.read_text())
    journal = read_journal(next((home / "searches").iterdir()))
    ends = [str(event.outcome) for event in journal if isinstance(event, TrialEnded)]
    first = next(e for e in journal if isinstance(e, Reported) and e.number == 0)
    return {
        "trials": int(measurements["trials"]),
        "complete": ends.count("finished"),
        "best": measurements["best_val_loss"],
        "defaults": first.report.val_loss,
        "reported_tokens": int(measurements["tokens_spent"]),
        "tokens": int(sum(usage["tokens"] for usage in watch["usage"])),
        "samples": watch["samples"],
    }


def a_peers_search(side: str, setup: Setup, program: Program) -> dict[str, Any]:
    """Run the search by another tool."""
    folder = Path(setup.folder)
    (folder / "setup.json").write_text(json.dumps(asdict(setup)))
    measurements = program.output(
        "parts.makespan.peers", [side, str(folder / "setup.json")], folder / "log"
    )
    samples, tokens = [], 0
    for log in folder.glob("*.trained"):
        turns = [line.split() for line in log.read_text().splitlines()]
        seconds = [(float(moment), float(trained)) for moment, trained, _ in turns]
        # a trial begins when its first turn does
        samples.append([(seconds[0][0] - seconds[0][1], 0.0), *seconds])
        tokens += int(turns[-1][2])
    samples.sort()
    return {**measurements, "samples": samples, "tokens": tokens}


class _GpuSamples(threading.Thread):
    """Samples the load of the GPU twice a second while a search runs."""

    def __init__(self, *, enabled: bool) -> None:
        super().__init__(daemon=True)
        self.devices = 1 if enabled else 0
        self._samples: Samples = []
        self._done = threading.Event()
        if enabled:
            self.start()

    def run(self) -> None:
        """Read nvidia-smi every half second."""
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        seconds = 0.0
        last = time.time()
        while not self._done.wait(0.5):
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            now = time.time()
            seconds += float(out.split()[0]) / 100 * (now - last)
            last = now
            self._samples.append((now, seconds))

    def stop(self) -> list[Samples]:
        """Stop, and return the samples; an empty list without a GPU."""
        self._done.set()
        return [self._samples] if self._samples else []


def spells(samples: Samples) -> Iterator[tuple[float, float, float]]:
    """Yield begin, end and training seconds of each interval between two samples.

    Seconds count when a step ends, so that the step may have begun before the earlier sample.
    """
    for (start, before), (end, after) in pairwise(samples):
        if after > before:
            yield min(start, end - (after - before)), end, after - before


def curve(busy: list[Samples], began: float, wall: float, devices: int) -> list[float]:
    """Return the share of the devices' time spent in training, for each of `BINS` intervals."""
    width = wall / BINS
    spent = [0.0] * BINS
    for start, end, seconds in (spell for samples in busy for spell in spells(samples)):
        for i in range(BINS):
            low = began + i * width
            overlap = min(end, low + width) - max(start, low)
            if overlap > 0:
                spent[i] += seconds * overlap / (end - start)
    return [seconds / (width * devices) for seconds in spent]


# all of them ------------------------------------------------------------------------------------


def check(measurements: dict[str, list[dict[str, Any]]]) -> None:
    """Check that all sides train the same model.

    Raises:
        SystemExit: if the first report of the defaults differs between sides.
    """
    runs = [(side, run["defaults"]) for side, several in measurements.items() for run in several]
    exact = [loss for side, loss in runs if side not in FIRST_TOLERANCES] or [runs[0][1]]
    if any(
        abs(loss - one) > FIRST_TOLERANCES.get(side, 1e-6) * one
        for side, loss in runs
        for one in exact
    ):
        losses = ", ".join(f"{side} {loss}" for side, loss in runs)
        raise SystemExit(f"the first report of the defaults differs: {losses}")


def result_of(
    measurements: dict[str, list[dict[str, Any]]], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`."""
    walls = {side: [run["wall"] for run in runs] for side, runs in measurements.items()}

    def of(side: str, what: str) -> measuring.Spread:
        return measuring.spread(run[what] for run in measurements[side])

    rows = []
    for side in measurements:
        slower = None
        if "ours" in walls:
            pairs = zip(walls[side], walls["ours"], strict=True)
            slower = measuring.brief([wall / ours for wall, ours in pairs])
        whole = [int(of(side, what).median) for what in ("tokens", "tokens_wasted", "complete")]
        loss = f"{of(side, 'best').median:.4f}"
        first = of(side, "first_training").median
        share = of(side, "training").median
        million = measuring.brief([run["seconds_per_million"] for run in measurements[side]])
        rows.append(
            [NAMES[side], measuring.brief(walls[side]), slower, million, first, share, *whole, loss]
        )
    goals = [] if options.quick else goals_of(measurements, options)
    return {
        "bench": "makespan",
        "about": measuring.about(["torch", "ray", "optuna", "mlflow"], options.device),
        "tables": [
            {
                "title": f"{options.trials} trials of {Path(options.space).name}, end to end",
                "columns": [
                    "side", "wall, s", "of ours", "s per million tokens", "training after, s",
                    "training", "tokens", "wasted", "complete trials", "best loss",
                ],
                "rows": rows,
            },
            *tables(measurements, NAMES, options.cores),
        ],
        "goals": goals,
        "notes": [
            f"Peers train {options.concurrent} trials at one time.",
            "Ours alone writes checkpoints, a journal, MLflow runs and an HTML report.",
            "training: share of the time of "
            + ("the GPU." if options.device == "cuda" else f"{options.cores} cores."),
        ],
        "numbers": measurements,
    }  # fmt: skip


def goals_of(
    measurements: dict[str, list[dict[str, Any]]], options: argparse.Namespace
) -> list[Any]:
    """Return the goals of the measured sides; none if no side of ours that has goals is there."""
    goals, compared = list[Any](), [side for side in COMPARED if side in measurements]
    if not compared:
        return goals
    ours = measurements[compared[0]]
    for own in compared:
        for side, least in GOALS[options.device].items():
            if side in measurements:
                text = f"{NAMES[own]}: times as fast as {NAMES[side]}"
                goals += _goals_of_pair((measurements[side], measurements[own]), text, least)
    losses = {s: measuring.spread(r["best"] for r in runs) for s, runs in measurements.items()}
    if len(losses) > 1:
        against = losses[compared[0]].median / min(loss.median for loss in losses.values())
        text = "our best loss, times the least of all sides"
        goals.append(measuring.goal(text, against, most=TOLERANCE))
    space = space_of(_setup(argparse.Namespace(**vars(options) | {"tokens": None}), Path()))
    if options.processes and (options.tokens or 0) >= LONG * (space.budget.tokens or math.inf):
        beside = measuring.spread(run["beside"] for run in ours).median
        goals.append(measuring.goal("share beside the workers", beside, most=MOST_BESIDE))
    return goals


def _goals_of_pair(
    pair: tuple[list[dict[str, Any]], list[dict[str, Any]]], text: str, least: float
) -> list[Any]:
    """Return the goals of a side beside one of ours."""
    goals = []
    for what, name in (("wall", "wall time"), ("seconds_per_million", "time per trained token")):
        times = measuring.ratios(*([run[what] for run in runs] for runs in pair)).median
        goals.append(measuring.goal(f"{text}, in {name}", times, least=least))
    return goals


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the training share over time, a panel for the first round of each side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    numbers = result["numbers"]
    size = (8, 1.1 * len(numbers) + 0.8)
    figure, axes = plt.subplots(
        len(numbers), 1, figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for number, side in enumerate(numbers):
        panel, run = axes[number][0], numbers[side][0]
        times = [run["wall"] * (i + 0.5) / BINS for i in range(BINS)]
        colour = f"C{number}"
        panel.plot(times, run["curve"], color=colour, linewidth=1.2)
        panel.fill_between(times, run["curve"], color=colour, alpha=0.25)
        panel.axvline(run["wall"], color=colour, linewidth=1, linestyle=":")
        panel.set_title(
            f"{NAMES[side]}: {run['wall']:.0f} s, {run['training']:.0%} in training",
            fontsize=9, loc="left", pad=3,
        )  # fmt: skip
        panel.set_ylim(0, 1.05)
        panel.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=8)
    panel.set_xlim(left=0)
    panel.set_xlabel("seconds since the process was started")
    figure.suptitle("Share of the device's time spent in training", fontsize=11, x=0.02, ha="left")
    measuring.save_figure(figure, path, dpi=140)


if __name__ == "__main__":
    sys.exit(main())
