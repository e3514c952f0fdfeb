"""What a message says: the event of a search that it follows from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from tuner.journal.events import NodeLost, SearchStalled, SessionEnded
from tuner.texts.formatting import metric_text


class Subject(StrEnum):
    """What a message is about."""

    FINISHED = "search.finished"
    INTERRUPTED = "search.interrupted"
    FAILED = "search.failed"
    STALLED = "search.stalled"
    CHAMPION = "search.champion"
    NODE_LOST = "search.node_lost"


class NewBest(NamedTuple):
    """A finished trial that is better than all before.

    Attributes:
        number: number of the trial.
        metric: name of the objective.
        value: its value.
        before: value of the best one before; None for the first.
    """

    number: int
    metric: str
    value: float
    before: float | None


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        id: equal for equal messages, also of another driver: whoever gets two needs one.
        subject: what it is about.
        search: name of the search.
        time: time of the event, in seconds since the epoch.
        text: one sentence for people.
        data: numbers for programs.
    """

    id: str
    subject: Subject
    search: str
    time: float
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def as_json(self) -> dict[str, Any]:
        """The payload of a webhook, as Standard Webhooks has it: type, timestamp, data."""
        return {
            "type": str(self.subject),
            "timestamp": datetime.fromtimestamp(self.time, UTC).isoformat(),
            "data": {"search": self.search, "text": self.text, **self.data},
        }


def message_of_end(search: str, end: SessionEnded, digest: str) -> Message:
    """Return the message that a session has ended.

    Args:
        search: name of the search.
        end: the event.
        digest: digest of the journal up to the event.
    """
    subject = Subject(f"search.{end.status}")
    numbers = dict(end.summary)
    text = f"{search} {'has ' if subject is Subject.FAILED else 'is '}{end.status}"
    best = next(((k, v) for k, v in numbers.items() if k.startswith("best_")), None)
    if best is not None:
        text += f": {best[0].removeprefix('best_')} {metric_text(best[1])} in trial {end.best}"
    # JSON has no NaN: a diverged trial may be the best
    summary = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }
    data = {"best_trial": end.best, "limit": end.limit, "halted": end.halted, "summary": summary}
    return Message(f"msg_{digest}", subject, search, end.time_ms / 1000, f"{text}.", data)


def message_of_best(search: str, best: NewBest, time: float, digest: str) -> Message:
    """Return the message that a finished trial is better than all before.

    Args:
        search: name of the search.
        best: the trial.
        time: time of its last report, in seconds since the epoch.
        digest: digest of the journal up to the report.
    """
    number, metric, value, before = best
    text = f"{search}: trial {number} is the best so far, {metric} {metric_text(value)}"
    if before is not None:
        text += f" (before: {metric_text(before)})"
    data = {"best_trial": number, "metric": metric, "value": value, "before": before}
    return Message(f"msg_{digest}-champion", Subject.CHAMPION, search, time, f"{text}.", data)


def message_of_stall(search: str, stall: SearchStalled, digest: str) -> Message:
    """Return the message that a search has not reported for a while."""
    text = (
        f"{search} has had no news for {stall.seconds / 60:.0f} minutes; its driver runs on "
        f"{stall.host}."
    )
    at = stall.time_ms / 1000
    return Message(f"msg_{digest}-stalled", Subject.STALLED, search, at, text)


def message_of_lost_node(search: str, lost: NodeLost, digest: str) -> Message:
    """Return the message that a node with workers of a search is down."""
    where = "its trials go on in other workers, or wait for one"
    text = f"{search}: node {lost.name} is lost; {where}."
    data = {"node": lost.name, "node_id": lost.node_id}
    at = lost.time_ms / 1000
    return Message(f"msg_{digest}-node-lost", Subject.NODE_LOST, search, at, text, data)
