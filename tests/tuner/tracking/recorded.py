"""Data for trackers in tests, and queries of their stores."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from model.engine.report import Report, Status
from tuner.tracking.record import Record

Tracker = Any

Open = Callable[..., Tracker]
ENVIRONMENT = {
    "device": "cpu: x", "dtype": "float32", "width": "any", "compiled": "no",
    "trainer": "2", "torch": "2", "numpy": "2", "python": "3",
}  # fmt: skip


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 1 / 3, 0.1 + 0.2, 0.01)


def rows(store: str, query: str) -> list[Any]:
    """Return rows of the tables of the store."""
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        return connection.execute(query).fetchall()


def stored_steps(store: str, number: int) -> list[int]:
    """Steps of a trial's reports in the order in which they were written."""
    name = f"lm-1/{number:03d}"
    found = rows(
        store,
        "select step from metrics join runs using (run_uuid) where key = 'tokens' and "
        f"runs.name = '{name}' and lifecycle_stage = 'active' order by metrics.rowid",
    )
    return [step for (step,) in found]


def states(record: Record, search: str = "lm-1") -> list[tuple[int, str, str]]:
    """Number, our status and MLflow's of each trial."""
    trials = record.trials(record.search(search))
    get = record.client.get_run
    return [(t.number, t.status, get(t.run_id).info.status) for t in trials]


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
