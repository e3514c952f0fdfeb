from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.simulated_search import space_of
from tuner.driver import early_checks
from tuner.driver.early_checks import check_early, check_home
from tuner.errors import StorageError, StoreError, TunerError
from tuner.home.home import Home
from tuner.space.space import SearchSpace
from tuner.workers import devices

SPACE = "hyperparameters: {α_max: {log: [1e-4, 1e-1]}}\nbudget: {tokens: 9000}\nsearch: {%s}\n"


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return space_of(tmp_path, "trials: 3", SPACE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.at(tmp_path / "home")


def test_local_store_is_not_opened(
    space: SearchSpace, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_checks, "Record", None)
    assert check_early(space, home) is None
    assert not home.has_store


def test_store_on_a_server_is_opened_and_written(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of which more is known than the name of a file is opened before Ray starts."""
    written: list[tuple[Any, ...]] = []
    record: Any = SimpleNamespace(client="client")
    monkeypatch.setattr(early_checks, "Record", lambda uri: record)
    monkeypatch.setattr(early_checks, "check_write", lambda *given: written.append(given))
    assert check_early(space, Home(tmp_path, "http://server")) is record
    assert written == [("client", "http://server", space.name)]


def test_server_that_is_down_is_noticed(space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it refuses connections"):
        check_early(space, Home(tmp_path, "http://127.0.0.1:9"))


def test_storage_that_cannot_be_used_is_refused(
    space: SearchSpace, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for url, reason in (
        (f"file://{tmp_path}/file", "make it a folder that you can write"),
        ("nothing://lm", "fsspec knows no nothing://"),
    ):
        engine = space.engine.model_copy(update={"storage": url})
        with pytest.raises(StorageError, match=reason):
            check_early(space.model_copy(update={"engine": engine}), home)


@pytest.mark.parametrize("folder", ["searches", "corpora", "starts", "artifacts"])
def test_home_that_cannot_be_written_is_refused(home: Home, folder: str) -> None:
    (home.root / folder).touch()  # a folder without permission would not stop root
    with pytest.raises(StoreError, match=f"cannot write to {home.root / folder}; .* --home"):
        check_home(home)


def test_file_that_is_no_database_is_refused(home: Home) -> None:
    (home.root / "mlflow.db").write_text("not a database, but a text that is long enough\n" * 9)
    with pytest.raises(StoreError, match="file is not a database"):
        check_home(home)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"device": "cuda"}, "engine.device is cuda, but this machine has no GPU"),
        ({"dtype": "tf32"}, "only NVIDIA GPUs compute in tf32"),
    ],
)
def test_missing_devices_are_noticed(
    space: SearchSpace,
    home: Home,
    engine: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_num_cuda_devices", lambda: 0)
    changed = space.model_copy(update={"engine": space.engine.model_copy(update=engine)})
    with pytest.raises(TunerError, match=message):
        check_early(changed, home)
