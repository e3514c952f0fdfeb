"""Checks that events are such as a driver writes, before anything relies on them.

A checksum that fits says nothing: whoever edits a line can compute it again. What is read from a
journal afterwards needs values of the right types, and trials that began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter

from model.engine.report import Report
from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import TrialSpec
from tuner.conductor.clock import CLOCKS
from tuner.conductor.outcome import Outcome
from tuner.errors import JournalError
from tuner.formatting import shown
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEnded,
    TrialFailed,
)
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Range, Value
from tuner.space.space import SearchSpace

_END_OF_TIME = 4_102_444_800_000  # the year 2100, in milliseconds since the epoch
_MOST_SLOTS = 1_000_000
_MADE = (SearchSpace, DataFacts, TrialSpec, Report, Outcome)  # by `of`, which checks them
_LARGEST = 2**63  # of whole numbers: those of MLflow's databases


def check_event(event: Event) -> None:
    """Check the values of an event.

    Raises:
        ValueError: if no driver writes such an event.
    """
    _check_types(event)
    if not 0 <= event.time_ms < _END_OF_TIME:
        raise ValueError(f"the time {event.time_ms}")
    match event:
        case SearchBegun():
            _check_types(event.facts)
            _check_space(event.space)
        case SessionBegun() if not 1 <= event.slots <= _MOST_SLOTS:
            raise ValueError(f"{event.slots} slots")
        case SessionBegun() if event.clock not in CLOCKS:
            raise ValueError(f"the clock {shown(event.clock)}")
        case Reported():
            _check_types(event.report)
        case SessionEnded():
            if not 0 <= (seconds := event.summary.get("wall_seconds", 0.0)) < _END_OF_TIME:
                raise ValueError(f"{seconds} seconds")


def check_order(events: Sequence[Event]) -> None:
    """Check that events follow each other as a driver writes them.

    Raises:
        JournalError: if a trial is named before it began, or an event precedes the search.
    """
    space: SearchSpace | None = None
    begun: set[int] = set()
    for number, event in enumerate(events, start=1):
        if isinstance(event, SearchBegun):
            space = event.space
        try:
            if space is None:
                raise ValueError("the search has not begun")
            if unknown := set(_named(event)) - begun - {None}:
                raise ValueError(f"trial {unknown.pop()} has not begun")
            if isinstance(event, TrialBegun):
                _check_draw(space, event.draw)
                begun.add(event.number)
        except ValueError as error:
            raise JournalError(
                f"the journal contradicts itself at event {number}: {error}; it was edited, "
                f"restore it: the artifacts of the search in MLflow have a copy"
            ) from error


def _named(event: Event) -> Sequence[int | None]:
    """Return the trials that an event names and that must have begun before it."""
    match event:
        case TrialBegun():
            return event.parent, event.confirms
        case Reported() | TrialFailed() | TrialEnded():
            return (event.number,)
        case SessionEnded():
            return event.best, *event.kept, *event.weights
    return ()


def _check_types(value: Event | Report | DataFacts) -> None:
    """Raise ValueError if a field has a value of another type than its annotation."""
    for name, kind in _kinds(cast(Any, type(value))).items():
        item = getattr(value, name)
        kind.validate_python(item, strict=True)
        if isinstance(item, int) and abs(item) >= _LARGEST:
            raise ValueError(f"{name} is too large")


@cache
def _kinds(kind: type) -> Mapping[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if hints[field.name] not in _MADE]
    return {name: TypeAdapter(hints[name]) for name in names}


def _check_space(space: SearchSpace) -> None:
    known = {*SYMBOL_TABLE, *Architecture.model_fields}
    for parameter in (*space.model.values(), *space.hyperparameters.values()):
        names = {parameter.name, *parameter.when, parameter.fraction_of or parameter.name}
        if not names <= known:
            raise ValueError(f"unknown parameter {min(names - known)}")
        d = parameter.distribution
        if isinstance(d, Range) and not (d.low <= d.high and (d.low > 0 or not d.is_log)):
            raise ValueError(f"{parameter.name} has no range from {d.low} to {d.high}")
    space.parameters  # noqa: B018 - raises ValueError if conditions form a circle


def _check_draw(space: SearchSpace, draw: Mapping[str, Value]) -> None:
    """Raise ValueError if a value that a range gave is no finite number."""
    ranges = {p.label for p in space.parameters if isinstance(p.distribution, Range)}
    for label in ranges & draw.keys():
        value = draw[label]
        if isinstance(value, str | bool) or not math.isfinite(value):
            raise ValueError(f"{label} is {value!r}")
