"""Order of the driver to a worker to train one segment of a trial."""

from __future__ import annotations

from dataclasses import dataclass

from model.engine.report import Report


@dataclass(frozen=True)
class Assignment:
    """One segment of a trial, assigned to one worker.

    The specification is JSON text: a worker that cannot read it can still name the trial.

    Attributes:
        trial_id: number of the trial, as text.
        worker: index of the worker.
        spec: the `TrialSpec` as JSON.
        after: step of the last recorded report; the segment begins with the report after it.
        source: trial and latest step of the checkpoint to resume from; None: train from step 0.
        reports: reports of an equal finished trial, delivered instead of training; or, with
            `source`, reports up to that checkpoint, delivered before training.
        segment: number of the assignment in its session; of two assignments of a trial, a worker
            follows the one with the larger number.
    """

    trial_id: str
    worker: int
    spec: str
    after: int = 0
    source: tuple[str, int] | None = None
    reports: tuple[Report, ...] = ()
    segment: int = 0

    @property
    def is_reused(self) -> bool:
        """True if the trial is not trained, because all its reports are there."""
        return bool(self.reports) and self.source is None

    @property
    def step_copied(self) -> int:
        """Step of the last report that is delivered before training; 0 without one."""
        return self.reports[-1].step if self.reports and self.source is not None else 0

    @property
    def number(self) -> int:
        """Number of the trial."""
        return int(self.trial_id)
