"""Jobs of trials, the lanes that the jobs occupy, and decisions about trials in a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model.engine.report import Report
from tuner.conductor.trial import Trial
from tuner.space.parameter import Value


@dataclass(frozen=True)
class Job:
    """One segment of a trial, trained in one lane without a pause.

    Attributes:
        number: number of the trial.
        lane: index of the lane.
        after: step of the trial's newest report that was taken, or of its parent's checkpoint; 0
            before the first report.
        source: trial and step of the checkpoint to continue from; None: train from the start.
        reports: reports of an equal trial, to be reused instead of training; or with `source`,
            reports up to that checkpoint, to be sent before training.
    """

    number: int
    lane: int
    after: int = 0
    source: tuple[int, int] | None = None
    reports: Sequence[Report] = ()


@dataclass
class Lane:
    """The conductor's place for one trial in training, with its virtual clock.

    A lane is not a slot of an engine: the driver decides which worker trains the jobs of a lane.

    Attributes:
        index: index of the lane, counted from 0.
        clock: virtual time at which the lane's job began, or at which its last job ended.
        job: job in training.
        tokens_before: training tokens of the job's trial when the job began to train.
        trains_at: virtual time at which the job began to train.
        per_token: virtual time of one training token of the job's trial.
    """

    index: int
    clock: int = 0
    job: Job | None = None
    tokens_before: int = 0
    trains_at: int = 0
    per_token: int = 1

    def clock_at(self, tokens: int) -> int:
        """Return the virtual time at which the job's trial has some training tokens."""
        return self.trains_at + self.per_token * (tokens - self.tokens_before)


def resume_job(trial: Trial, lane: int) -> Job:
    """Return a job that continues from the newest report of a trial."""
    # reused reports have no checkpoint: the worker sends the rest of them after `after`
    source = None if trial.reused else (trial.number, trial.step)
    return Job(trial.number, lane, trial.step, source, trial.reused)


@dataclass(frozen=True)
class RestoredDecisions:
    """Decisions read from a journal, which are not made again.

    Attributes:
        draws: trial → values drawn for the trial.
        reused: trial → reports of an equal finished trial, taken instead of training.
        infeasible: trial → why it does not fit into memory.
    """

    draws: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    reused: Mapping[int, Sequence[Report]] = field(default_factory=dict)
    infeasible: Mapping[int, str] = field(default_factory=dict)
