"""Permissions of a home: private to its user, or those that its folder was given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.test_files import umask
from tuner.cli import main
from tuner.home.home import Home
from tuner.tracking.store import open_client


@pytest.fixture(autouse=True)
def _own_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with umask(0o022):
        yield


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def current_umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_new_home_is_private(tmp_path: Path, mask: int) -> None:
    """Whatever the umask; a folder above it is like any other."""
    with umask(mask):
        Home.at(tmp_path / "above" / "runs")
    assert mode(tmp_path / "above" / "runs") == 0o700
    assert mode(tmp_path / "above") == 0o777 & ~mask


def test_home_that_exists_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    Home.at(tmp_path)
    assert mode(tmp_path) == 0o750


@pytest.mark.parametrize(
    ("folder", "mask", "expected"),
    [
        (0o700, 0o022, 0o077),
        (0o700, 0, 0o077),
        (0o755, 0o022, 0o022),  # made by an earlier version
        (0o755, 0o077, 0o077),
        (0o750, 0o022, 0o027),
        (0o2770, 0o022, 0o007),  # of a team
        (0o2770, 0o077, 0o007),
        (0o2775, 0o077, 0o002),
    ],
)
def test_umask_follows_the_folder(tmp_path: Path, folder: int, mask: int, expected: int) -> None:
    tmp_path.chmod(folder)
    with umask(mask):
        Home.of(tmp_path).set_umask()
        assert current_umask() == expected


def test_umask_stays_for_a_store_elsewhere(tmp_path: Path) -> None:
    """Others may need the files of that store; those of the home lie behind its folder."""
    tmp_path.chmod(0o700)
    Home(tmp_path, "sqlite:////elsewhere/mlflow.db").set_umask()
    assert current_umask() == 0o022
    Home(tmp_path, "http://server").set_umask()  # which makes no files here
    assert current_umask() == 0o077


@pytest.mark.slow
def test_command_gives_back_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may call `main`, and go on."""
    during = []
    monkeypatch.setattr(Home, "set_umask", lambda self: during.append(os.umask(0o077)))
    (tmp_path / "searches").mkdir()
    main(["clean", "--home", str(tmp_path), "--yes"])
    assert during == [0o022]
    assert current_umask() == 0o022


@pytest.mark.slow
def test_database_of_a_team_may_be_written_by_it(tmp_path: Path) -> None:
    """By default, SQLite makes files that only their owner may write."""
    tmp_path.chmod(0o770)
    home = Home.at(tmp_path)
    home.set_umask()
    open_client(home.tracking_uri)
    assert mode(tmp_path / "mlflow.db") == 0o660
