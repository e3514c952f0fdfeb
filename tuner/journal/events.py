"""Events of a journal: every decision about a search, and everything else that a reader shows.

    search    SearchBegun     the space and the facts of its data
    edit      SearchEdited    another space, from here on
    session   SessionBegun    a driver begins or resumes the search
    trial     TrialBegun      a new trial and its draw
    resume    TrialResumed    a paused trial trains again
    report    Reported        a report, and what was decided about its trial
    failure   TrialFailed     a trial that cannot continue
    workers   WorkersChanged  how many workers are up
    node      NodeLost        a node of the cluster is down
    stall     SearchStalled   no report has come for long
    message   MessageSent     one sentence about the complete search, for people
    end       SessionEnded    the driver ends

Readers need no conductor: `Reported`, `TrialBegun` and `TrialResumed` carry its decisions. How the
trials ended that a session leaves open follows from the status of `SessionEnded`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import field
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
)
from pydantic.dataclasses import dataclass

from model.engine.report import Report
from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import TrialSpec
from tuner.conductor.clock import CLOCKS, TOKENS
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.samplers.arms import arms_of
from tuner.schedulers.scheduler import Decision
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Range, Value
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown

Json = dict[str, Any]

_END_OF_TIME = 4_102_444_800_000  # the year 2100, in milliseconds since the epoch
_LARGEST = 2**63 - 1  # of whole numbers: those of MLflow's databases
_STRICT = ConfigDict(extra="forbid")

Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Texts = Mapping[str, str]
# A text in the line: pydantic writes and reads it seven times as fast as an object of 60 fields.
_Spec = Annotated[
    TrialSpec,
    BeforeValidator(
        lambda spec: TrialSpec.model_validate_json(spec) if isinstance(spec, str) else spec
    ),
    PlainSerializer(lambda spec: spec.model_dump_json()),
]
_Outcome = Annotated[
    Outcome,
    PlainValidator(
        lambda value: value if isinstance(value, Outcome) else Outcome.parse(str(value))
    ),
    PlainSerializer(str),
]


@dataclass(frozen=True, config=_STRICT)
class _Event:
    """Base of the events.

    Attributes:
        time_ms: milliseconds since the epoch at which the journal took the event; 0 before that.
    """

    time_ms: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.time_ms < _END_OF_TIME:
            raise ValueError(f"the time {self.time_ms}")


@dataclass(frozen=True, config=_STRICT)
class SearchBegun(_Event):
    """A search begins.

    Attributes:
        space: space to search.
        space_text: text of the file that the space was read from.
        facts: facts of the data that specifications need.
        start: what the trials start from, for people; empty for random weights.
        proposals: what was learned from earlier searches; nothing reads these again.
        memory_bytes: memory for one trial; 0 if it is not known, so that every trial is tried.
    """

    space: SearchSpace
    space_text: str
    facts: DataFacts
    start: str = ""
    proposals: Proposals = NOTHING
    memory_bytes: Count = 0
    event: Literal["search"] = field(default="search", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_space(self.space)
        for draw in self.proposals.draws:
            check_draw(self.space, draw)


@dataclass(frozen=True, config=_STRICT)
class SearchEdited(_Event):
    """The space was edited; later decisions follow the new one.

    Attributes:
        space: space from here on.
        space_text: text of the file that the space was read from.
        is_live: True if a driver took the edit while its session ran, and filled its lanes at once;
            False if the next session begins with it.
    """

    space: SearchSpace
    space_text: str
    is_live: bool = False
    event: Literal["edit"] = field(default="edit", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_space(self.space)


@dataclass(frozen=True, config=_STRICT)
class SessionBegun(_Event):
    """A driver begins or resumes a search.

    Attributes:
        environment: device and versions of the workers.
        slots: number of trials in training at one time.
        in_order: True if reports are taken in the order of the lanes' clocks.
        epoch: number of the driver's epoch (`journal.lease`).
        clock: name of the lanes' clock (`conductor.clock`).
    """

    environment: Texts
    slots: Annotated[int, Field(ge=1, le=1_000_000)]
    in_order: bool
    epoch: Count = 1
    clock: str = TOKENS
    event: Literal["session"] = field(default="session", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clock not in CLOCKS:
            raise ValueError(f"the clock {shown(self.clock)}")


@dataclass(frozen=True, config=_STRICT)
class TrialBegun(_Event):
    """A trial was suggested, cools down from another one, or is to confirm one.

    Attributes:
        number: number of the trial.
        draw: values drawn for the trial, label → value.
        spec: specification of the trial.
        parent: number of the trial whose checkpoint the trial continues from.
        confirms: number of the trial whose configuration the trial repeats.
        is_reused: True if the reports of an equal finished trial are reused.
        same_as: number of an earlier trial of the search that has this specification; such a trial
            ends at once.
        infeasible: why the trial does not fit into memory; empty if it does. Such a trial ends at
            once.
        environment: device and versions of its worker, if they differ from those of the session;
            None if they do not.
    """

    number: Count
    draw: Mapping[str, Value]
    spec: _Spec
    parent: Count | None = None
    confirms: Count | None = None
    is_reused: bool = False
    same_as: Count | None = None
    infeasible: str = ""
    environment: Texts | None = None
    event: Literal["trial"] = field(default="trial", kw_only=True)

    @classmethod
    def of_trial(cls, trial: Trial, environment: Texts | None = None) -> TrialBegun:
        """Return the event that a trial begins."""
        detail = trial.outcome.detail if trial.outcome else ""
        return cls(
            trial.number, trial.draw, trial.spec, trial.parent, trial.confirms,
            bool(trial.reused), int(detail) if trial.is_duplicate else None,
            detail if trial.is_infeasible else "", environment,
        )  # fmt: skip


@dataclass(frozen=True, config=_STRICT)
class TrialResumed(_Event):
    """A paused trial trains again.

    Attributes:
        number: number of the trial.
    """

    number: Count
    event: Literal["resume"] = field(default="resume", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class Reported(_Event):
    """A report was taken.

    Attributes:
        number: number of the trial.
        report: report of the trial.
        decision: whether the trial continues.
        outcome: how the trial ended, if the report or the decision ended it.
    """

    number: Count
    report: Report
    decision: Decision = Decision.CONTINUE
    outcome: _Outcome | None = None
    event: Literal["report"] = field(default="report", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.report.step <= _LARGEST and 0 <= self.report.tokens <= _LARGEST):
            raise ValueError("a report beyond all updates")


@dataclass(frozen=True, config=_STRICT)
class TrialFailed(_Event):
    """A trial cannot continue.

    Attributes:
        number: number of the trial.
        reason: why the trial cannot continue.
    """

    number: Count
    reason: str
    event: Literal["failure"] = field(default="failure", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class WorkersChanged(_Event):
    """Workers came or were lost.

    Attributes:
        up: number of workers that can train trials.
        number: number of workers of the search.
    """

    up: Count
    number: Count
    event: Literal["workers"] = field(default="workers", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class NodeLost(_Event):
    """A node of the cluster is down that had workers of the search.

    Attributes:
        node_id: id that Ray gave to the node; one that comes back gets another.
        name: host name, and address.
    """

    node_id: str
    name: str
    event: Literal["node"] = field(default="node", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class SearchStalled(_Event):
    """No report has come for long.

    Attributes:
        seconds: time since the newest report.
        host: host of the driver.
    """

    seconds: float
    host: str
    event: Literal["stall"] = field(default="stall", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class MessageSent(_Event):
    """One sentence about the complete search, for people.

    Attributes:
        text: the sentence.
    """

    text: str
    event: Literal["message"] = field(default="message", kw_only=True)


@dataclass(frozen=True, config=_STRICT)
class SessionEnded(_Event):
    """A driver ends.

    If the status is finished, paused trials count as stopped at their newest reports; all other
    trials that have not ended are interrupted.

    Attributes:
        status: status of the search: finished, interrupted or failed.
        summary: numbers of the result, name → value.
        best: number of the best trial; None if there is no result.
        first_turn: seconds since the epoch at which the first worker began to train.
        kept: numbers of the trials whose checkpoints are kept.
        limit: name of the limit that the search reached.
        halted: reason why the search halted before its end.
        advice: recommendations for the next search.
        weights: number of a trial → SHA-256 of its kept checkpoint, of those that this session has.
    """

    status: Literal["finished", "interrupted", "failed"]
    summary: Mapping[str, float] = field(default_factory=dict)
    best: Count | None = None
    first_turn: float | None = None
    kept: tuple[Count, ...] = ()
    limit: str | None = None
    halted: str | None = None
    advice: tuple[str, ...] = ()
    weights: Mapping[Count, str] = field(default_factory=dict)
    event: Literal["end"] = field(default="end", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= (seconds := self.summary.get("wall_seconds", 0.0)) < _END_OF_TIME:
            raise ValueError(f"{seconds} seconds")


TrialEvent = TrialBegun | TrialResumed | Reported | TrialFailed
Event = (
    SearchBegun
    | SearchEdited
    | SessionBegun
    | TrialEvent
    | WorkersChanged
    | NodeLost
    | SearchStalled
    | MessageSent
    | SessionEnded
)

_ANY = TypeAdapter[Event](Annotated[Event, Field(discriminator="event")])
# A union writes whole numbers of a nested union as floats (pydantic 2); each kind alone does not.
_KINDS = {kind: TypeAdapter(kind) for kind in get_args(Event)}


def read_event(data: Json) -> Event:
    """Read any event from JSON.

    Raises:
        ValueError: if no driver of this version writes such an event.
    """
    return _ANY.validate_python(data)


def at_time(event: Event, time_ms: int) -> Event:
    """Return an event with the time at which the journal takes it."""
    timed = copy(event)  # `replace` would check all fields again
    object.__setattr__(timed, "time_ms", time_ms)
    return timed


def as_json(event: Event) -> Json:
    """Return an event as JSON; its kind comes first, its time last."""
    values = cast(Json, _KINDS[type(event)].dump_python(event, mode="json"))
    kind, time_ms = values.pop("event"), values.pop("time_ms")
    return {"event": kind, **values, "time_ms": time_ms}


def _check_space(space: SearchSpace) -> None:
    """Check what a file is checked for when it is read, as far as later code relies on it.

    Raises:
        ValueError: if the space names what nothing has, or has an empty range.
    """
    known = {*SYMBOL_TABLE, *Architecture.model_fields}
    for parameter in (*space.model.values(), *space.hyperparameters.values()):
        names = {parameter.name, *parameter.when, parameter.fraction_of or parameter.name}
        if not names <= known:
            raise ValueError(f"unknown parameter {min(names - known)}")
        d = parameter.distribution
        if isinstance(d, Range) and not (d.low <= d.high and (d.low > 0 or not d.is_log)):
            raise ValueError(f"{parameter.name} has no range from {d.low} to {d.high}")
    space.parameters  # noqa: B018 - raises ValueError if conditions form a circle
    arms_of(space)  # likewise if `compare:` has none


def check_draw(space: SearchSpace, draw: Mapping[str, Value]) -> None:
    """Check that the values which ranges gave are finite numbers.

    Raises:
        ValueError: if one is not.
    """
    ranges = {p.label for p in space.parameters if isinstance(p.distribution, Range)}
    for label in ranges & draw.keys():
        value = draw[label]
        if isinstance(value, str | bool) or not math.isfinite(value):
            raise ValueError(f"{label} is {value!r}")
