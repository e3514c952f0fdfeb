"""Searches without training: a formula makes the reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.conductor.trial import Trial
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    TrialBegun,
    TrialResumed,
)
from tuner.journal.fold import Search
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  T_warmup: {fraction_of: T_total, uniform: [0, 0.2]}
  λ: {log: [1e-3, 1]}
  B: {choice: [8, 16]}
model: {context_length: 32}
budget: {tokens: 27_000, reports: 9}
confirm: {top: 2, seeds: 2}
search: {%s, seed: 3}
"""


def space_of(folder: Path, search: str, text: str = SPACE) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(text.replace("%s", search), encoding="utf-8")
    return load_space(file)


def trained(trial: Trial, step: int) -> Report:
    """Return the report of a trial at a step: best near a learning rate of 0.01, NaN far above."""
    assert step in trial.report_steps
    h, tokens = trial.spec.hyperparameters, step * trial.spec.tokens_per_step
    loss = 3 + abs(math.log10(h.max_learning_rate / 0.01)) + 0.2 * abs(math.log10(h.weight_decay))
    loss += 20_000 / (10_000 + tokens) + (trial.spec.seed % 1000) / 1e5
    status = Status.FINISHED if step == h.total_steps else Status.TRAINING
    if h.max_learning_rate > 0.05 and tokens > 6_000:
        loss, status = math.nan, Status.DIVERGED
    return Report(str(trial.number), status, step, tokens, loss, loss, 1.0, 0.01)


class Simulation:
    """A driver that makes the expected reports and keeps a journal."""

    def __init__(
        self,
        conductor: Conductor,
        events: Sequence[Event] = (),
        train: Callable[[Trial, int], Report] = trained,
    ) -> None:
        self.conductor = conductor
        self.events: list[Event] = list(events)
        self.jobs: list[Job] = []
        self._train = train
        recorded = Search.of(events)
        self._paused = {trial.number for trial in recorded.board.paused} if recorded else set()
        self._note_resumed(conductor.under_way)  # after a cut between two events of one decision
        if not events:
            self.note(SearchBegun(conductor.space, "", FACTS, proposals=conductor.proposals))
            self.note(SessionBegun({}, len(conductor._lanes), in_order=True))
        self._fill()

    def note(self, event: Event) -> None:
        self.events.append(replace(event, time_ms=1000 * (len(self.events) + 1)))

    def _fill(self) -> None:
        jobs = self.conductor.fill()
        self.jobs += jobs
        self._note_resumed(jobs)
        known = sum(isinstance(event, TrialBegun) for event in self.events)
        trials = self.conductor.board.trials
        for number in range(known, len(trials)):
            self.note(TrialBegun.of_trial(trials[number]))

    def _note_resumed(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.number in self._paused:
                self._paused.remove(job.number)
                self.note(TrialResumed(job.number))

    def step(self) -> bool:
        """Make one report; return False if none is expected."""
        expected = self.conductor.expected
        if expected is None:
            return False
        number, step = expected
        trial = self.conductor.board.trials[number]
        recorded = {report.step: report for report in trial.reused}
        report = recorded[step] if recorded else self._train(trial, step)
        decision = self.conductor.report(number, report)
        self.note(Reported(number, report, decision, trial.outcome))
        trial.times.append(self.events[-1].time_ms)
        if trial.is_paused:
            self._paused.add(number)
        self._fill()
        return True

    def run(self) -> Conductor:
        """Make all reports, and close the conductor."""
        while self.step():
            pass
        self.conductor.close()
        return self.conductor


class HasBoard(Protocol):
    """What has the trials of a search: its conductor, or the fold of its journal."""

    board: Any


def outcomes(search: HasBoard) -> list[tuple[object, ...]]:
    """Return trials, reports and outcomes of a search, for comparison."""
    return [
        (
            trial.number,
            trial.spec,
            dict(trial.draw),
            trial.outcome,
            [(r.step, r.status, repr(r.val_loss)) for r in trial.reports],
            trial.parent,
            trial.confirms,
        )
        for trial in search.board.trials.values()
    ]
