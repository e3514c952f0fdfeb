"""Jobs, and the slots that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.engine.report import Report
from tuner.conductor.trial import Trial


@dataclass(frozen=True)
class Job:
    """One leg of a trial, for one slot.

    Attributes:
        number: of the trial.
        slot: where it trains.
        after: step of its last report that was taken, or of its parent's; 0 before the first.
        source: trial and step whose state it goes on from; None: from its start.
        reports: what an equal trial reported, to be taken instead of training.
    """

    number: int
    slot: int
    after: int = 0
    source: tuple[int, int] | None = None
    reports: Sequence[Report] = ()


@dataclass
class Lane:
    """Where one trial trains at a time.

    Attributes:
        index: counted from 0.
        clock: virtual tokens at which its job began, or the last one ended.
        job: under way.
        tokens_before: of its trial, when the job began.
    """

    index: int
    clock: int = 0
    job: Job | None = None
    tokens_before: int = 0


def resume_job(row: Trial, slot: int) -> Job:
    """A job that goes on from the last report of its trial."""
    source = None if row.recorded else (row.number, row.step)
    return Job(row.number, slot, row.step, source, row.recorded)
