"""Makes searches without training: a conductor decides, a formula reports, a journal is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.home.home import Home
from tuner.journal.events import (
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialResumed,
)
from tuner.journal.journal import Journal
from tuner.schedulers.scheduler import Decision
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override

SPACE = Path(__file__).with_name("space.yaml")
FACTS = DataFacts(2_048, 3_500_000, 180_000, "d" * 64, "t" * 64)
ENVIRONMENT = {
    "device": "cpu: x", "dtype": "float32", "width": "any", "compiled": "no",
    "trainer": "2", "torch": "2", "numpy": "2", "python": "3",
}  # fmt: skip
SLOTS = 8
_DRAWN = 100


def _space(trials: int, seed: int, *settings: str) -> tuple[SearchSpace, str]:
    values = (f"search.trials={trials}", f"search.seed={seed}", *settings)
    return read_space(SPACE, [Override.parse(value) for value in values])


def reported(trial: Trial, step: int) -> Report:
    """Return a report of a trial: best near a learning rate of 0.01, NaN far above it."""
    h, tokens = trial.spec.hyperparameters, step * trial.spec.tokens_per_step
    loss = 3 + abs(math.log10(h.max_learning_rate / 0.01)) + 0.2 * abs(math.log10(h.weight_decay))
    loss += 20_000 / (10_000 + tokens) + (trial.spec.seed % 1000) / 1e5
    status = Status.FINISHED if step == h.total_steps else Status.TRAINING
    if h.max_learning_rate > 0.05 and tokens > 6_000:
        loss, status = math.nan, Status.DIVERGED
    return Report(str(trial.number), status, step, tokens, loss, loss, 1.0, 0.01)


def write_search(home: Home, name: str, trials: int, seed: int) -> None:
    """Write the journal of a search, as its driver would.

    Args:
        home: home of the search.
        name: name of the search.
        trials: number of its trials, without retrainings.
        seed: seed of the search.
    """
    folder = home.search(name)
    folder.mkdir(parents=True)
    space, text = _space(trials, seed)
    conductor = Conductor(space, FACTS, SLOTS)
    journal = Journal.open(folder)
    known = 0
    paused: set[int] = set()
    with journal.together():
        journal.append(SearchBegun(space, text, FACTS))
        journal.append(SessionBegun(ENVIRONMENT, SLOTS, in_order=True, epoch=journal.epoch))
        conductor.fill()
        while True:
            board = conductor.board
            for number in range(known, len(board.trials)):
                journal.append(TrialBegun.of_trial(board.trials[number]))
            known = len(board.trials)
            expected = conductor.expected
            if expected is None:
                break
            trial = board.trials[expected[0]]
            report = reported(trial, expected[1])
            decision = conductor.report(trial.number, report)
            journal.append(Reported(trial.number, report, decision, trial.outcome))
            if trial.is_paused:
                paused.add(trial.number)
            for job in conductor.fill():
                if job.number in paused:
                    paused.remove(job.number)
                    journal.append(TrialResumed(job.number))
        conductor.close()
        best = board.best
        assert best is not None
        summary = {"trials": float(trials), "best_val_loss": board.value(best)}
        journal.append(SessionEnded("finished", summary, best.number, 0.0, (best.number,)))
    journal.close()


def long_search(journal: Journal, trials: int, reports: int) -> Iterator[None]:
    """Write a search of many reports that nothing stops early, and that does not end.

    A conductor would look at all reports again and again, for hours: it draws the first trials, and
    later ones have their draws again, with other seeds.

    Args:
        journal: its empty journal.
        trials: number of its trials.
        reports: number of the reports of each.

    Yields:
        None after each report; those of a few trials alternate.
    """
    space, text = _space(
        trials, 0, f"budget.reports={reports}", f"budget.tokens={reports * 1_024}",
        "hyperparameters.α_max={log: [1e-4, 4e-2]}", "search.scheduler=none", "confirm=off",
    )  # fmt: skip
    conductor = Conductor(space, FACTS, min(_DRAWN, trials))
    conductor.fill()
    drawn = list(conductor.board.trials.values())
    journal.append(SearchBegun(space, text, FACTS))
    journal.append(SessionBegun(ENVIRONMENT, SLOTS, in_order=True, epoch=journal.epoch))
    for first in range(0, trials, SLOTS):
        lanes = []
        for number in range(first, min(first + SLOTS, trials)):
            like = drawn[number % len(drawn)]
            spec = like.spec.model_copy(update={"seed": number})
            lanes.append(Trial(number, spec, like.draw))
            journal.append(TrialBegun.of_trial(lanes[-1]))
        while lanes:
            for trial in tuple(lanes):
                step = trial.report_steps[len(trial.reports)]
                trial.reports.append(report := reported(trial, step))
                outcome = Outcome.parse("finished") if report.status is Status.FINISHED else None
                journal.append(Reported(trial.number, report, Decision.CONTINUE, outcome))
                if outcome is not None:
                    lanes.remove(trial)
                yield
