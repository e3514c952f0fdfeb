"""Outcome of a trial, and its text in the journal, in MLflow's tag and in tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class OutcomeKind(StrEnum):
    """Ways in which a trial ends."""

    FINISHED = "finished"  # its budget is used up
    STOPPED = "stopped"  # the scheduler or a limit of the search stopped it at a report
    DIVERGED = "diverged"  # a loss or a gradient was not finite
    FAILED = "failed"  # it could not continue, for a reason outside of its configuration
    INFEASIBLE = "infeasible"  # it does not fit into memory, so that it was not trained
    DUPLICATE = "duplicate"  # an earlier trial of the search has the same specification
    INTERRUPTED = "interrupted"  # the search halted; the trial continues if the search is resumed


# The texts are on disk (journal, MLflow): they must not change. The detail follows the text.
_TEXTS = {
    OutcomeKind.FINISHED: "finished",
    OutcomeKind.STOPPED: "stopped at report ",
    OutcomeKind.DIVERGED: "diverged",
    OutcomeKind.FAILED: "failed: ",
    OutcomeKind.INFEASIBLE: "infeasible: ",
    OutcomeKind.DUPLICATE: "same as trial ",
    OutcomeKind.INTERRUPTED: "interrupted",
}
_WITH_REASON = {OutcomeKind.FAILED, OutcomeKind.INFEASIBLE}
_WITH_DETAIL = {OutcomeKind.STOPPED, OutcomeKind.DUPLICATE, *_WITH_REASON}
_LONGEST_NUMBER = 18  # digits


class Outcome(str):
    """End of one trial, as text.

    An outcome is its text, because users of the Python API compare and print `trial.outcome`.

    Attributes:
        kind: way in which the trial ended.
        detail: number of the last report (stopped), reason (failed, infeasible), number of the
            other trial (duplicate); empty for all others.
    """

    kind: OutcomeKind
    detail: str

    def __new__(cls, kind: OutcomeKind, detail: str = "") -> Self:
        """Make the text of an outcome."""
        outcome = super().__new__(cls, _TEXTS[kind] + detail)
        outcome.kind, outcome.detail = kind, detail
        return outcome

    def __getnewargs__(self) -> tuple[OutcomeKind, str]:  # type: ignore[override]
        """Return the arguments of `__new__`, for copies and pickles."""
        return self.kind, self.detail

    @classmethod
    def stopped(cls, report: int) -> Self:
        """Return the outcome of a trial that was stopped at its report of this number."""
        return cls(OutcomeKind.STOPPED, str(report))

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Return the outcome of a trial that could not continue."""
        return cls(OutcomeKind.FAILED, reason)

    @classmethod
    def infeasible(cls, reason: str) -> Self:
        """Return the outcome of a trial that does not fit into memory."""
        return cls(OutcomeKind.INFEASIBLE, reason)

    @classmethod
    def same_as(cls, trial: int) -> Self:
        """Return the outcome of a trial that has the specification of an earlier one."""
        return cls(OutcomeKind.DUPLICATE, str(trial))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of an outcome.

        Raises:
            ValueError: if no outcome has this text.
        """
        for kind, start in _TEXTS.items():
            if kind in _WITH_DETAIL and text.startswith(start):
                detail = text.removeprefix(start)
                is_number = detail.isdecimal() and len(detail) <= _LONGEST_NUMBER
                if is_number or kind in _WITH_REASON:
                    return cls(kind, detail)
            if text == start:
                return cls(kind)
        raise ValueError(f"{text!r} is not the outcome of a trial")


FINISHED = Outcome(OutcomeKind.FINISHED)
DIVERGED = Outcome(OutcomeKind.DIVERGED)
INTERRUPTED = Outcome(OutcomeKind.INTERRUPTED)
