"""Repeats the calls of a journal, which bring a new conductor to where the last driver left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.engine.report import Report
from tuner.conductor.conductor import Conductor, RestoredDecisions
from tuner.errors import TunerError
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    TrialBegun,
    TrialFailed,
)


def restored_decisions(
    events: Sequence[Event], find: Callable[[str], Sequence[Report]]
) -> RestoredDecisions:
    """Return the draws of all trials in a journal, and the reports that were reused.

    Args:
        events: events of the journal.
        find: returns the reports of a finished trial with a specification's hash.
    """
    trials = [event for event in events if isinstance(event, TrialBegun)]
    return RestoredDecisions(
        {trial.number: trial.draw for trial in trials},
        {trial.number: find(trial.spec.hash) for trial in trials if trial.is_reused},
    )


def repeat(conductor: Conductor, events: Sequence[Event], name: str) -> None:
    """Repeat the calls of a journal on a conductor that is as the search began.

    Args:
        conductor: has the first space and the slots of the first session.
        events: events of the journal.
        name: name of the search, for the error.

    Raises:
        TunerError: if this version decides otherwise than the one that wrote the journal, or the
            space and its draws contradict each other.
    """
    space, slots = conductor.space, None
    for number, event in enumerate(events, start=1):
        try:
            match event:
                case SearchBegun():
                    space = event.space
                case SessionBegun():
                    # an edit takes effect when a driver begins its session, not before
                    if slots is not None and (space != conductor.space or event.slots != slots):
                        conductor.edit(space, event.slots)
                    slots = event.slots
                    conductor.fill()
                case TrialBegun() | Reported() | TrialFailed():
                    _repeat_trial(conductor, event)
        except (KeyError, StopIteration, ValueError) as error:
            where = f"trial {event.number}" if hasattr(event, "number") else f"event {number}"
            raise TunerError(
                f"this version of tuner decides otherwise than the one that wrote the journal of "
                f"{name} (at {where}); resume it with that version"
            ) from error


def _repeat_trial(conductor: Conductor, event: TrialBegun | Reported | TrialFailed) -> None:
    """Repeat the call of one event.

    Raises:
        KeyError, StopIteration: if the conductor has no such trial, or does not train it.
    """
    trial = conductor.board.trials[event.number]
    match event:
        case TrialBegun():
            if trial.spec != event.spec:
                raise KeyError(event.number)
        case Reported():
            trial.times.append(event.time_ms)
            conductor.report(event.number, event.report)
            conductor.fill()
        case TrialFailed():
            conductor.fail(event.number, event.reason)
            conductor.fill()
