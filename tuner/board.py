"""The state of a running search as the driver sees it: what views show and summaries count."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

from model.report import Report, Status
from model.spec import TrialSpec

_RATE_WINDOW_SECONDS = 20.0


@dataclass
class TrialRow:
    """One trial of the search.

    Attributes:
        number: counted from 0; 0 has the defaults.
        spec: what it trains.
        reports: so far.
        outcome: how it ended, as the user reads it; None while it is under way.
    """

    number: int
    spec: TrialSpec
    reports: list[Report] = field(default_factory=list)
    outcome: str | None = None

    @property
    def last(self) -> Report | None:
        """The newest report."""
        return self.reports[-1] if self.reports else None

    @property
    def tokens(self) -> int:
        """Training tokens up to the newest report."""
        return self.last.tokens if self.last else 0

    @property
    def has_finished(self) -> bool:
        """Whether it used its full budget."""
        return self.last is not None and self.last.status is Status.FINISHED

    @property
    def has_diverged(self) -> bool:
        """Whether a loss or gradient was not finite."""
        return self.last is not None and self.last.status is Status.DIVERGED

    def objective(self, metric: str) -> float:
        """The newest value of a metric; infinity where there is none or the trial diverged."""
        if self.last is None or self.has_diverged:
            return math.inf
        return self.last.metrics()[metric]


class Board:
    """All trials of one search.

    Args:
        metric: the objective.
        trials: how many will run.
        expected_tokens: of the whole search, an estimate to start with.
    """

    def __init__(self, metric: str, trials: int, expected_tokens: int) -> None:
        self.metric = metric
        self.num_trials = trials
        self.rows: dict[int, TrialRow] = {}
        self.started = time.monotonic()
        self._expected_tokens = expected_tokens
        self._recent: deque[tuple[float, int]] = deque()  # when, tokens

    def add(self, number: int, spec: TrialSpec) -> None:
        """A trial was suggested."""
        # a new dict: the view's thread may be reading the old one
        self.rows = {**self.rows, number: TrialRow(number, spec)}

    def report(self, number: int, report: Report) -> bool:
        """A trial reported; whether it is the best so far."""
        before = self.best
        row = self.rows[number]
        now = time.monotonic()
        self._recent.append((now, report.tokens - row.tokens))
        while self._recent[0][0] < now - _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        row.reports.append(report)
        return self.best is row and (before is not row or len(row.reports) == 1)

    def end(self, number: int, failure: str | None = None) -> str:
        """A trial ended; says how."""
        row = self.rows[number]
        if failure:
            row.outcome = f"failed: {failure}"
        elif row.last and row.last.status is not Status.TRAINING:
            row.outcome = str(row.last.status)
        else:
            row.outcome = f"stopped at report {len(row.reports)}"
        return row.outcome

    @property
    def best(self) -> TrialRow | None:
        """The best finished trial; while none has finished, the best one of all."""
        rows = [r for r in self.rows.values() if r.objective(self.metric) < math.inf]
        finished = [r for r in rows if r.has_finished]
        return min(finished or rows, key=lambda r: r.objective(self.metric), default=None)

    @property
    def ended(self) -> list[TrialRow]:
        """Trials that are over."""
        return [r for r in self.rows.values() if r.outcome is not None]

    @property
    def training(self) -> list[TrialRow]:
        """Trials under way, by number."""
        return [r for r in self.rows.values() if r.outcome is None]

    @property
    def tokens(self) -> int:
        """Training tokens up to the newest reports."""
        return sum(r.tokens for r in self.rows.values())

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
        ended = self.ended
        each = self._expected_tokens / self.num_trials
        if len(ended) >= max(1, self.num_trials // 3):
            each = sum(r.tokens for r in ended) / len(ended)
        under_way = sum(  # who has passed the average will probably run to the end
            (each if r.tokens < each else r.spec.budget_tokens) - r.tokens for r in self.training
        )
        return (under_way + each * (self.num_trials - len(self.rows))) / rate
