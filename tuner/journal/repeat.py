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
        TunerError: as `Repetition.add`.
    """
    repetition = Repetition(conductor, name)
    for event in events:
        repetition.add(event)


class Repetition:
    """Repeats the calls of a journal one after another, as `repeat` does.

    Args:
        conductor: has the first space and the slots of the first session.
        name: name of the search, for the error.
    """

    def __init__(self, conductor: Conductor, name: str) -> None:
        self._conductor, self._name = conductor, name
        self._space, self._slots = conductor.space, 0
        self._count = 0

    def add(self, event: Event) -> None:
        """Repeat the call of the next event.

        Raises:
            TunerError: if this version decides otherwise than the one that wrote the journal, or
                the space and its draws contradict each other.
        """
        self._count += 1
        try:
            self._repeat(event)
        except (KeyError, StopIteration, ValueError) as error:
            number = getattr(event, "number", None)
            where = f"event {self._count}" if number is None else f"trial {number}"
            raise TunerError(
                f"this version of tuner decides otherwise than the one that wrote the journal of "
                f"{self._name} (at {where}); resume it with that version"
            ) from error

    def _repeat(self, event: Event) -> None:
        conductor = self._conductor
        match event:
            case SearchBegun():
                self._space = event.space
            case SessionBegun():
                # an edit takes effect when a driver begins its session, not before
                edited = self._space != conductor.space or event.slots != self._slots
                if self._slots and edited:
                    conductor.edit(self._space, event.slots)
                self._slots = event.slots
                conductor.fill()
            case TrialBegun() | Reported() | TrialFailed():
                _repeat_trial(conductor, event)


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
