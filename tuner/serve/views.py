"""What the API answers, as pydantic models: OpenAPI is made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tuner.jobs.status import SearchStatus
from tuner.serve.queue import Priority, Wait
from tuner.serve.records import QueuedSearch

STATES = (
    "waiting", "starting", "running", "pausing", "paused", "stopping", "stopped", "interrupted",
    "finished", "failed", "unknown",
)  # fmt: skip
ENDED = ("stopped", "interrupted", "finished", "failed")


class MistakeView(BaseModel):
    """A mistake of a request.

    Attributes:
        line: line of the space, from 1; 0 for a mistake of something else.
        column: column of the space, from 1.
        message: one sentence.
    """

    line: int
    column: int
    message: str


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    message: str


class SearchView(BaseModel):
    """A search.

    Attributes:
        name: name of the search.
        state: `waiting`, `starting`, `running`, `pausing`, `paused`, `stopping`, `stopped` (it can
            go on), `interrupted` (its driver was killed), `finished`, `failed`, or `unknown`.
        position: place in the queue, from 1; None unless it waits.
        waits_for: why it waits; None unless it does.
        begins_at: when it will probably begin, in seconds since the epoch.
        owner: who submitted it; empty if a command began it.
        visibility: who else sees it.
        priority: its class.
        devices: number of devices that it has.
        best: value of the best trial.
        best_trial: number of that trial.
        metric: name of the objective's metric.
        trials_done: number of trials that have ended.
        trials: number of trials that will run, as known so far.
        tokens: training tokens up to the newest reports.
        tokens_per_second: training tokens per second of late.
        seconds_left: estimate of the remaining seconds.
        submitted: when it was submitted, in seconds since the epoch.
        newest: time of the newest event of its journal.
        driver: which process of which machine runs it; empty if none does.
        problem: why it failed, or has no numbers.
    """

    name: str
    state: str
    position: int | None = None
    waits_for: str | None = None
    begins_at: float | None = None
    owner: str = ""
    visibility: str = "public"
    priority: str = "normal"
    devices: int = 0
    best: float | None = None
    best_trial: int | None = None
    metric: str = ""
    trials_done: int = 0
    trials: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    submitted: float | None = None
    newest: float | None = None
    driver: str = ""
    problem: str | None = None

    @classmethod
    def of(
        cls, name: str, entry: QueuedSearch | None, status: SearchStatus | None, wait: Wait | None
    ) -> SearchView:
        """Put together what the database, the journal and the queue say of a search."""
        values: dict[str, Any] = {"name": name, "state": state_of(entry, status)}
        if status is not None:
            values |= _numbers(status)
        if entry is not None:
            values |= {
                "owner": entry.owner,
                "visibility": entry.visibility,
                "priority": Priority(entry.priority).name.lower(),
                "devices": len(entry.device_numbers),
                "submitted": entry.submitted,
                "problem": entry.problem or values.get("problem"),
            }
        if values["state"] == "waiting":
            seen = wait or Wait(0, "the queue looks at it in a moment")
            values |= {
                "position": seen.position or None,
                "waits_for": seen.reason,
                "begins_at": seen.begins_at,
            }
        return cls(**values)


class ConflictView(SearchView):
    """The earlier search because of which another one was refused, and the reason."""

    message: str


class SearchList(BaseModel):
    """Some searches.

    Attributes:
        searches: the searches, the newest first.
        next: `page` of the request for the next ones; None at the end.
    """

    searches: list[SearchView]
    next: str | None = None


class QueueView(BaseModel):
    """The searches that wait, in the order in which they will begin, and those that run."""

    running: list[SearchView]
    waiting: list[SearchView]
    devices: int


class CurveView(BaseModel):
    """The values of the objective of a trial, at reports.

    Attributes:
        trial: number of the trial.
        tokens: training tokens at the reports.
        values: values there; None where they are not finite.
        place: number of its newest report among those of the complete budget; 0 without one.
        ending: `finished`, `stopped`, `diverged`, `unfinished` or `paused`; empty while it trains.
    """

    trial: int
    tokens: list[int]
    values: list[float | None]
    place: int = 0
    ending: str = ""


class CurvesView(BaseModel):
    """Curves of the trials of a search, up to an event of its journal, counted from 1."""

    metric: str
    curves: list[CurveView]
    num_events: int = 0


class FileView(BaseModel):
    """A file of a search that can be downloaded."""

    name: str
    bytes: int


class FileList(BaseModel):
    """Files of a search."""

    files: list[FileView]


class UploadView(BaseModel):
    """A file of data that was sent: the path that `data.files` may name."""

    path: str
    bytes: int


class AuditView(BaseModel):
    """A change that somebody made."""

    at: float
    user: str
    action: str
    search: str
    detail: str


def state_of(entry: QueuedSearch | None, status: SearchStatus | None) -> str:
    """Return the state of a search."""
    known = "unknown" if status is None else status.state
    if entry is None:
        return known
    leaving = {"pause": "pausing", "stop": "stopping"}.get(entry.asked or entry.wanted)
    if status is not None and status.driver:
        return leaving or known
    if entry.devices and known != "finished":
        return leaving or "starting"
    if entry.problem:
        return "failed"
    wanted: Mapping[str, str] = {"run": "waiting", "pause": "paused", "stop": "stopped"}
    return wanted.get(entry.wanted, known)


def _numbers(status: SearchStatus) -> Mapping[str, object]:
    best = status.best if status.best is not None and math.isfinite(status.best) else None
    left = status.seconds_left
    return {
        "best": best,
        "best_trial": status.best_trial,
        "metric": status.metric,
        "trials_done": status.ended,
        "trials": status.trials,
        "tokens": status.tokens,
        "tokens_per_second": status.tokens_per_second,
        "seconds_left": left if left is not None and math.isfinite(left) else None,
        "newest": status.newest,
        "driver": status.driver,
        "problem": status.problem,
    }
