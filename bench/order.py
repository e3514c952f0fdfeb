"""What the order of reports costs: slot time lost by waiting for other slots' reports.

    python bench/order.py                  searches of made-up slots, a minute
    python bench/order.py --measure        training of some models beside the clock's expectation
    python bench/order.py --quick          a few searches, as a test of the bench
    python bench/order.py --out FILE.json

The conductor of `tuner search` conducts searches whose slots are made up: a trial takes the time
that the clock expects, times a factor of its model, of its slot, and of each interval between two
reports. A report reaches the driver after a delay, and the driver takes it as it does in a search:
in the order of arrival, or in the order of the lanes' clocks. A slot loses the time from the end of
an interval to the decision, if the decision ends or pauses its trial; in all other cases the trial
has trained on. *Longer* compares the length of the search with the order of arrival.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from parts import measuring
from parts.overhead.stub import synthetic_loss

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.conductor.clock import CLOCKS, SECONDS, TOKENS
from tuner.conductor.conductor import Conductor
from tuner.schedulers.scheduler import Decision
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(2_048, 3_500_000, 180_000, "data", "tokenizer")
DELAY_SECONDS = 0.02  # of a report on its way to the driver, and of an answer on its way back
GOAL = 0.03
ARRIVAL = "arrival"
SIZES = "{d_model: {choice: [32, 64, 128]}, n_layers: {choice: [1, 2, 4]},"


@dataclass(frozen=True)
class Slots:
    """Made-up slots.

    Attributes:
        speeds: speed of each slot.
        models: standard deviation of the logarithm of a model's factor.
        noise: the same of an interval's.
        diverging: share of the trials that diverge, before a report from the first to the third.
    """

    speeds: Sequence[float]
    models: float = 0.0
    noise: float = 0.05
    diverging: float = 0.0


SIDES: Mapping[str, tuple[bool, Slots]] = {  # name → several models, slots
    "2 slots": (False, Slots((1.0, 1.0))),
    "2 slots, noise 20 %": (False, Slots((1.0, 1.0), noise=0.2)),
    "2 slots, one 5 % slower": (False, Slots((1.0, 0.95))),
    "2 slots, 10 % of trials diverge": (False, Slots((1.0, 1.0), diverging=0.1)),
    "4 slots": (False, Slots((1.0,) * 4)),
    "2 slots, models": (True, Slots((1.0, 1.0))),
    "4 slots, models": (True, Slots((1.0,) * 4)),
    "4 slots, models, expected to 5 %": (True, Slots((1.0,) * 4, models=0.05)),
    "4 slots, models, expected to 10 %": (True, Slots((1.0,) * 4, models=0.1)),
    "4 slots, models, expected to 20 %": (True, Slots((1.0,) * 4, models=0.2)),
}


class Play:
    """A search on made-up slots.

    Args:
        space: space to search.
        slots: the slots.
        order: `ARRIVAL`, or the name of a clock.
        seed: of everything random.

    Attributes:
        seconds: length of the search.
        lost: slot seconds lost.
        trained: slot seconds of jobs, without those lost.
    """

    def __init__(self, space: SearchSpace, slots: Slots, order: str, seed: int) -> None:
        settings = space.search.model_copy(update={"seed": seed})
        space = space.model_copy(update={"search": settings})
        self._in_order, self._slots, self._seed = order != ARRIVAL, slots, seed
        clock = order if self._in_order else TOKENS
        self._conductor = Conductor(space, FACTS, len(slots.speeds), clock=clock)
        # trial → time at which its job began, and its reports to come with the times of their ends
        self._began: dict[int, float] = {}
        self._coming: dict[int, list[tuple[float, Report]]] = {}
        self.seconds = self.lost = self.trained = 0.0
        self._fill()
        while self._coming:
            self._take()

    def _take(self) -> None:
        number = min(self._coming, key=lambda n: self._coming[n][0][0])
        if self._in_order:
            assert self._conductor.expected is not None
            number = self._conductor.expected[0]
        end, report = self._coming[number].pop(0)
        self.seconds = max(self.seconds, end + DELAY_SECONDS)
        if self._conductor.report(number, report) is not Decision.CONTINUE:
            self.lost += self.seconds - end
            self.trained += end - self._began[number]
            del self._coming[number]
        self._fill()

    def _fill(self) -> None:
        for job in self._conductor.fill():
            trial = self._conductor.board.trials[job.number]
            steps = [step for step in trial.report_steps if step > job.after]
            self._began[job.number] = self.seconds
            reports = self._reports(trial.spec, job.number, steps, job.after, job.lane)
            self._coming[job.number] = list(reports)

    def _reports(
        self, spec: TrialSpec, number: int, steps: Sequence[int], before: int, lane: int
    ) -> Iterator[tuple[float, Report]]:
        clock, slots = CLOCKS[SECONDS], self._slots
        model = self._normal(spec.architecture.model_dump_json())
        factor = math.exp(slots.models * model) / slots.speeds[lane] / 1e12
        diverges = random.Random(f"{self._seed} {number}").random() < slots.diverging
        at = self.seconds + DELAY_SECONDS + (clock.per_job / 1e12 - 2 * DELAY_SECONDS)
        for place, step in enumerate(steps):
            seconds = clock.per_token(spec) * spec.tokens_per_step * (step - before) * factor
            seconds *= math.exp(slots.noise * self._normal(f"{number} {step}"))
            status = Status.FINISHED if step == spec.report_steps[-1] else Status.TRAINING
            if diverges and place == number % 3:
                step, seconds, status = before + (step - before) // 2, seconds / 2, Status.DIVERGED
            at, loss = at + seconds, synthetic_loss(spec, step)
            tokens = step * spec.tokens_per_step
            yield at, Report(str(number), status, step, tokens, loss, loss, 1.0, 1e-3)
            if status is not Status.TRAINING:
                return
            before = step

    def _normal(self, key: str) -> float:
        return random.Random(f"{self._seed} {key}").gauss(0, 1)


def played(space: SearchSpace, slots: Slots, seeds: int) -> dict[str, dict[str, float]]:
    """Return for each order the share of slot time lost, and the length of the searches."""
    found = {}
    for order in (ARRIVAL, TOKENS, SECONDS):
        plays = [Play(space, slots, order, seed) for seed in range(seeds)]
        lost = sum(play.lost for play in plays)
        seconds = mean(play.seconds for play in plays)
        found[order] = {
            "lost": lost / (lost + sum(play.trained for play in plays)),
            "longer": seconds / found[ARRIVAL]["seconds"] - 1 if found else 0.0,
            "seconds": seconds,
        }
    return found


def space_of(folder: Path, *, models: bool, trials: int) -> SearchSpace:
    """Return the space of lm.yaml, with models of several sizes if asked for."""
    text = (measuring.ROOT / "search_spaces" / "lm.yaml").read_text(encoding="utf-8")
    if models:
        text = text.replace("{d_model: 64, n_layers: 2,", SIZES)
        assert SIZES in text
    text = text.replace("trials: 24, sampler: tpe", f"trials: {trials}, sampler: random")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(folder / "space.yaml")


def play_all(options: argparse.Namespace) -> dict[str, Any]:
    """Play all searches."""
    with tempfile.TemporaryDirectory() as folder:
        spaces = [
            space_of(Path(folder), models=models, trials=options.trials) for models in (False, True)
        ]
    sides = {name: SIDES[name] for name in list(SIDES)[:: len(SIDES) - 1 if options.quick else 1]}
    numbers = {
        name: played(spaces[models], slots, options.seeds)
        for name, (models, slots) in sides.items()
    }
    rows = [
        [name, *(round(orders[o][key], 4) for o in orders for key in ("lost", "longer"))]
        for name, orders in numbers.items()
    ]
    columns = ["slots"]
    for order in (ARRIVAL, TOKENS, SECONDS):
        columns += [f"{order}: lost", "longer"]
    goals = [
        measuring.goal(
            f"{name}: share of slot time lost", numbers[name][SECONDS]["lost"], most=GOAL
        )
        for name in ("2 slots", "4 slots, models, expected to 5 %")
        if name in numbers
    ]
    title = f"lm.yaml, {options.trials} trials, {options.seeds} searches of each kind"
    return {
        "tables": [{"title": title, "columns": columns, "rows": rows}],
        "goals": [] if options.quick else goals,
        "notes": ["The slots are made up; `bench/refill.py --orders auto arrival` trains."],
        "numbers": numbers,
    }


# measurements -----------------------------------------------------------------------------------

MODELS: Sequence[tuple[int, int, int]] = (  # d_model, n_layers, B
    (16, 1, 8), (32, 1, 8), (32, 4, 8), (64, 2, 8), (64, 2, 32), (128, 1, 8), (128, 4, 8),
    (128, 4, 32), (256, 4, 8),
)  # fmt: skip


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Train some models, and compare processor time of their tokens with the clock."""
    rows = []
    for d_model, n_layers, batch in MODELS[:1] if options.quick else MODELS:
        spec = spec_of(d_model, n_layers, batch)
        runs = [_seconds_per_token(spec, options) for _ in range(options.rounds)]
        micros, expected = 1e6 * min(runs), CLOCKS[SECONDS].per_token(spec) / 1e6
        rows.append([f"{d_model} × {n_layers}", batch, micros, expected, micros / expected])
    columns = ["d_model × layers", "B", "µs a token", "expected", "ratio"]
    return {"tables": [{"title": "training", "columns": columns, "rows": rows}], "numbers": rows}


def spec_of(d_model: int, n_layers: int, batch: int) -> TrialSpec:
    """Return a specification like those of lm.yaml, with a report a second."""
    with tempfile.TemporaryDirectory() as folder:
        space = space_of(Path(folder), models=True, trials=1)
    spec = space.spec({**space.defaults(), "batch_size": batch}, FACTS, 0)
    sizes = {"d_model": d_model, "n_layers": n_layers, "d_ff": 0}
    architecture = type(spec.architecture).model_validate(
        {**spec.architecture.model_dump(), **sizes}
    )
    return spec.model_copy(update={"architecture": architecture})


def _seconds_per_token(spec: TrialSpec, options: argparse.Namespace) -> float:
    import numpy as np

    from model.engine.engine import Engine

    draw = np.random.default_rng(0)
    tokens = draw.integers(2_048, size=FACTS.train_size).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            tokens, tokens[: FACTS.validation_size], slots=1, dtype=options.dtype,
            is_compiled=options.compile, checkpoint_dir=Path(folder),
        )  # fmt: skip
        times: list[tuple[float, int]] = []
        for report in engine.run([spec]):
            times.append((time.process_time(), report.tokens))
            if len(times) == 2:
                break
        engine.stop("0")
    return (times[-1][0] - times[0][0]) / (times[-1][1] - times[0][1])


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the share of slot time lost, for each kind of slots and each order."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    numbers = result["numbers"]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(numbers) + 1))
    for index, order in enumerate((ARRIVAL, TOKENS, SECONDS)):
        at = [-place + 0.25 * (1 - index) for place in range(len(numbers))]
        widths = [orders[order]["lost"] for orders in numbers.values()]
        axes.barh(at, widths, height=0.22, label=order)
    axes.set_yticks([-place for place in range(len(numbers))], [*numbers])
    axes.axvline(GOAL, color="grey", linewidth=0.8)
    axes.set_xlabel("share of slot time lost")
    axes.legend(frameon=False)
    measuring.save_figure(figure, path, dpi=140)


def main() -> int:
    """Play or measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measure", action="store_true", help="train some models")
    parser.add_argument("--dtype", default="float32", help="with --measure")
    parser.add_argument("--compile", action="store_true", help="with --measure: compiled ticks")
    parser.add_argument("--rounds", type=int, default=1, help="with --measure")
    parser.add_argument("--seeds", type=int, default=10, help="searches of each kind")
    parser.add_argument("--trials", type=int, default=24, help="of a search")
    parser.add_argument("--quick", action="store_true", help="two short searches of each kind")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--plot", type=Path, help="write a picture of the searches")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.trials = 2, 6
    result = measure_all(options) if options.measure else play_all(options)
    about = measuring.about(["torch"] if options.measure else [])
    result = {"bench": "order", "about": about, "goals": [], "notes": [], **result}
    measuring.finish(result, options.out, partial(plot, result), options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
