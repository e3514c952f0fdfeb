"""Jobs, and the slots that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.report import Report
from tuner.board import TrialRow

# new: from the start; resume: a parked trial; branch: from the state of another; confirm: the
# configuration of another with a fresh seed; recorded: an equal trial's reports instead of training
JobKind = Literal["new", "resume", "branch", "confirm", "recorded"]


@dataclass(frozen=True)
class Job:
    """One leg of a trial, for one slot.

    Attributes:
        number: of the trial.
        slot: where it trains.
        kind: why.
        after: step of its last report that was taken; 0 before the first.
        source: trial and step whose state it goes on from; None: from its start.
        reports: what an equal trial reported, to be taken instead of training.
    """

    number: int
    slot: int
    kind: JobKind
    after: int = 0
    source: tuple[int, int] | None = None
    reports: Sequence[Report] = ()


@dataclass
class Slot:
    """Where one trial trains at a time.

    Attributes:
        index: counted from 0.
        clock: virtual tokens at which the last job ended.
        job: under way.
        tokens_before: of its trial, when the job began.
    """

    index: int
    clock: int = 0
    job: Job | None = None
    tokens_before: int = 0


def going_on(row: TrialRow, slot: int, kind: JobKind) -> Job:
    """A job that goes on from the last report of its trial."""
    if row.recorded:
        return Job(row.number, slot, "recorded", row.step, reports=row.recorded)
    return Job(row.number, slot, kind, row.step, (row.number, row.step))
