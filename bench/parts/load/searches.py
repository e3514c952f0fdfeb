"""Makes searches without training: a conductor decides, a formula reports, a journal is written."""

from __future__ import annotations

import math
from pathlib import Path

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
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
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override

SPACE = Path(__file__).with_name("space.yaml")
FACTS = DataFacts(2_048, 3_500_000, 180_000, "d" * 64, "t" * 64)
ENVIRONMENT = {
    "device": "cpu: x", "dtype": "float32", "width": "any", "compiled": "no",
    "trainer": "2", "torch": "2", "numpy": "2", "python": "3",
}  # fmt: skip
SLOTS = 8


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
    values = (f"search.trials={trials}", f"search.seed={seed}")
    space, text = read_space(SPACE, [Override.parse(value) for value in values])
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
