"""Repeats the calls of a journal, which bring a new conductor to where the last driver left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.engine.report import Report
from tuner.conductor.conductor import Conductor, UnexpectedReport
from tuner.conductor.job import RestoredDecisions
from tuner.errors import TunerError
from tuner.journal.events import (
    Event,
    Reported,
    SearchEdited,
    SessionBegun,
    TrialBegun,
    TrialFailed,
)


def restored_decisions(
    events: Sequence[Event], find: Callable[[str], Sequence[Report]]
) -> RestoredDecisions:
    """Return the draws of all trials in a journal, the reports that were reused, and what fits.

    Args:
        events: events of the journal.
        find: returns the reports of a finished trial with a specification's hash.
    """
    trials = [event for event in events if isinstance(event, TrialBegun)]
    return RestoredDecisions(
        {trial.number: trial.draw for trial in trials},
        {trial.number: find(trial.spec.hash) for trial in trials if trial.is_reused},
        {trial.number: trial.infeasible for trial in trials if trial.infeasible},
    )


def repeat(conductor: Conductor, events: Sequence[Event], name: str) -> None:
    """Repeat the calls of a journal on a conductor that is as the search began.

    Args:
        conductor: has the space and the slots of the first session.
        events: events of the journal.
        name: name of the search, for the error.

    Raises:
        TunerError: if this version decides otherwise than the one that wrote the journal, or the
            space and its draws contradict each other.
    """
    slots = 0
    for count, event in enumerate(events, start=1):
        try:
            match event:
                case SearchEdited() if slots:
                    conductor.edit(event.space, slots)
                    if event.is_live:
                        conductor.fill()
                case SessionBegun():
                    if slots not in {0, event.slots}:
                        conductor.edit(conductor.space, event.slots)
                    slots = event.slots
                    conductor.fill()
                case TrialBegun() | Reported() | TrialFailed():
                    _repeat_trial(conductor, event)
        except (KeyError, UnexpectedReport, ValueError) as error:
            number = getattr(event, "number", None)
            where = f"event {count}" if number is None else f"trial {number}"
            raise TunerError(
                f"this version of tuner decides otherwise than the one that wrote the journal of "
                f"{name} (at {where}); resume it with that version"
            ) from error


def _repeat_trial(conductor: Conductor, event: TrialBegun | Reported | TrialFailed) -> None:
    """Repeat the call of one event.

    Raises:
        KeyError, UnexpectedReport: if the conductor has no such trial, does not train it, or
            decides otherwise.
    """
    trial = conductor.board.trials[event.number]
    match event:
        case TrialBegun():
            if trial.spec != event.spec:
                raise KeyError(event.number)
        case Reported():
            if conductor.report(event.number, event.report) is not event.decision:
                raise UnexpectedReport(event.number)
            conductor.fill()
        case TrialFailed():
            conductor.fail(event.number, event.reason)
            conductor.fill()
