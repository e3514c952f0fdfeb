"""A search goes on: what its journal says, which changes are allowed, and the calls repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from model.spec.trial import InitFrom
from tuner.errors import TunerError
from tuner.journal.events import Event
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.tracking.tags import ENVIRONMENT


@dataclass(frozen=True)
class Recorded:
    """What the journal of a search says of it.

    Attributes:
        space: what it searches, as last edited.
        space_text: the file that the space came from.
        facts: what its specifications know of the data.
        session: of the last driver; None if none came to begin.
        begun: the space that it began with, and the slots of its first session.
    """

    space: SearchSpace
    space_text: str
    facts: DataFacts
    session: Event | None
    begun: tuple[SearchSpace, int]

    @classmethod
    def of(cls, events: Sequence[Event], name: str) -> Recorded:
        """The same from its events.

        Raises:
            TunerError: if there are none, or this version cannot read them.
        """
        searches = [event for event in events if event["event"] == "search"]
        sessions = [event for event in events if event["event"] == "session"]
        if not searches:
            raise TunerError(f"the journal of {name} is empty; begin a search of another --name")
        try:
            first, last = _begun(events), searches[-1]
            start = last["facts"]["init_from"]
            init_from = InitFrom.model_validate(start) if start else None
            return cls(
                space=SearchSpace.model_validate_json(last["space"]),
                space_text=last["space_text"],
                facts=DataFacts(**{**last["facts"], "init_from": init_from}),
                session=sessions[-1] if sessions else None,
                begun=(
                    SearchSpace.model_validate_json(first["space"]),
                    sessions[0]["slots"] if sessions else 0,
                ),
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise TunerError(
                f"the journal of {name} is of another version of tuner; resume it with that one"
            ) from error


def _begun(events: Sequence[Event]) -> Event:
    """The search event that the first session was about."""
    kinds = [event["event"] for event in events]
    end = kinds.index("session") if "session" in kinds else len(kinds)
    return next(event for event in reversed(events[:end]) if event["event"] == "search")


# editing -----------------------------------------------------------------------------------


def environment_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two environments, in words; empty if nothing does."""
    changed = (k for k in ENVIRONMENT if before.get(k) != now.get(k))
    return "; ".join(f"{k} {before.get(k)} → {now.get(k)}" for k in changed)


# repeating ---------------------------------------------------------------------------------
