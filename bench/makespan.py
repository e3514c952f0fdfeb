"""Time of a complete search: `tuner search` beside Ray Tune and Optuna on the same search.

    python bench/makespan.py                    64 trials of lm.yaml, about 20 minutes on two cores
    python bench/makespan.py --quick            four short trials, as a test of the bench
    python bench/makespan.py --sides ours ray   only some of the sides
    python bench/makespan.py --processes        also where the processor time goes (Linux)
    python bench/makespan.py --out FILE.json --plot FILE.png

Sides, each in a process of its own, in alternating order (parts/makespan/peers.py has the peers):

    ours          `tuner search`, in float32 on a CPU, as the others
    ours-auto     `tuner search` as it is: products in bfloat16 and compiled ticks, where they pay;
                  what is compiled stays from one round to the next, as from search to search
    ours-cold     the same with nothing compiled before, as the first search on a machine
    ray           Ray Tune, a process for each trial
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

The numbers of ours have the *slots* of its workers until the last new trial got one, by
`Worker.usage`: *idle* is the share of slot-time in which a slot held no trial, *engine idle* the
share of time in which a worker held none.

The bench fails if the first report of the defaults differs between sides. The second goal beside
time is that our best loss is within 5 % of the best of all sides (with --quick there are no goals).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
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
from parts.nvidia_smi import GpuSamples
from parts.watched_search import occupancy

from model.corpus.prepare import prepare
from tuner.journal.events import Reported
from tuner.journal.journal import read_journal

OURS = ("ours", "ours-auto", "ours-cold")
NAMES = {
    "ours": "tuner search, float32 on a CPU",
    "ours-auto": "tuner search",
    "ours-cold": "tuner search, nothing compiled",
    "ray": "Ray Tune, process per trial",
    "optuna-pool": "Optuna, processes reused",
    "optuna-plain": "plain loop, Optuna, processes reused",
}
CLIENTS = {True: "client", False: "worker"}  # what an actor of Ray Tune is: those of ours only wait
QUICK_SIDES = ["ours", "ray"]  # a quick gpu.py runs Optuna's pool
BINS = 100  # of the picture
# side → how many times as fast ours shall be, in wall time and per trained token
GOALS = {"ray": 3.0, "optuna-plain": 1.5, "optuna-pool": 1.0}
# relative difference of the first loss: torch's modules and bfloat16 round differently
FIRST_TOLERANCES = {"optuna-plain": 1e-3, "ours-auto": 5e-3, "ours-cold": 5e-3}
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
    about = measuring.about(
        ["torch", "ray", "optuna", "mlflow"],
        options.device,
        rehearsal=options.quick,
        trials=options.trials,
        space=Path(options.space).name,
        concurrent=options.concurrent,
    )
    measuring.finish(result_of(measurements, about), options, plot)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default=str(measuring.ROOT / "search_spaces" / "lm.yaml"))
    parser.add_argument("--trials", type=int, help="of each search (default: 64)")
    parser.add_argument("--tokens", type=int, help="of a complete trial (default: the space's)")
    parser.add_argument("--processes", action="store_true", help="measure the processor time")
    parser.add_argument("--sides", nargs="+", choices=NAMES, help="default: all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--concurrent", type=int, help="trials of a peer at one time")
    parser.add_argument("--slots", type=int, help="of a worker of ours (default: the space's)")
    measuring.add_options(parser, "four trials of a few tokens")
    options = parser.parse_args()
    options.space = str(Path(options.space).resolve())  # Ray's processes work elsewhere
    options.trials = options.trials or (4 if options.quick else 64)
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
        run = partial(our_search, slots=options.slots) if side in OURS else a_peers_search
        on_gpu = options.device == "cuda"
        began = time.time()
        with GpuSamples(enabled=on_gpu) as gpu:
            measurements = run(side, setup, program)
        measurements["wall"] = wall = time.time() - began
        samples = measurements.pop("samples")
        busy = [gpu.busy] if on_gpu else samples
        measurements["tokens_wasted"] = measurements["tokens"] - measurements.pop("reported_tokens")
        trained = [spell for part in busy for spell in spells(part)]
        measurements["first_training"] = min(low for low, _, _ in trained) - began
        measurements["ending"] = began + wall - max(high for _, high, _ in trained)
        measurements["curve"] = curve(busy, began, wall, 1 if on_gpu else options.cores)
        measurements["training"] = sum(measurements["curve"]) / len(measurements["curve"])
        measurements["seconds_per_million"] = measurements["wall"] / measurements["tokens"] * 1e6
        measurements |= program.spent(began, measurements["first_training"])
        return measurements


def our_search(
    side: str, setup: Setup, program: Program, slots: int | None = None
) -> dict[str, Any]:
    """Run `tuner search` in a home of its own with the prepared corpus."""
    folder = Path(setup.folder)
    home, watched = folder / "home", folder / "watch.json"
    home.mkdir()
    (home / "corpora").symlink_to(Path(setup.corpus).parent)
    overrides = [*setup.overrides, *([f"engine.slots={slots}"] if slots else [])]
    if side == "ours" and setup.device == "cpu":
        overrides.append("engine.dtype=float32")
    command = [str(watched), "search", "--json", "--home", str(home), "--space", setup.space]
    for override in overrides:
        command += ["--set", override]
    cache = {"XDG_CACHE_HOME": str(folder / "cache")} if side == "ours-cold" else {}
    measurements = program.output("parts.watched_search", command, folder / "log", cache)
    watch = json.loads(watched.read_text())
    journal = read_journal(next((home / "searches").iterdir()))
    reports = [event for event in journal if isinstance(event, Reported)]
    first = next(event for event in reports if event.number == 0)
    return {
        "trials": int(measurements["trials"]),
        "complete": sum(event.outcome == "finished" for event in reports),
        "best": measurements["best_val_loss"],
        "defaults": first.report.val_loss,
        "reported_tokens": int(measurements["tokens_spent"]),
        "tokens": int(sum(usage["tokens"] for usage in watch["usage"])),
        "samples": watch["samples"],
        "slots": occupancy(watch["until_last"]),
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
    measurements: dict[str, list[dict[str, Any]]], about: dict[str, Any]
) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        measurements: side → measurements of each round.
        about: `measuring.about` with trials, space and concurrent.
    """
    walls = {side: [run["wall"] for run in runs] for side, runs in measurements.items()}

    def of(side: str, what: str) -> float:
        return measuring.spread(run[what] for run in measurements[side]).median

    phases = {"first_training": "training after, s"}
    if all("ending" in run for runs in measurements.values() for run in runs):  # since 2026-11-25
        phases["ending"] = "after the training, s"
    rows = []
    for side, runs in measurements.items():
        slower = None
        if "ours" in walls:
            pairs = zip(walls[side], walls["ours"], strict=True)
            slower = measuring.brief([wall / ours for wall, ours in pairs])
        million = measuring.brief([run["seconds_per_million"] for run in runs])
        shares = [of(side, what) for what in (*phases, "training")]
        whole = [int(of(side, what)) for what in ("tokens", "tokens_wasted", "complete")]
        loss = f"{of(side, 'best'):.4f}"
        rows.append(
            [NAMES[side], measuring.brief(walls[side]), slower, million, *shares, *whole, loss]
        )
    columns = [
        "side", "wall, s", "of ours", "s per million tokens", *phases.values(),
        "training", "tokens", "wasted", "complete trials", "best loss",
    ]  # fmt: skip
    title = f"{about['trials']} trials of {about['space']}, end to end"
    whose = "the GPU" if about["kind"] == "cuda" else f"{about['cores']} cores"
    return {
        "bench": "makespan",
        "about": about,
        "tables": [
            {"title": title, "columns": columns, "rows": rows},
            *tables(measurements, NAMES, about["cores"]),
        ],
        "goals": []
        if about["rehearsal"] or about["kind"] == "cuda"
        else goals_of(measurements, about),
        "notes": [
            f"Peers train {about['concurrent']} trials at one time.",
            "Ours alone writes checkpoints, a journal, MLflow runs and an HTML report.",
            f"training: share of the time of {whose}.",
        ],
        "numbers": measurements,
    }


def goals_of(measurements: dict[str, list[dict[str, Any]]], about: dict[str, Any]) -> list[Any]:
    """Return the goals of the measured sides; none if no side of ours is there."""
    goals, compared = list[Any](), [side for side in OURS if side in measurements]
    if not compared:
        return goals
    for own in compared:
        for side, least in GOALS.items():
            if side in measurements:
                text = f"{NAMES[own]}: times as fast as {NAMES[side]}"
                goals += _goals_of_pair((measurements[side], measurements[own]), text, least)
    losses = {s: measuring.spread(r["best"] for r in runs) for s, runs in measurements.items()}
    if len(losses) > 1:
        against = losses[compared[0]].median / min(loss.median for loss in losses.values())
        text = "our best loss, times the least of all sides"
        goals.append(measuring.goal(text, against, most=TOLERANCE))
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
    from matplotlib.figure import Figure

    numbers = result["numbers"]
    figure = Figure(figsize=(8, 1.1 * len(numbers) + 0.8))
    axes = figure.subplots(len(numbers), 1, sharex=True, sharey=True, squeeze=False)
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
