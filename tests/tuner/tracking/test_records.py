"""Damaged and hostile records of a store: one sentence each."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.tracking.recorded import Begin, report
from tuner.errors import RecordError, StoreError
from tuner.home.home import Home
from tuner.summaries.searches import current
from tuner.tracking.record import Record
from tuner.tracking.records import search_record, trial_record
from tuner.tracking.tags import Tag
from tuner.trained.recorded_trials import journaled

RUN_ID = "0a" * 16


def run(tags: Any = None, params: Any = None, metrics: Any = None, **info: Any) -> Any:
    values = {
        "run_id": RUN_ID, "experiment_id": "1", "run_name": "lm-1", "start_time": 1_000,
        **info,
    }  # fmt: skip
    data = SimpleNamespace(tags=tags or {}, params=params or {}, metrics=metrics or {})
    return SimpleNamespace(info=SimpleNamespace(**values), data=data)


@pytest.mark.parametrize(
    ("damaged", "read", "problem"),
    [
        (run({Tag.TRIAL: "abc"}), trial_record, "abc cannot be its tag tuner.trial"),
        (run({Tag.CONFIRMS: "1.5"}), trial_record, "its tag tuner.confirms"),
        (run({Tag.STATE: "9" * 5000}), trial_record, "its tag tuner.state_tokens"),
        (run(metrics={"val_loss": "low"}), trial_record, "low cannot be its value of val_loss"),
        (run(metrics={"tokens": 2**70}), trial_record, "its value of tokens"),
        (run(run_id="a b"), trial_record, "a b cannot be its id"),
        (run(start_time=None), search_record, "nothing cannot be its start time"),
        (run(start_time=10**18), search_record, "cannot be its start time"),
        (run(metrics={"best_x": b"1"}), search_record, "cannot be its value of best_x"),
    ],
)
def test_damaged_run_is_one_sentence(
    damaged: Any, read: Callable[[Any], object], problem: str
) -> None:
    with pytest.raises(RecordError, match=problem) as error:
        read(damaged)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def test_missing_and_odd_texts_are_read() -> None:
    trial = trial_record(run({Tag.STATUS: 5, "device": None}, {"B": 8}, {"val_loss": 1}))
    assert (trial.number, trial.status, trial.parameters) == (-1, "5", {"B": "8"})
    assert trial.environment["device"] == "unknown"
    assert search_record(run(metrics={"tokens": float("nan")})).name == "lm-1"


def test_name_that_is_a_path_has_no_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / "runs", "sqlite:///x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "journal.jsonl").touch()
    search = search_record(run({Tag.SEARCH: "../../outside"}))
    assert current(search, home) == search
    assert journaled(home, search) is None
    for name in ("../../outside", "a/b", "..", "\x1b[31m"):
        with pytest.raises(RecordError, match="so it is no name of a search"):
            home.search(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("mysql+nodriver://host/db", "cannot be used"),
        ("postgresql+pg8000://host/db", "its driver pg8000 is not installed"),
        ("foo://host/db", "cannot be used"),
        ("postgresql://host:port/db", "cannot be used"),
        ("http://[::1", "cannot be used"),
    ],
)
def test_store_that_cannot_be_opened_is_one_sentence(uri: str, problem: str) -> None:
    with pytest.raises(StoreError, match=problem) as error:
        Record(uri).searches()
    assert str(error.value).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = 'x'",
        "DROP TABLE tags",
        "UPDATE runs SET lifecycle_stage = 'odd'",
        "UPDATE latest_metrics SET value = 'low'",
        "UPDATE tags SET value = 'abc' WHERE key = 'tuner.trial'",
        None,
    ],
)
def test_damaged_store_is_one_sentence(
    begin_search: Begin, store: str, make_spec: Any, tmp_path: Path, change: str | None
) -> None:
    search = begin_search()
    search.trial(0, make_spec(), report(8, 3.0), outcome="finished")
    search.finish()
    # MLflow looks at the version of a database once
    database = Path(shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "copy.db"))
    if change is None:
        database.write_bytes(b"no database " * 1000)
    else:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints = 1")
            connection.execute(change)
    with pytest.raises((StoreError, RecordError)) as error:
        record = Record(f"sqlite:///{database}")
        record.trials(record.search("lm-1"))
        raise AssertionError("it is read")
    assert str(error.value).isprintable()
