"""What other users of the machine could do, and the command that ends it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.cli import main
from tuner.home.home import Home
from tuner.housekeeping import installation, weaknesses
from tuner.housekeeping.weaknesses import find_weaknesses


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's, with a home and nothing else to say."""
    for name in (*weaknesses._URLS, "RAY_TMPDIR", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        place = Path(made)
        place.chmod(0o755)
        (place / "runs").mkdir(0o700)
        monkeypatch.setenv("HOME", str(place))
        yield place


def found(place: Path) -> list[str]:
    return find_weaknesses(Home.of(place / "runs"))


def mend(weakness: str) -> None:
    subprocess.run(shlex.split(weakness.rpartition(": ")[2]), check=True)


def test_private_home_has_none(place: Path) -> None:
    assert found(place) == []
    assert list((place / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "expected", "mended"),
    [
        (0o755, "every user of this machine may read", 0o700),
        (0o777, "every user of this machine may change", 0o770),
        (0o775, "every user of this machine may read", 0o770),  # of a team
    ],
)
def test_open_home_is_named_until_it_is_closed(
    place: Path, mode: int, expected: str, mended: int
) -> None:
    (place / "runs").chmod(mode)
    (weakness,) = found(place)
    assert weakness.startswith(f"{expected} {place}/runs: chmod -R ")
    mend(weakness)
    assert (place / "runs").stat().st_mode & 0o777 == mended
    assert found(place) == []


def test_home_behind_a_closed_folder_is_private(place: Path) -> None:
    (place / "runs").chmod(0o755)
    place.chmod(0o700)
    assert found(place) == []


def test_home_for_a_team_is_no_weakness(place: Path) -> None:
    (place / "runs").chmod(0o2770)
    assert found(place) == []


def test_folder_above_that_everybody_may_change(place: Path) -> None:
    place.chmod(0o777)
    (weakness,) = found(place)
    assert weakness.endswith(f"in {place}: chmod +t {place}")
    mend(weakness)
    assert found(place) == []


def test_folder_for_temporary_files_without_sticky_bit(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "a b").mkdir()
    (place / "a b").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "a b"))
    (weakness,) = found(place)
    mend(weakness)
    assert (place / "a b").stat().st_mode & 0o7777 == 0o1777
    assert found(place) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_home_of_somebody_else(place: Path) -> None:
    os.chown(place / "runs", 54321, -1)
    (weakness,) = found(place)
    assert weakness.startswith(f"{place}/runs belongs to the user 54321, who may change every")
    (place / "runs").chmod(0o770)  # of a colleague in a group of ours
    assert found(place) == []


@pytest.mark.parametrize(
    "name", [".ray/auth_token", ".mlflow/credentials", "my token", ".config/tuner/notify.yaml"]
)
def test_secret_that_everybody_may_read(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    path = place / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch(0o644)
    path.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(place / "my token"))
    (weakness,) = found(place)
    mend(weakness)
    assert path.stat().st_mode & 0o777 == 0o600
    assert found(place) == []


@pytest.mark.parametrize(
    ("name", "url", "where"),
    [
        ("MLFLOW_TRACKING_URI", "https://me:hush@store/", "~/.mlflow/credentials"),
        ("MLFLOW_TRACKING_URI", "postgresql://me:hush@db/runs", "~/.pgpass"),
        ("MLFLOW_TRACKING_URI", "postgresql://me@db/runs", None),
        ("MLFLOW_TRACKING_URI", "http://[", None),
    ],
)
def test_password_in_a_url(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, url: str, where: str | None
) -> None:
    monkeypatch.setenv(name, url)
    warnings = found(place)
    assert [name in text and str(where) in text for text in warnings] == [True] * (
        where is not None
    )
    assert "hush" not in "".join(warnings)


def test_disk_without_locks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    (weakness,) = found(place)
    assert weakness.startswith(f"locks do not work in {place}/runs")


def test_disk_without_permissions(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "chmod", lambda self, _: os.fchmod(os.open(self, 0), 0o777))
    (weakness,) = found(place)
    assert "has no permissions for single users" in weakness


@pytest.mark.parametrize("passes", [True, False])
def test_doctor_warns_and_keeps_its_status(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    passes: bool,
) -> None:
    def check(home: Home) -> str:
        if not passes:
            raise RuntimeError("broken")
        return "fine"

    (place / "runs").chmod(0o755)
    monkeypatch.setattr(installation, "CHECKS", {"torch": check})
    assert main(["doctor", "--home", str(place / "runs"), "--json"]) == (0 if passes else 1)
    printed = capsys.readouterr()
    (warning,) = json.loads(printed.out)["trust"]
    assert "chmod -R go-rwx" in warning
    assert f"! trust    {warning}" in printed.err
