"""The state of a running search as the driver sees it: what views show and summaries count."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

from model.engine.report import Report
from tuner.conductor.trial import Trial
from tuner.samplers.observation import Observation
from tuner.space.objective import Objective

_RATE_WINDOW_SECONDS = 20.0


class Board:
    """All trials of one search.

    Args:
        objectives: by the first of which the trials are ranked.
        trials: how many will run.
        expected_tokens: of the whole search, an estimate to start with.

    Attributes:
        winner: the trial whose configuration was confirmed to be the best.
        tokens: training tokens that the search spent, up to the newest reports.
        best_values: the best value of the objective in any report so far, after each report.
    """

    def __init__(self, objectives: Sequence[Objective], trials: int, expected_tokens: int) -> None:
        self._objectives = objectives
        self.metric = objectives[0].metric
        self.num_trials = trials
        self.trials: dict[int, Trial] = {}
        self.winner: int | None = None
        self.tokens = 0
        self.best_values: list[float] = []
        self._best_finished: Trial | None = None
        self.started = time.monotonic()
        self._expected_tokens = expected_tokens
        self._recent: deque[tuple[float, int]] = deque()  # when, tokens

    def add(self, row: Trial) -> None:
        """A trial was suggested."""
        # a new dict: the view's thread may be reading the old one
        self.trials = {**self.trials, row.number: row}

    def report(self, number: int, report: Report) -> bool:
        """A trial reported; whether it is the best so far."""
        before = self.best
        row = self.trials[number]
        spent = row.tokens_trained
        row.reports.append(report)
        spent = row.tokens_trained - spent
        self.tokens += spent
        now = time.monotonic()
        self._recent.append((now, spent))
        while self._recent[0][0] < now - _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        if row.confirms is None:
            objective = self._objectives[0]
            ranks = [objective.rank(value) for value in self.best_values[-1:]]
            best = min([*ranks, self.rank(row)])
            self.best_values.append(objective.rank(best))
        if row.has_finished and row.confirms is None:
            first = self._best_finished
            if self.rank(row) < (math.inf if first is None else self.rank(first)):
                self._best_finished = row
        return self.best is row and (before is not row or len(row.reports) == 1)

    # values --------------------------------------------------------------------------------

    def value(self, row: Trial) -> float:
        """The newest value of the objective; infinity where there is none."""
        return row.objective(self.metric)

    def rank(self, row: Trial) -> float:
        """By which trials are compared: smaller is better, infinity is nothing."""
        return self._objectives[0].rank(self.value(row))

    def curve(self, row: Trial) -> list[tuple[Report, float]]:
        """The reports of a trial, each with what it is compared by."""
        return [
            (report, self._objectives[0].rank(row.value(self.metric, report)))
            for report in row.reports
        ]

    def observation(self, row: Trial) -> Observation:
        """What a sampler may know of a trial that has ended or is parked."""
        values = {r.tokens: value for r, value in self.curve(row) if math.isfinite(value)}
        if row.has_diverged or row.outcome == "diverged":
            return Observation("diverged", values)
        if row.has_finished:
            return Observation("finished", values, self.values(row))
        is_stopped = row.is_parked or (row.outcome or "").startswith("stopped")
        return Observation("stopped" if is_stopped else "failed", values)

    def values(self, row: Trial) -> tuple[float, ...]:
        """The newest value of every objective."""
        return tuple(row.objective(objective.metric) for objective in self._objectives)

    @property
    def searched(self) -> list[Trial]:
        """The trials of the search itself, without those that confirm."""
        return [r for r in self.trials.values() if r.confirms is None]

    @property
    def confirming(self) -> list[Trial]:
        """The trials that confirm others."""
        return [r for r in self.trials.values() if r.confirms is not None]

    @property
    def ranked(self) -> list[Trial]:
        """The finished trials of the search, best first."""
        finished = [r for r in self.searched if r.has_finished]
        return sorted(finished, key=lambda r: (self.rank(r), r.number))

    @property
    def best(self) -> Trial | None:
        """The confirmed winner; else the best finished trial; else the best one of all."""
        if self.winner is not None:
            return self.trials[self.winner]
        if self._best_finished is not None:
            return self._best_finished
        rows = [r for r in self.searched if self.rank(r) < math.inf]
        return min(rows, key=self.rank, default=None)

    @property
    def ended(self) -> list[Trial]:
        """Trials that are over."""
        return [r for r in self.trials.values() if r.outcome is not None]

    @property
    def training(self) -> list[Trial]:
        """Trials under way, by number."""
        return [r for r in self.trials.values() if r.outcome is None and not r.is_parked]

    @property
    def parked(self) -> list[Trial]:
        """Trials that wait to be brought back."""
        return [r for r in self.trials.values() if r.is_parked]

    @property
    def tokens_per_second(self) -> float:
        """Recent rate of training."""
        if len(self._recent) < 2:
            return 0.0
        span = time.monotonic() - self._recent[0][0]
        return sum(tokens for _, tokens in list(self._recent)[1:]) / max(span, 1e-9)

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None before anything is known."""
        rate = self.tokens_per_second
        if rate == 0:
            return None
        over = self.ended + self.parked
        each = self._expected_tokens / self.num_trials
        if len(over) >= max(1, self.num_trials // 3):
            each = sum(r.tokens for r in over) / len(over)
        under_way = sum(  # who has passed the average will probably run to the end
            (each if r.tokens < each else r.spec.budget_tokens) - r.tokens for r in self.training
        )
        return (under_way + each * (self.num_trials - len(self.trials))) / rate
