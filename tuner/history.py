"""A search goes on: what its journal says, which changes are allowed, and the calls repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import yaml
from pydantic import ValidationError

from model.report import Report
from model.spec import InitFrom, TrialSpec
from tuner.conductor import Conductor, Memory
from tuner.corpus_facts import CorpusFacts
from tuner.errors import TunerError
from tuner.journal import Event, report_of
from tuner.messages import broken_rule, listed
from tuner.overrides import Override
from tuner.parameters import Parameter
from tuner.space import SearchSpace
from tuner.tags import ENVIRONMENT

# Settings that say how much is searched and where, and nothing of what a trial is.
_FREE = {
    "search": ("trials", "keep", "max_tokens", "max_seconds", "patience"),
    "confirm": ("top", "seeds"),
    "engine": ("workers", "slots", "timeout_seconds"),
}
_ALLOWED = (
    "more search.trials, search.keep, the limits search.max_tokens, max_seconds and patience, "
    "confirm, engine.workers and slots, and the ends and values of ranges and choices"
)


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
    facts: CorpusFacts
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
                facts=CorpusFacts(**{**last["facts"], "init_from": init_from}),
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


def search_event(space: SearchSpace, space_text: str, facts: CorpusFacts) -> Event:
    """The event from which `Recorded` is read."""
    start = facts.init_from
    return {
        "event": "search",
        "space": space.model_dump_json(),
        "space_text": space_text,
        "facts": {**asdict(facts), "init_from": start.model_dump() if start else None},
    }


def session_event(environment: Mapping[str, str], slots: int, *, in_order: bool) -> Event:
    """A driver begins.

    Args:
        environment: device and versions of its workers.
        slots: trials in training at one time.
        in_order: whether reports are taken by the clocks of the slots.
    """
    return {
        "event": "session",
        "environment": dict(environment),
        "slots": slots,
        "in_order": in_order,
    }


# editing -----------------------------------------------------------------------------------


def edited(space: SearchSpace, overrides: Sequence[Override], name: str) -> SearchSpace:
    """A recorded space with some of its free settings changed.

    Raises:
        TunerError: if another setting is to be changed, or a value is none.
    """
    for override in overrides:
        part, key = (*override.path, "")[:2]
        if key not in _FREE.get(part, ()) or len(override.path) > 2:
            raise TunerError(
                f"{override.option}: cannot be changed in {name}; allowed are {_ALLOWED} (change "
                f"those in the file and give it with --space)"
            )
        section = getattr(space, part)
        try:
            value = yaml.safe_load(override.text)
            changed = type(section).model_validate({**section.model_dump(), key: value})
        except ValidationError as error:
            message = broken_rule(f"{part}.{key}", error.errors()[0])
            raise TunerError(f"{override.option}: {message}") from error
        except yaml.YAMLError as error:
            raise TunerError(f"{override.option}: {override.text!r} is no value") from error
        space = space.model_copy(update={part: changed})
    return space


def check_edit(old: SearchSpace, new: SearchSpace, name: str) -> None:
    """Whether a search may go on with another space.

    Raises:
        TunerError: if it may not; names what cannot be changed.
    """
    refused = list(_refused(old, new))
    if refused:
        raise TunerError(
            f"the search {name} cannot go on with {listed(refused, 'and')}; allowed changes are "
            f"{_ALLOWED}; for others start a new search"
        )


def _refused(old: SearchSpace, new: SearchSpace) -> Iterator[str]:
    for part in SearchSpace.model_fields:
        before, after = getattr(old, part), getattr(new, part)
        if part in ("model", "hyperparameters"):
            yield from _refused_parameters(part, before, after)
        elif part in _FREE:
            for key in type(before).model_fields:
                if key not in _FREE[part] and getattr(before, key) != getattr(after, key):
                    yield f"another {part}.{key}"
        elif before != after:
            yield f"another {part}"
    if new.search.trials < old.search.trials:
        yield f"fewer search.trials ({new.search.trials} instead of {old.search.trials})"
    population = old.search.scheduler in ("pbt", "pb2")
    if population and new.search.trials != old.search.trials:
        yield "another size of the population"


def _refused_parameters(
    part: str, before: Mapping[str, Parameter], after: Mapping[str, Parameter]
) -> Iterator[str]:
    if list(before) != list(after):
        yield f"other entries of {part} or another order of them"
        return
    for key, old in before.items():
        new = after[key]
        same = old.model_copy(update={"distribution": new.distribution})
        if same != new or ((old.is_constant or new.is_constant) and old != new):
            yield f"another {part}.{key}"
        elif old.distribution.kind != new.distribution.kind:
            yield f"another kind of range for {part}.{key}"


def environment_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two environments, in words; empty if nothing does."""
    changed = (k for k in ENVIRONMENT if before.get(k) != now.get(k))
    return "; ".join(f"{k} {before.get(k)} → {now.get(k)}" for k in changed)


# repeating ---------------------------------------------------------------------------------


def memory_of(events: Sequence[Event], find: Callable[[str], Sequence[Report]]) -> Memory:
    """What was drawn and taken from the record before."""
    trials = [event for event in events if event["event"] == "trial"]
    recorded = {
        event["number"]: find(TrialSpec.model_validate_json(event["spec"]).hash)
        for event in trials
        if event["recorded"]
    }
    return Memory({event["number"]: event["draw"] for event in trials}, recorded)


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
                row = conductor.board.rows[event["number"]]
                if row.spec != TrialSpec.model_validate_json(event["spec"]):
                    raise KeyError(row.number)
            case "report":
                conductor.board.rows[event["number"]].times.append(event["time_ms"])
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
