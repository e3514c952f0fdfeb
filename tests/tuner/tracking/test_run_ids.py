"""The runs of a search, read from the tables of MLflow, are those that MLflow finds."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import Begin
from tuner.errors import RecordError
from tuner.tracking.record import Record
from tuner.tracking.run_ids import NotReadable, read_names, read_run_ids
from tuner.tracking.tags import Tag


@pytest.mark.slow
def test_runs_are_those_that_mlflow_finds(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    for name in ("lm-1", "lm-2"):
        begun = begin_search(name)
        for number in range(3):
            begun.begin(number, make_spec(seed=number))
        begun.finish()
    record = Record(store)
    search = record.search("lm-1")
    record.client.delete_run(record.trial("lm-1/2").run_id)
    found = {trial.number: trial.run_id for trial in record.trials(search)}
    assert list(found) == [0, 1]
    assert read_run_ids(store, search.run_id) == record.run_ids(search) == found
    with closing(connect(store.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE tags SET value = 'x' WHERE key = 'tuner.trial'")
    with pytest.raises(NotReadable):
        read_run_ids(store, search.run_id)
    with pytest.raises(RecordError, match="x cannot be its tag"):
        record.run_ids(search)


def test_other_stores_are_read_by_mlflow(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    for uri in ("http://127.0.0.1:1", f"sqlite:///{tmp_path}/file", f"sqlite:///{tmp_path}/none"):
        with pytest.raises(NotReadable):
            read_run_ids(uri, "0" * 32)
    assert not (tmp_path / "none").exists()


def test_ids_that_cannot_be_ids_of_runs_are_left_to_mlflow(tmp_path: Path) -> None:
    """Run ids become parts of commands and addresses."""
    uri = f"sqlite:///{tmp_path}/store.db"
    assert read_names(uri) == set()
    with closing(connect(tmp_path / "store.db")) as database:
        database.execute("CREATE TABLE runs (run_uuid, lifecycle_stage, start_time)")
        database.execute("CREATE TABLE tags (key, value, run_uuid)")

        def add(run: str, number: str, stage: str = "active", time: int = 0) -> None:
            tags = {Tag.PARENT: "parent", Tag.TRIAL: number, Tag.SEARCH: "lm-1"}
            rows = [(str(key), value, run) for key, value in tags.items()]
            with database:
                database.execute("INSERT INTO runs VALUES (?, ?, ?)", (run, stage, time))
                database.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)

        add("a1", "0", time=5)
        add("a2", "0", time=7)
        add("b1", "1", stage="deleted")
        assert read_run_ids(uri, "parent") == {0: "a1"}  # the older run of a trial
        assert read_run_ids(uri, "other") == {}
        assert read_names(uri) == {"lm-1"}
        for run, number in (("; rm", "2"), ("c1", "x")):
            add(run, number)
            with pytest.raises(NotReadable):
                read_run_ids(uri, "parent")
            with database:
                database.execute("DELETE FROM runs WHERE run_uuid = ?", (run,))
        assert read_run_ids(uri, "parent") == {0: "a1"}
