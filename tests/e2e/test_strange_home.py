"""A home that somebody else may have filled: links, pipes and odd names where files are read.

The commands that read a home neither wait, nor follow, nor end in a traceback: they skip what is
strange, or say in one sentence what it is.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Workplace
from tuner.cli import main
from tuner.home.home import Home
from tuner.serve.searches import HomeSearches

ODD_NAMES = (".hid", ".nfs0001", "a\nb", "$(id)", "-x", "--home", "`id`", "a;b", "\x1b[2J")
READERS = [
    ["list"], ["status"], ["status", "small-1"], ["show", "--search", "small-1"],
    ["show", "small-1/1"], ["compare", "small-1/0", "small-1/1"], ["attach", "small-1"],
    ["logs", "small-1"], ["stop", "small-1"], ["sync"], ["clean", "--dry-run"],
    ["backup", "PLACE/b.tar"], ["report", "--search", "small-1", "-o", "PLACE/r.html"],
    ["scaling", "small-1"], ["validate", "--space", "PLACE/small.yaml"],
    ["data", "info", "--space", "PLACE/small.yaml"],
    ["export", "--search", "small-1", "-o", "PLACE/exported"],
    ["generate", "--search", "small-1", "--max-tokens", "2"],
]  # fmt: skip


@contextmanager
def in_time(seconds: int = 30) -> Iterator[None]:
    """Fail if the block hangs: a pipe without a writer waits for ever."""

    def fail(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def place(golden: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, which is the working folder."""
    copy = Path(shutil.copytree(golden.folder, tmp_path / "place"))
    (copy / "victim").write_text("mine\n")
    monkeypatch.chdir(copy)
    return copy


def add_strangers(home: Path) -> None:
    """Lay beside the searches what no command made."""
    searches = home / "searches"
    for name in ODD_NAMES:
        (searches / name).mkdir()
        (searches / name / "journal.jsonl").write_text("{}\n")
    (searches / "linked").symlink_to(searches / "small-1")
    (searches / "dangling").symlink_to("nowhere")
    (searches / "file").write_text("")
    os.mkfifo(searches / "pipe")
    for name in ("pipes", "links"):
        (searches / name).mkdir()
        for file in ("journal.jsonl", "lock", "cursors", "epochs"):
            if name == "pipes":
                os.mkfifo(searches / name / file)
            else:
                (searches / name / file).symlink_to(home.parent / "victim")
    (home / "logs").mkdir()
    (home / "predictions").mkdir()
    for folder in (
        home, home / "logs", home / "corpora", home / "starts", home / "artifacts",
        home / "artifacts" / "models", home / "predictions",
    ):  # fmt: skip
        folder.mkdir(exist_ok=True)
        os.mkfifo(folder / "pipe")
        (folder / "link").symlink_to(home.parent / "victim")
    os.mkfifo(home / "logs" / "pipes.log")
    (home / "corpora" / "pipes").mkdir()
    os.mkfifo(home / "corpora" / "pipes" / "meta.json")


def run(place: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command in the home of a place; return its status and what it says."""
    words = [word.replace("PLACE", str(place)) for word in command]
    with in_time():
        status = main([*words, "--home", str(place / "runs")])
    out, err = capsys.readouterr()
    assert (place / "victim").read_text() == "mine\n"
    assert not any(name in out + err for name in ODD_NAMES if not name.startswith("-"))
    return status, out + err


@pytest.mark.slow
@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_what_is_strange_is_skipped(
    place: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    add_strangers(place / "runs")
    status, text = run(place, command, capsys)
    assert status == (2 if command[0] in {"logs", "stop", "scaling", "sync"} else 0), text


def test_server_has_no_strangers(place: Path) -> None:
    add_strangers(place / "runs")
    searches = HomeSearches(Home.of(place / "runs"))
    with in_time():
        names = {name for name in searches.names() if searches.status(name)}
    assert "small-1" in names
    assert not names & {*ODD_NAMES, "linked", "dangling", "file", "pipe"}


FILES = {  # file of the home → commands that read it
    "format": ["list", "show --search small-1", "backup PLACE/b.tar"],
    "calibration.json": ["validate --space PLACE/small.yaml"],
    "searches/small-1/journal.jsonl": ["status", "status small-1", "attach small-1", "sync small-1",
                                       "clean --dry-run", "backup PLACE/b.tar"],
    "searches/small-1/lock": ["status", "sync small-1", "delete small-1 --yes"],
    "searches/small-1/epochs/0001": ["status", "backup PLACE/b.tar"],
    "logs/small-1.log": ["logs small-1"],
    "corpora/*/meta.json": ["clean --dry-run", "data prepare --space PLACE/small.yaml"],
    "corpora/*/files.json": ["clean --dry-run", "data info --space PLACE/small.yaml"],
    "corpora/digests.json": ["data prepare --space PLACE/small.yaml"],
    "mlflow.db": ["list", "status", "clean --dry-run", "backup PLACE/b.tar"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("by", ["pipe", "link", "folder"])
def test_file_that_is_none_is_named(
    place: Path, file: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next((place / "runs").glob(file), place / "runs" / file)
    path.parent.mkdir(exist_ok=True)
    for command in FILES[file]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True, parents=True)
        if by == "pipe":
            os.mkfifo(path)
        elif by == "link":
            path.symlink_to(place / "victim")
        else:
            path.mkdir()
        status, text = run(place, command.split(), capsys)
        assert status in {0, 2}, (command, text)
        assert len(text) < 10_000
