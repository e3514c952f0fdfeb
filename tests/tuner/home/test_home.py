"""A home that was moved or copied: MLflow's paths follow it, and none leads out of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tuner.errors import StoreError
from tuner.home.artifact_locations import correct_locations, former_homes, is_inside
from tuner.home.home import Home

# The columns of MLflow's tables that hold locations, and those that say which are our own.
_TABLES = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, artifact_location TEXT);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, experiment_id INTEGER, artifact_uri TEXT);
CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT);
CREATE TABLE logged_models (model_id TEXT PRIMARY KEY, source_run_id TEXT, artifact_location TEXT);
CREATE TABLE model_versions (name TEXT, source TEXT, storage_location TEXT);
"""
_COLUMNS = (
    "SELECT artifact_location FROM experiments", "SELECT artifact_uri FROM runs",
    "SELECT artifact_location FROM logged_models", "SELECT source FROM model_versions",
    "SELECT storage_location FROM model_versions",
)  # fmt: skip
_CORRECTED = 5  # of the store below: experiment, run, model, and its version's two


def locations(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return [str(row[0]) for query in _COLUMNS for row in store.execute(query)]


def change(home: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as store, store:
        store.execute(statement, values)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one run and its model, and an experiment of the user's own elsewhere."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "ä project" / "runs"
    for folder in ("artifacts/r1/artifacts", "artifacts/models/m-1/artifacts", "searches/lm-1"):
        (home / folder).mkdir(parents=True)
    (home / "artifacts/r1/artifacts/spec.json").write_text("{}")
    (home / "searches/lm-1/lock").write_text("")
    uri = (home / "artifacts").as_uri()
    model = f"{uri}/models/m-1/artifacts"
    with closing(sqlite3.connect(home / "mlflow.db")) as store, store:
        store.executescript(_TABLES)
        store.executemany(
            "INSERT INTO experiments VALUES (?, ?, ?)",
            [(0, "Default", "/elsewhere/mlruns/0"), (1, "lm", uri)],
        )
        store.execute("INSERT INTO runs VALUES (?, ?, ?)", ("r1", 1, f"{uri}/r1/artifacts"))
        store.execute("INSERT INTO runs VALUES ('mine', 0, '/elsewhere/mlruns/0/mine/artifacts')")
        store.execute("INSERT INTO tags VALUES ('r1', 'tuner.kind', 'trial')")
        store.execute("INSERT INTO logged_models VALUES ('m-1', 'r1', ?)", (model,))
        store.execute("INSERT INTO model_versions VALUES ('lm', ?, ?)", (model, model))
    return home


def test_moved_home_is_corrected_once_and_says_so(home: Path, tmp_path: Path) -> None:
    before, said = locations(home), list[str]()
    new = tmp_path / "new" / "place of 100 ☃"
    new.parent.mkdir()
    home.rename(new)
    assert Home.recorded(new, said.append).tracking_uri == f"sqlite:///{new}/mlflow.db"
    assert said == [
        f"the home {new} was at {home} before: corrected {_CORRECTED} paths in its mlflow.db"
    ]
    assert locations(new) == [each.replace(home.as_uri(), new.as_uri()) for each in before]
    assert "/elsewhere/mlruns/0" in locations(new)  # not below the home
    for again in (Home.recorded(new, said.append), Home.at(new, said.append)):
        assert again.root == new
    assert len(said) == 1


def test_moved_home_is_corrected_by_one_of_many(home: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    home.rename(new)
    said = list[str]()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Home.recorded(new, said.append), range(16)))
    assert len(said) == 1
    assert former_homes(new / "mlflow.db", new) == []


def test_copied_home_leaves_the_original(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    original = (home / "mlflow.db").read_bytes()
    Home.at(copy, lambda message: None)
    assert all(is_inside(each, copy) for each in locations(copy) if "elsewhere" not in each)
    assert (home / "mlflow.db").read_bytes() == original
    assert former_homes(home / "mlflow.db", home) == []


def test_other_names_of_a_home_are_no_move(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to the home or to a folder above it, and relative paths."""
    before, said = locations(home), list[str]()
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "above").symlink_to(home.parent)
    (home / "sub").mkdir()
    monkeypatch.chdir(home.parent)
    for name in (tmp_path / "link", tmp_path / "above" / "runs", "runs", "runs/sub/.."):
        Home.at(name, said.append)
        Home.recorded(name, said.append)
    assert (said, locations(home)) == ([], before)


def test_home_recorded_through_a_link_is_no_move(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    assert correct_locations(home / "mlflow.db", tmp_path / "link") == 0
    change(home, "UPDATE runs SET artifact_uri = ? WHERE run_uuid = 'r1'",
           f"{(tmp_path / 'link').as_uri()}/artifacts/r1/artifacts")  # fmt: skip
    assert former_homes(home / "mlflow.db", home) == []
    Home.recorded(home, pytest.fail)


def test_read_only_home_is_read_from_a_corrected_copy(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    home.rename(new)
    before = (new / "mlflow.db").read_bytes()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(str(new)) and access(path, mode)
    )
    reading = Home.recorded(new, pytest.fail)
    assert reading.root == new
    copied = Path(reading.tracking_uri.removeprefix("sqlite:///"))
    assert all(is_inside(each, new) for each in locations(copied.parent) if "/r1/" in each)
    assert former_homes(copied, new) == []
    assert (new / "mlflow.db").read_bytes() == before
    with pytest.raises(StoreError, match="cannot write to the folder"):
        Home.at(new)
    with pytest.raises(StoreError, match="cannot write to the folder"):
        Home.at(new, create=False)


@pytest.mark.parametrize("name", ["50% ü", "a%41", "x#1", "what?"])
def test_home_at_a_path_that_urls_cannot_have_is_read(
    home: Path, tmp_path: Path, name: str
) -> None:
    """MLflow's URIs of SQLite cannot be quoted; those of artifacts are."""
    new = tmp_path / name
    home.rename(new)
    reading = Home.recorded(new, pytest.fail)
    assert reading.is_copy
    copied = Path(reading.tracking_uri.removeprefix("sqlite:///")).parent
    assert (new / "artifacts").as_uri() in locations(copied)
    with pytest.raises(StoreError, match=r"one of % \? # in it"):
        Home.at(new)


def test_running_search_keeps_its_store(home: Path, tmp_path: Path) -> None:
    """One home under two paths, as in a container: the search that runs goes on to use its own."""
    new = tmp_path / "new"
    home.rename(new)
    before = (new / "mlflow.db").read_bytes()
    with (new / "searches/lm-1/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert Home.recorded(new, pytest.fail).tracking_uri != f"sqlite:///{new}/mlflow.db"
        with pytest.raises(StoreError, match=f"recorded at {home}, and a search runs in it"):
            Home.at(new)
    assert (new / "mlflow.db").read_bytes() == before
    said = list[str]()
    Home.at(new, said.append)  # a killed search holds no lock
    assert len(said) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET artifact_uri = ? WHERE run_uuid = 'r1'",
        "UPDATE experiments SET artifact_location = ? WHERE name = 'lm'",
        "UPDATE logged_models SET artifact_location = ?",
    ],
)
@pytest.mark.parametrize(
    "location", ["{outside}", "{home}/artifacts/../../outside", "file://server/x", "s3://bucket/x"]
)
def test_artifacts_outside_of_the_home_are_refused(
    home: Path, tmp_path: Path, statement: str, location: str
) -> None:
    outside = home.parent / "outside"
    outside.mkdir()
    change(home, statement, location.format(outside=outside.as_uri(), home=home.as_uri()))
    for open_home in (Home.at, Home.recorded):
        with pytest.raises(StoreError, match="outside of its home"):
            open_home(home)


def test_files_that_did_not_move_are_refused(home: Path, tmp_path: Path) -> None:
    """Only the store was copied: its files are in the original, which is not touched."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(home / "mlflow.db", copy)
    with pytest.raises(StoreError, match=f"move the files to {copy}/artifacts"):
        Home.recorded(copy, pytest.fail)


def test_store_of_another_version_is_not_corrected(home: Path, tmp_path: Path) -> None:
    change(home, "ALTER TABLE model_versions DROP COLUMN storage_location")
    new = tmp_path / "new"
    home.rename(new)
    with pytest.raises(StoreError, match=r"no model_versions\.storage_location.*back to"):
        Home.recorded(new)
    assert all(each.startswith(home.as_uri()) for each in locations_of_runs(new))


def locations_of_runs(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return [uri for (uri,) in store.execute(f"{_COLUMNS[1]} WHERE run_uuid = 'r1'")]


@pytest.mark.slow
def test_store_of_mlflow_has_the_columns(empty_store: Path) -> None:
    with closing(sqlite3.connect(empty_store)) as store:
        for query in _COLUMNS:
            store.execute(query)
        store.execute("SELECT run_uuid, key FROM tags")
        store.execute("SELECT source_run_id FROM logged_models")


def test_damaged_store_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Home.recorded(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"")
    Home.recorded(tmp_path, pytest.fail)  # MLflow says what is wrong with it


@pytest.mark.parametrize("text", ["2\n", "2.1", "later"])
def test_home_of_a_newer_format_is_refused(tmp_path: Path, text: str) -> None:
    root = Home.at(tmp_path / "runs").root
    (root / "searches").mkdir()
    assert (root / "format").read_text() == "1\n"
    assert Home.recorded(root).root == root
    (root / "format").write_text(text)
    for opened in (Home.at, Home.recorded):
        with pytest.raises(StoreError, match=f"has format {text.strip()}, and this tuner reads"):
            opened(root)
    assert (root / "format").read_text() == text


@pytest.mark.parametrize("text", ["", "\n", "\0\0"])
def test_home_whose_format_was_not_written_to_its_end_is_usable(tmp_path: Path, text: str) -> None:
    """A full disk leaves an empty file, a power failure one of NULs."""
    root = Home.at(tmp_path / "runs").root
    (root / "format").write_text(text)
    assert Home.at(root).root == root
    assert (root / "format").read_text() == "1\n"


def test_home_without_a_format_is_of_an_earlier_version(home: Path) -> None:
    assert not (home / "format").exists()
    Home.recorded(home)
    assert not (home / "format").exists()
    Home.at(home)
    assert (home / "format").read_text() == "1\n"
