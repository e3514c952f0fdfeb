"""News of one worker about its trials; worker, client and driver pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from model.engine.report import Report

ALL_STEPS = 2**62  # more steps than any trial has


class Failure(NamedTuple):
    """Reason why a worker cannot train an assignment.

    Attributes:
        segment: number of the assignment.
        trial_id: number of the trial, as text.
        reason: for the user, in one line.
    """

    segment: int
    trial_id: str
    reason: str


@dataclass(frozen=True)
class ReportBatch:
    """News of one worker.

    Attributes:
        reports: reports in the order in which they came, each with the number of its assignment.
        failures: assignments that cannot be trained.
        broken: why the engine broke, which ends the process; empty if it works.
    """

    reports: tuple[tuple[int, Report], ...] = ()
    failures: tuple[Failure, ...] = ()
    broken: str = ""

    @property
    def news(self) -> list[tuple[int, Report | Failure]]:
        """Reports and failures, each with the number of its assignment."""
        return [*self.reports, *((failure.segment, failure) for failure in self.failures)]

    @property
    def received(self) -> dict[int, int]:
        """Step of the last report by number of the assignment; for a failure, `ALL_STEPS`."""
        steps = {segment: report.step for segment, report in self.reports}
        return steps | {failure.segment: ALL_STEPS for failure in self.failures}
