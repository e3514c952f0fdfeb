"""A record is a promise: a home made by commit 61b80c3 replays, resumes and serves its model.

It does so in another place than where it was made, together with its data.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Workplace

PLACE = "/tmp/home-61b80c3"  # where it was made
ARCHIVE = Path(__file__).parent / "homes" / "61b80c3.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the home and its data, as they were made."""
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / Path(PLACE).name


@pytest.fixture(scope="module")
def old(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The home in another place."""
    folder = tmp_path_factory.mktemp("ein anderer Ort ü") / "place"
    return Workplace(Path(shutil.copytree(unpacked, folder)))


def digests(folder: Path) -> dict[str, str]:
    """File → digest, of all files of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stored_paths(home: Path) -> list[str]:
    """The places of all runs and models in the store."""
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        queries = (
            "SELECT artifact_uri FROM runs", "SELECT source FROM model_versions",
            "SELECT artifact_location FROM logged_models",
            "SELECT artifact_location FROM experiments WHERE name != 'Default'",
        )  # fmt: skip
        return [path for query in queries for (path,) in store.execute(query)]


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
def test_old_home_is_read_in_another_place(old: Workplace, tmp_path: Path) -> None:
    assert all(path.startswith(f"file://{PLACE}") for path in stored_paths(old.home))
    shown = old.tuner("show", "--search", "small-1", "--json")
    assert f"the home {old.home} was at {PLACE}/runs before: corrected 15 paths" in shown.err
    assert all(path.startswith(f"{old.home.as_uri()}/") for path in stored_paths(old.home))
    for command in (
        ["list"],
        ["show", "small-1/0"],
        ["compare", "small-1/0", "small-1/1"],
        ["generate", "--search", "small-1", "--prompt", "a", "--max-tokens", "4"],
        ["export", "--search", "small-1", "--output", str(tmp_path / "model")],
        ["report", "--search", "small-1", "--output", str(tmp_path / "report.html")],
    ):
        run = old.tuner(*command)
        assert (run.status, "was at" in run.err) == (0, False), (command, run.err)


@pytest.mark.slow
def test_copy_of_a_home_is_written_and_the_original_is_not(old: Workplace, tmp_path: Path) -> None:
    original = digests(old.folder)
    copy = Workplace(Path(shutil.copytree(old.folder, tmp_path / "copy")))
    synced = copy.tuner("sync", "--json")
    assert synced.status == 0, synced.err
    assert synced.json["sent"]["cut-1"]["files"]
    assert digests(old.folder) == original
    assert digests(copy.folder).keys() > original.keys()


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
    """The resumed search trains what 61b80c3 itself trained when it resumed the same journal.

    The file of the space names the data where they are, and the record where they were.
    """
    run = old.tuner("search", "--resume", "cut-1", "--space", "long.yaml", "--json")
    assert run.status == 0, run.err
    journal = old.home / "searches" / "cut-1" / "journal.jsonl"
    expected, found = reports_of(old.folder / "cut-resumed.jsonl"), reports_of(journal)
    if "their last bits may differ" in run.err:  # another processor than the home was made on
        assert math.isclose(
            found[0, max(step for number, step in found if number == 0)]["val_loss"],
            expected[0, max(step for number, step in expected if number == 0)]["val_loss"],
            rel_tol=0.02,
        )
        return
    assert found == expected
    assert outcomes_of(journal) == outcomes_of(old.folder / "cut-resumed.jsonl")


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
