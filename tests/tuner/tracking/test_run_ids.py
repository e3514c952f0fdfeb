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
from tuner.tracking.run_ids import NotReadable, read_run_ids


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
