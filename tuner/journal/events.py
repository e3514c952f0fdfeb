"""The events of a journal: what each holds, as JSON and as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from model.engine.report import Report, Status
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace


def search_event(space: SearchSpace, space_text: str, facts: DataFacts) -> Event:
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


Event = dict[str, Any]


def report_event(number: int, report: Report) -> Event:
    """The event that a trial reported."""
    values = {field.name: getattr(report, field.name) for field in fields(Report)}
    return {"event": "report", "number": number, **values, "status": str(report.status)}


def report_of(event: Mapping[str, Any]) -> Report:
    """The report that an event of `report_event` holds, to the last bit."""
    values = {field.name: event[field.name] for field in fields(Report) if field.name in event}
    return Report(**{**values, "status": Status(event["status"])})
