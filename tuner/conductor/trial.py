"""A trial of a search: its specification, reports and outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from model.device.peak_memory import peak_memory
from model.engine.report import Report, Status
from model.spec.cool_down import last_shared_report
from model.spec.trial import TrialSpec
from tuner.conductor.outcome import Outcome, OutcomeKind
from tuner.space.parameter import Value
from tuner.texts.formatting import metric_text, number, shown, size_text


@dataclass(repr=False)
class Trial:
    """One trial of a search.

    Attributes:
        number: number of the trial, counted from 0; trial 0 has the defaults.
        spec: specification that the trial trains.
        draw: values drawn for the trial, label → value.
        reports: reports so far.
        times: milliseconds since the epoch at which each report was taken.
        outcome: how the trial ended; prints as its text. None while it trains or is paused.
        is_paused: True while the trial waits to be resumed, or after the search ended without
            resuming it (then `outcome` is set too).
        reused: reports of an equal finished trial, taken instead of training.
        parent: number of the trial whose checkpoint this trial continues from; of a cool-down,
            its trunk.
        confirms: number of the trial whose configuration this trial repeats with a fresh seed.
        is_whole: True if a cool-down trains from update 0, because its trunk was reused.
    """

    number: int
    spec: TrialSpec
    draw: Mapping[str, Value] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    outcome: Outcome | None = None
    is_paused: bool = False
    reused: Sequence[Report] = ()
    parent: int | None = None
    confirms: int | None = None
    is_whole: bool = False

    def __repr__(self) -> str:
        outcome = self.outcome or ("paused" if self.is_paused else "in training")
        losses = "" if self.last is None else f", val_loss {metric_text(self.last.val_loss)}"
        drawn = ", ".join(f"{name} {shown(value)}" for name, value in self.draw.items())
        return f"<trial {self.number}, {outcome}{losses}{f': {drawn}' if drawn else ''}>"

    @property
    def last(self) -> Report | None:
        """The newest report."""
        return self.reports[-1] if self.reports else None

    @property
    def step(self) -> int:
        """Number of updates up to the newest report."""
        return self.last.step if self.last else 0

    @property
    def tokens(self) -> int:
        """Training tokens up to the newest report, including those of the parent."""
        return self.last.tokens if self.last else 0

    def flops(self, tokens: int) -> int:
        """Return the operations of the training on some tokens."""
        return tokens * round(self.spec.architecture.flops_per_token)

    @property
    def is_cool_down(self) -> bool:
        """True if the trial is a shorter budget of a drawn trial, its `parent`.

        Its specification does not say so: it is that of any trial with this budget.
        """
        return self.parent is not None and self.spec.continues is None

    @cached_property
    def shared_step(self) -> int:
        """Update of the trunk's report from which a cool-down begins; 0 for other trials."""
        return last_shared_report(self.spec) if self.is_cool_down else 0

    @property
    def shared_tokens(self) -> int:
        """Training tokens of the trunk up to the report from which a cool-down begins."""
        return self.shared_step * self.spec.tokens_per_step

    @property
    def is_searched(self) -> bool:
        """True if sampler or scheduler chose the trial: it neither confirms nor cools down."""
        return self.confirms is None and not self.is_cool_down

    @property
    def tokens_before(self) -> int:
        """Training tokens of the parent up to the checkpoint that this trial continues from."""
        start = self.spec.continues if self.parent is not None else None
        step = start.step if start else 0 if self.is_whole else self.shared_step
        return step * self.spec.tokens_per_step

    @property
    def tokens_trained(self) -> int:
        """Training tokens that the search spent on this trial."""
        # the first reports of a cool-down are copies of the trunk's
        return 0 if self.reused else max(0, self.tokens - self.tokens_before)

    @cached_property
    def report_steps(self) -> list[int]:
        """Updates after which the trial itself reports, without those of its parent."""
        start_step = self.spec.continues.step if self.spec.continues else 0
        return [step for step in self.spec.report_steps if step > start_step]

    @property
    def place(self) -> int:
        """Number of the newest report among those of the complete budget; 0 without one."""
        return self.num_places - len(self.report_steps) + len(self.reports) if self.reports else 0

    @cached_property
    def num_places(self) -> int:
        """Number of reports of the complete budget, with those of the parent."""
        return len(self.spec.report_steps)

    def value_at(self, metric: str, place: int) -> float | None:
        """Return the value of a metric at a report of this number; None if there is none."""
        index = len(self.reports) - 1 - (self.place - place)
        if not 0 <= index < len(self.reports):
            return None
        report = self.reports[index]
        return None if report.status is Status.DIVERGED else self.value(metric, report)

    def why_too_large(self, memory_bytes: int) -> str:
        """Return why the trial does not fit into memory; empty if it does.

        Args:
            memory_bytes: memory for a process that trains it; 0 if it is not known.
        """
        peak = peak_memory(self.spec).process if memory_bytes else 0.0
        if peak <= memory_bytes:
            return ""
        return (
            f"it needs about {size_text(peak)} of memory, and there are {size_text(memory_bytes)} "
            f"for each trial"
        )

    @property
    def has_finished(self) -> bool:
        """True if the trial used its full budget."""
        return self.last is not None and self.last.status is Status.FINISHED

    @property
    def has_diverged(self) -> bool:
        """True if a loss or gradient was not finite."""
        return self.last is not None and self.last.status is Status.DIVERGED

    @property
    def has_failed(self) -> bool:
        """True if the trial could not continue, for a reason outside of its configuration."""
        return self._ended_as(OutcomeKind.FAILED)

    @property
    def is_infeasible(self) -> bool:
        """True if the trial does not fit into memory, so that it was not trained."""
        return self._ended_as(OutcomeKind.INFEASIBLE)

    @property
    def is_stopped(self) -> bool:
        """True if the scheduler or a limit of the search stopped the trial."""
        return self._ended_as(OutcomeKind.STOPPED)

    @property
    def is_duplicate(self) -> bool:
        """True if an earlier trial of the search has the same specification."""
        return self._ended_as(OutcomeKind.DUPLICATE)

    @property
    def is_untrained(self) -> bool:
        """True if the trial ended before it trained: it is a duplicate, or infeasible."""
        return self.is_duplicate or self.is_infeasible

    def _ended_as(self, kind: OutcomeKind) -> bool:
        return self.outcome is not None and self.outcome.kind is kind

    def objective(self, metric: str) -> float:
        """Return the newest value of a metric; infinity without one or if the trial diverged."""
        if self.last is None or self.has_diverged:
            return math.inf
        return self.value(metric, self.last)

    def value(self, metric: str, report: Report) -> float:
        """Return the value of a metric at a report; infinity if the report has none."""
        if metric == "parameters":
            return float(self.spec.architecture.num_parameters)
        if metric == "flops":
            return float(self.flops(report.tokens))
        value = report.metric(metric)
        return math.inf if value is None else value

    def value_of(self, name: str) -> Any:
        """Return the value of a hyperparameter or size of the model; of a proxy its target's."""
        return self.spec.value_of(name)

    def text_of(self, name: str) -> str:
        """Return a hyperparameter or size of the model as tables show it."""
        value = self.value_of(name)
        return number(value) if isinstance(value, int | float) else str(value)
