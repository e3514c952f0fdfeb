"""Events of a journal, as objects and as JSON.

    search    SearchBegun   the space and the facts of its data; again after each edit
    session   SessionBegun  a driver begins or resumes the search
    trial     TrialBegun    a new trial and its draw
    report    Reported      a report that was taken
    failure   TrialFailed   a trial that cannot continue
    outcome   TrialEnded    how a trial ended; a later one replaces it
    end       SessionEnded  the driver ends

`TrialEnded` and `SessionEnded` follow from the other events; they are for `tuner sync` and
`load_search`. The JSON keys and their order are on disk and must not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from model.engine.report import Report, Status
from model.spec.trial import InitFrom, TrialSpec
from tuner.conductor.clock import TOKENS
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.schedulers.scheduler import RULES
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Event:
    """Base of the events.

    Attributes:
        kind: name of the event in JSON.
        time_ms: milliseconds since the epoch at which the journal took the event; 0 before that.
    """

    kind: ClassVar[str]
    time_ms: int = 0


@dataclass(frozen=True)
class SearchBegun(_Event):
    """A search begins, or its space was edited.

    Attributes:
        space: space to search.
        space_text: text of the file that the space was read from.
        facts: facts of the data that specifications need.
        rules: version of the conductor's decisions.
    """

    kind: ClassVar[str] = "search"
    space: SearchSpace
    space_text: str
    facts: DataFacts
    rules: int = RULES

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        start = self.facts.init_from
        return {
            "event": self.kind,
            "space": self.space.model_dump_json(),
            "space_text": self.space_text,
            "facts": {**asdict(self.facts), "init_from": start.model_dump() if start else None},
            **({} if self.rules == 1 else {"rules": self.rules}),
        }

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        start = data["facts"]["init_from"]
        init_from = None if start is None else InitFrom.model_validate(start)
        return cls(
            SearchSpace.model_validate_json(data["space"]),
            data["space_text"],
            DataFacts(**{**data["facts"], "init_from": init_from}),
            data.get("rules", 1),  # journals of versions before 2 of the rules have no such key
            time_ms=data["time_ms"],
        )


@dataclass(frozen=True)
class SessionBegun(_Event):
    """A driver begins or resumes a search.

    Attributes:
        environment: device and versions of the workers.
        slots: number of trials in training at one time.
        in_order: True if reports are taken in the order of the lanes' clocks.
        epoch: number of the driver's epoch (`journal.epoch`); 0 by earlier versions.
        clock: name of the lanes' clock (`conductor.clock`); earlier versions counted tokens.
    """

    kind: ClassVar[str] = "session"
    environment: Mapping[str, str]
    slots: int
    in_order: bool
    epoch: int = 0
    clock: str = TOKENS

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        return {
            "event": self.kind,
            "environment": dict(self.environment),
            "slots": self.slots,
            "in_order": self.in_order,
            **({"epoch": self.epoch} if self.epoch else {}),
            **({} if self.clock == TOKENS else {"clock": self.clock}),
        }

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        return cls(
            data["environment"], data["slots"], data["in_order"], data.get("epoch", 0),
            data.get("clock", TOKENS), time_ms=data["time_ms"],
        )  # fmt: skip


@dataclass(frozen=True)
class TrialBegun(_Event):
    """A trial was suggested, or is to confirm another one.

    Attributes:
        number: number of the trial.
        draw: values drawn for the trial, label → value.
        spec: specification of the trial.
        parent: number of the trial whose checkpoint the trial continues from.
        confirms: number of the trial whose configuration the trial repeats.
        is_reused: True if the reports of an equal finished trial are reused.
        environment: device and versions of its worker, if they differ from those of the session;
            None if they do not.
    """

    kind: ClassVar[str] = "trial"
    number: int
    draw: Mapping[str, Value]
    spec: TrialSpec
    parent: int | None = None
    confirms: int | None = None
    is_reused: bool = False
    environment: Mapping[str, str] | None = None

    @classmethod
    def of_trial(cls, trial: Trial, environment: Mapping[str, str] | None = None) -> Self:
        """Return the event that a trial begins."""
        return cls(
            trial.number, trial.draw, trial.spec, trial.parent, trial.confirms,
            bool(trial.reused), environment,
        )  # fmt: skip

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        return {
            "event": self.kind,
            "number": self.number,
            "draw": dict(self.draw),
            "spec": self.spec.model_dump_json(),
            "parent": self.parent,
            "confirms": self.confirms,
            "recorded": self.is_reused,
            **({} if self.environment is None else {"environment": dict(self.environment)}),
        }

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        spec = TrialSpec.model_validate_json(data["spec"])
        return cls(
            data["number"], data["draw"], spec, data["parent"], data["confirms"], data["recorded"],
            data.get("environment"), time_ms=data["time_ms"],
        )  # fmt: skip


@dataclass(frozen=True)
class Reported(_Event):
    """A report was taken.

    Attributes:
        number: number of the trial.
        report: report of the trial.
    """

    kind: ClassVar[str] = "report"
    number: int
    report: Report

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        values = {field.name: getattr(self.report, field.name) for field in fields(Report)}
        values["status"] = str(self.report.status)
        return {"event": self.kind, "number": self.number, **values}

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON; the numbers are equal to the last bit."""
        # fields that a later version has added say nothing to this one
        values = {f.name: data[f.name] for f in fields(Report) if f.name in data}
        report = Report(**{**values, "status": Status(data["status"])})
        return cls(data["number"], report, time_ms=data["time_ms"])


@dataclass(frozen=True)
class TrialFailed(_Event):
    """A trial cannot continue.

    Attributes:
        number: number of the trial.
        reason: why the trial cannot continue.
    """

    kind: ClassVar[str] = "failure"
    number: int
    reason: str

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        return {"event": self.kind, "number": self.number, "reason": self.reason}

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        return cls(data["number"], data["reason"], time_ms=data["time_ms"])


@dataclass(frozen=True)
class TrialEnded(_Event):
    """A trial ended, or the search halted before the trial's end.

    Attributes:
        number: number of the trial.
        outcome: how the trial ended.
    """

    kind: ClassVar[str] = "outcome"
    number: int
    outcome: Outcome

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        return {"event": self.kind, "number": self.number, "outcome": str(self.outcome)}

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        return cls(data["number"], Outcome.parse(data["outcome"]), time_ms=data["time_ms"])


@dataclass(frozen=True)
class SessionEnded(_Event):
    """A driver ends.

    Attributes:
        status: status of the search: finished, interrupted or failed.
        summary: numbers of the result, name → value.
        best: number of the best trial; None if there is no result. Then all attributes below are
            empty, and JSON leaves them out.
        first_turn: seconds since the epoch at which the first worker began to train.
        kept: numbers of the trials whose checkpoints are kept.
        limit: name of the limit that the search reached.
        halted: reason why the search halted before its end.
        advice: recommendations for the next search.
        weights: number of a trial → SHA-256 of its kept checkpoint, of those that this session
            has; journals of earlier versions have none.
    """

    kind: ClassVar[str] = "end"
    status: str
    summary: Mapping[str, float] = field(default_factory=dict)
    best: int | None = None
    first_turn: float | None = None
    kept: Sequence[int] = ()
    limit: str | None = None
    halted: str | None = None
    advice: Sequence[str] = ()
    weights: Mapping[int, str] = field(default_factory=dict)

    @property
    def as_json(self) -> Json:
        """The event as JSON, without its time."""
        end = {"event": self.kind, "status": self.status, "summary": dict(self.summary)}
        if self.best is None:
            return {**end, "best": None}
        return {
            **end,
            "first_turn": self.first_turn,
            "best": self.best,
            "kept": list(self.kept),
            "limit": self.limit,
            "halted": self.halted,
            "advice": list(self.advice),
            **({"weights": dict(self.weights)} if self.weights else {}),
        }

    @classmethod
    def of(cls, data: Json) -> Self:
        """Read the event from JSON."""
        if data["best"] is None:
            return cls(data["status"], data["summary"], time_ms=data["time_ms"])
        weights = {int(number): sha256 for number, sha256 in data.get("weights", {}).items()}
        return cls(
            data["status"], data["summary"], data["best"], data["first_turn"], data["kept"],
            data["limit"], data["halted"], data["advice"], weights, time_ms=data["time_ms"],
        )  # fmt: skip


Event = SearchBegun | SessionBegun | TrialBegun | Reported | TrialFailed | TrialEnded | SessionEnded

_EVENTS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        SearchBegun, SessionBegun, TrialBegun, Reported, TrialFailed, TrialEnded, SessionEnded
    )
}  # fmt: skip


def read_event(data: Json) -> Event:
    """Read any event from JSON.

    Raises:
        KeyError, TypeError, ValueError: if another version of tuner wrote the event.
    """
    return _EVENTS[data["event"]].of(data)
