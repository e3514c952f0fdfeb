"""A trial of a search: its specification, reports and outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from model.engine.report import Report, Status
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import TrialSpec
from tuner.formatting import number
from tuner.space.parameter import Value


@dataclass
class Trial:
    """One trial of the search.

    Attributes:
        number: counted from 0; 0 has the defaults.
        spec: what it trains.
        draw: what was drawn for it, label → value.
        reports: so far.
        times: when each was taken, in milliseconds since the epoch.
        outcome: how it ended, as the user reads it; None while it is under way or parked.
        is_parked: whether it waits to be brought back.
        recorded: what an equal trial reported, taken instead of training.
        parent: the trial whose state it goes on from.
        confirms: the trial whose configuration it repeats with a fresh seed.
    """

    number: int
    spec: TrialSpec
    draw: Mapping[str, Value] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    outcome: str | None = None
    is_parked: bool = False
    recorded: Sequence[Report] = ()
    parent: int | None = None
    confirms: int | None = None

    @property
    def last(self) -> Report | None:
        """The newest report."""
        return self.reports[-1] if self.reports else None

    @property
    def step(self) -> int:
        """Updates up to the newest report."""
        return self.last.step if self.last else 0

    @property
    def tokens(self) -> int:
        """Training tokens up to the newest report, those of a parent included."""
        return self.last.tokens if self.last else 0

    @property
    def tokens_before(self) -> int:
        """Training tokens of the parent from whose state it goes on."""
        start = self.spec.continues if self.parent is not None else None
        return start.step * self.spec.tokens_per_step if start else 0

    @property
    def tokens_trained(self) -> int:
        """Training tokens that the search spent on it."""
        return 0 if self.recorded or not self.reports else self.tokens - self.tokens_before

    @cached_property
    def report_steps(self) -> list[int]:
        """Updates after which it reports; not those of a trial that it continues."""
        begun = self.spec.continues.step if self.spec.continues else 0
        return [step for step in self.spec.report_steps if step > begun]

    @property
    def has_finished(self) -> bool:
        """Whether it used its full budget."""
        return self.last is not None and self.last.status is Status.FINISHED

    @property
    def has_diverged(self) -> bool:
        """Whether a loss or gradient was not finite."""
        return self.last is not None and self.last.status is Status.DIVERGED

    @property
    def failed(self) -> bool:
        """Whether it could not go on, for a reason that is not its own."""
        return (self.outcome or "").startswith("failed")

    def objective(self, metric: str) -> float:
        """The newest value of a metric; infinity where there is none or the trial diverged."""
        if self.last is None or self.has_diverged:
            return math.inf
        return self.value(metric, self.last)

    def value(self, metric: str, report: Report) -> float:
        """A metric at a report; infinity where there is none."""
        if metric == "parameters":
            return float(self.spec.architecture.num_parameters)
        return report.metrics().get(metric, math.inf)

    def value_of(self, name: str) -> Any:
        """A hyperparameter or size of the trial."""
        source = self.spec.hyperparameters if name in SYMBOL_TABLE else self.spec.architecture
        return getattr(source, name)

    def text_of(self, name: str) -> str:
        """A hyperparameter or size of the trial, as tables show it."""
        value = self.value_of(name)
        return number(value) if isinstance(value, int | float) else str(value)
