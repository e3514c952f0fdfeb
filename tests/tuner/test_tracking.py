from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.report import Report, Status
from tests.conftest import MakeSpec
from tuner import tracking
from tuner.errors import RecordError, StoreError
from tuner.record import Record
from tuner.tracking import Tracker

Open = Callable[..., Tracker]
ENVIRONMENT = {"device": "cpu: x", "dtype": "float32", "torch": "2", "numpy": "2", "python": "3"}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def open_tracker(store: str, tmp_path: Path) -> Open:
    def make(search: str = "lm-1") -> Tracker:
        return Tracker(store, tmp_path / "artifacts", "lm", search, {"sampler": "tpe"})

    return make


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 1 / 3, 0.1 + 0.2, 0.01)


def test_tracker_keeps_every_bit(open_tracker: Open, store: str, make_spec: MakeSpec) -> None:
    """A replay compares what comes back from the store: NaN and the last digit included."""
    tracker, spec = open_tracker(), make_spec()
    reports = [report(4, math.pi), report(8, 1e-17), report(9, math.nan, Status.DIVERGED)]
    tracker.start_trial(0, spec, ENVIRONMENT)
    for each in reports:
        tracker.report(0, each)
    tracker.end_trial(0, "diverged")
    tracker.flush()
    tracker.finish("finished", {"best_val_loss": 1.0}, tracker.run_of(0))

    record = Record(store)
    trial = record.best(record.search("lm-1"))
    assert record.spec(trial) == spec
    assert trial.status == "diverged"
    assert trial.environment == ENVIRONMENT
    back = record.reports(trial)
    assert [str(m) for m in back.values()] == [str(r.metrics()) for r in reports]
    assert record.client.get_run(trial.run_id).info.status == "FAILED"


def test_tracker_retries_what_the_store_refuses(
    open_tracker: Open, store: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call fails at first; nothing is lost and nothing is there twice."""
    tracker = open_tracker()
    client, failures = tracker._client, dict.fromkeys(("create_run", "log_batch", "log_text"), 1)

    def flaky(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise sqlite3.OperationalError("database is locked")
            return real(*args, **kwargs)

        return call

    for name in failures:
        monkeypatch.setattr(client, name, flaky(name))
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.report(0, report(4, 2.0))
    tracker.end_trial(0, "finished")
    tracker.flush()
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert list(record.reports(trial)) == [4]
    assert not any(failures.values())


def test_tracker_says_when_the_store_stays_away(
    open_tracker: Open, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_tracker()
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 1.5)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tracker._client, "create_run", refuse)
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    with pytest.raises(StoreError, match="lm-1: disk I/O error"):
        tracker.flush()


def test_tracker_refuses_an_unusable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    with pytest.raises(StoreError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/file")


def test_record_finds_searches_and_trials(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    record = Record(store)
    with pytest.raises(RecordError, match="run 'tuner search' first"):
        record.search()
    for name in ("lm-1", "lm-2"):
        tracker = open_tracker(name)
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.end_trial(0, "interrupted")
        tracker.flush()
        tracker.finish("interrupted", {}, None)
    assert [s.name for s in record.searches()] == ["lm-2", "lm-1"]
    assert record.search("lm-1").status == "interrupted"
    with pytest.raises(RecordError, match="no search is called lm-9; the newest are: lm-2, lm-1"):
        record.search("lm-9")
    with pytest.raises(RecordError, match="has no best trial"):
        record.best(record.search("lm-2"))
    (trial,) = record.trials(record.search("lm-1"))
    assert record.trial(trial.run_id[:10]) == trial
    for wrong in ("f" * 32, trial.run_id[:3], "../x", "' OR 1=1"):
        with pytest.raises(RecordError, match="run id"):
            record.trial(wrong)
