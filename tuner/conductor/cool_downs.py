"""Shorter budgets of the drawn trials: which branch begins next, and from which state.

A drawn trial with a list of budgets is a *trunk*: it trains for the longest one. Each shorter
budget is a *branch*, the ordinary trial of that budget, which begins from the trunk's last report
before the cool-down (`model/spec/cool_down.py`). It may begin once the trunk has made this report.
A trunk that ends before has no such branch, since that would end likewise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.engine.report import Report
from model.spec.cool_down import last_shared_report
from model.spec.trial import TrialSpec
from tuner.conductor.job import Job
from tuner.conductor.trial import Trial


@dataclass(frozen=True)
class CoolDown:
    """A shorter budget of a drawn trial, before its own trial begins.

    Attributes:
        trunk: number of the drawn trial.
        spec: specification of the branch.
        step: update of the trunk's report from which the branch begins; 0 for the beginning.
    """

    trunk: int
    spec: TrialSpec
    step: int


class CoolDowns:
    """Branches that have not begun."""

    def __init__(self) -> None:
        self._ready: deque[CoolDown] = deque()  # their trunks have made the report
        self._coming: dict[
            int, list[CoolDown]
        ] = {}  # trunk → its other branches, in ascending order

    def add(self, trunk: Trial, specs: Sequence[TrialSpec]) -> None:
        """Add the branches of a trial that begins.

        Args:
            trunk: the trial.
            specs: specifications of its branches, in ascending order of their budgets.
        """
        branches = [CoolDown(trunk.number, spec, last_shared_report(spec)) for spec in specs]
        self._coming[trunk.number] = branches
        self.take_report(trunk)

    def take_report(self, trunk: Trial) -> None:
        """Let the branches begin for which the newest report of a trunk is the last one."""
        coming = self._coming.get(trunk.number, [])
        while coming and not trunk.has_diverged and coming[0].step <= trunk.step:
            self._ready.append(coming.pop(0))

    def end(self, trunk: int) -> int:
        """Drop the branches that an ended trunk did not reach; return their number."""
        return len(self._coming.pop(trunk, ()))

    def next(self) -> CoolDown | None:
        """Return the branch that begins next, and forget it; None if none may begin."""
        return self._ready.popleft() if self._ready else None

    def needed(self, trunk: int) -> set[int]:
        """Return the updates of the states from which branches of a trial have yet to begin."""
        return {branch.step for branch in self._ready if branch.trunk == trunk}


def first_job(trial: Trial, trunk: Trial, lane: int) -> Job:
    """Return the first job of a branch, with the reports that its trunk has made for it."""
    step = trial.shared_step
    if trial.is_whole or not step:
        return Job(trial.number, lane)
    return Job(trial.number, lane, 0, (trunk.number, step), _shared_reports(trunk, step))


def _shared_reports(trunk: Trial, step: int) -> Sequence[Report]:
    # the states of these reports are the trunk's
    return tuple(
        replace(report, checkpoint=None, problem=None)
        for report in trunk.reports
        if report.step <= step
    )
