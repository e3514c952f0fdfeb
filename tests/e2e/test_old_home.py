"""A record is a promise: a home made by commit 61b80c3 replays, resumes and serves its model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Workplace

HOME = Path("/tmp/home-61b80c3")
ARCHIVE = Path(__file__).parent / "homes" / "61b80c3.tar.xz"


@pytest.fixture(scope="module")
def old() -> Iterator[Workplace]:
    """The home where it was made; a lock keeps other test runs on this machine out."""
    with Path(f"{HOME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(HOME, ignore_errors=True)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(HOME.parent, filter="data")
        yield Workplace(HOME)
        shutil.rmtree(HOME, ignore_errors=True)


def reports_of(journal: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Trial and step → the report, without what depends on time."""
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    volatile = {"crc", "after", "time_ms", "checkpoint", "seconds", "tokens_per_second"}
    return {
        (e["number"], e["step"]): {k: v for k, v in e.items() if k not in volatile}
        for e in events
        if e["event"] == "report"
    }


def outcomes_of(journal: Path) -> dict[int, str]:
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return {e["number"]: e["outcome"] for e in events if e["event"] == "outcome"}


@pytest.mark.slow
def test_old_home_replays(old: Workplace) -> None:
    run = old.tuner("replay", "--search", "small-1", "--json")
    assert run.status == 0, run.err
    same_machine = not run.json["changed"]
    assert run.json["verdict"] == ("bit-exact" if same_machine else "within tolerance")
    assert run.json["reports"] == 6


@pytest.mark.slow
def test_replay_does_not_trust_the_prepared_copy_of_the_data(old: Workplace) -> None:
    """Whoever edits a home can edit a checksum too. The data are prepared anew."""
    (meta,) = (old.home / "corpora").glob("*/meta.json")
    untouched = meta.read_bytes()
    tokens = meta.with_name("train.npy")
    genuine = tokens.read_bytes()
    array = np.load(tokens)
    np.save(tokens, np.full_like(array, array[0]))
    digest = {"train.npy": hashlib.sha256(tokens.read_bytes()).hexdigest()}
    facts = json.loads(untouched)
    meta.write_text(json.dumps({**facts, "sha256": facts["sha256"] | digest}), encoding="utf-8")
    try:
        run = old.tuner("replay", "--search", "small-1")
        copy = old.tuner("replay", "--search", "small-1", "--prepared")
    finally:
        meta.write_bytes(untouched)
        tokens.write_bytes(genuine)
    assert run.status == 0, run.err
    assert "different" in copy.out
    assert copy.status == 1


@pytest.mark.slow
def test_replay_refuses_an_edited_record(old: Workplace) -> None:
    """Numbers that `show` prints, which are beside the curves that a replay compares."""
    with closing(sqlite3.connect(old.home / "mlflow.db")) as database:
        query = "SELECT run_uuid, value FROM latest_metrics WHERE key = 'val_loss'"
        values = dict(database.execute(query).fetchall())
        change = "UPDATE latest_metrics SET value = ? WHERE key = 'val_loss' AND run_uuid = ?"
        database.executemany(change, [(1.234, run) for run in values])
        database.commit()
        run = old.tuner("replay", "--search", "small-1")
        database.executemany(change, [(value, run) for run, value in values.items()])
        database.commit()
    assert run.status == 2
    assert "contradicts itself: val_loss is" in run.err


@pytest.mark.slow
def test_old_home_resumes_a_killed_search(old: Workplace) -> None:
    """The resumed search trains what 61b80c3 itself trained when it resumed the same journal."""
    run = old.tuner("search", "--resume", "cut-1", "--json")
    assert run.status == 0, run.err
    journal = old.home / "searches" / "cut-1" / "journal.jsonl"
    expected, found = reports_of(HOME / "cut-resumed.jsonl"), reports_of(journal)
    if "their last bits may differ" in run.err:  # another processor than the home was made on
        assert math.isclose(
            found[0, max(step for number, step in found if number == 0)]["val_loss"],
            expected[0, max(step for number, step in expected if number == 0)]["val_loss"],
            rel_tol=0.02,
        )
        return
    assert found == expected
    assert outcomes_of(journal) == outcomes_of(HOME / "cut-resumed.jsonl")


@pytest.mark.slow
def test_old_home_serves_its_registered_model(
    old: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old.home}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/small@champion")
    (text,) = served.predict(["a"], params={"max_tokens": 8, "temperature": 0.0})
    assert isinstance(text, str)
    assert text
