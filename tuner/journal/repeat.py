"""Repeats the calls of a journal: the conductor is then where the last driver left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.engine.report import Report
from model.spec.trial import TrialSpec
from tuner.conductor.conductor import Conductor, RestoredDecisions
from tuner.errors import TunerError
from tuner.journal.events import Event, report_of
from tuner.space.space import SearchSpace


def memory_of(
    events: Sequence[Event], find: Callable[[str], Sequence[Report]]
) -> RestoredDecisions:
    """What was drawn and taken from the record before."""
    trials = [event for event in events if event["event"] == "trial"]
    recorded = {
        event["number"]: find(TrialSpec.model_validate_json(event["spec"]).hash)
        for event in trials
        if event["recorded"]
    }
    return RestoredDecisions({event["number"]: event["draw"] for event in trials}, recorded)


def repeat(conductor: Conductor, events: Sequence[Event], name: str) -> None:
    """Repeat the calls of a journal; the conductor is then where the last driver left it.

    Raises:
        TunerError: if this version decides otherwise than the one that wrote the journal.
    """
    repetition = _Repetition(conductor)
    for event in events:
        try:
            repetition.call(event)
        except (KeyError, StopIteration) as error:
            raise TunerError(
                f"this version of tuner decides otherwise than the one that wrote the journal of "
                f"{name} (at trial {event['number']}); resume it with that version"
            ) from error


class _Repetition:
    """The conductor's calls, event by event."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._space = conductor.space
        self._slots: int | None = None

    def call(self, event: Event) -> None:
        conductor = self._conductor
        match event["event"]:
            case "search":
                self._space = SearchSpace.model_validate_json(event["space"])
            case "session":
                self._begin(event["slots"])
            case "trial":
                row = conductor.board.trials[event["number"]]
                if row.spec != TrialSpec.model_validate_json(event["spec"]):
                    raise KeyError(row.number)
            case "report":
                conductor.board.trials[event["number"]].times.append(event["time_ms"])
                conductor.report(event["number"], report_of(event))
                conductor.fill()
            case "failure":
                conductor.fail(event["number"], event["reason"])
                conductor.fill()

    def _begin(self, slots: int) -> None:
        """A driver began, perhaps with another space or more slots."""
        is_first, before = self._slots is None, self._slots
        if not is_first and (self._space != self._conductor.space or slots != before):
            self._conductor.edit(self._space, slots)
        self._slots = slots
        self._conductor.fill()
