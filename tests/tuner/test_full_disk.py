"""A disk that is full at each write: what was there stays, nothing is left, one sentence says it.

A limit on the size of files refuses writes where they happen, also those of libraries, as a full
disk does.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.errors import ModelError
from model.files import replacing
from tests.conftest import MakeSpec
from tests.tuner.trained.trained_trials import make_trial
from tuner.cli import main
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.housekeeping.backup import back_up, restore
from tuner.trained.export import export

Write = Callable[[Path], object]


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let no file grow beyond a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    home.search("lm-1").mkdir(parents=True)
    (home.search("lm-1") / "journal.jsonl").write_bytes(os.urandom(50_000).hex().encode() + b"\n")
    return home


def run_init(path: Path) -> None:
    if main(["init", "lm", "--force"]):
        raise TunerError("cannot write")
    Path("lm.yaml").rename(path)


@pytest.fixture
def writers(home: Home, tmp_path: Path, make_spec: MakeSpec) -> dict[str, Write]:
    """What writes a file or a folder at a path."""
    archive, trained = tmp_path / "archive.tgz", make_trial(make_spec)
    back_up(home, archive)
    writers: dict[str, Write] = {
        "backup.tar": lambda path: back_up(home, path),
        "backup.tgz": lambda path: back_up(home, path),
        "restore": lambda path: restore(archive, path),
        "init": run_init,
    }
    for file_format in ("hf", "gguf", "torch"):

        def write(path: Path, file_format: str = file_format) -> object:
            return export(trained, path, file_format, force=True)

        writers[f"export_{file_format}"] = write
    return writers


@pytest.mark.parametrize("after", [0, 300, 1500, 7000])
@pytest.mark.parametrize(
    "name",
    ["backup.tar", "backup.tgz", "restore", "init", "export_hf", "export_gguf", "export_torch"],
)
@pytest.mark.parametrize("has_earlier", [False, True])
def test_full_disk_is_one_sentence_and_changes_nothing(
    writers: dict[str, Write],
    name: str,
    after: int,
    has_earlier: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "here" / name
    after = min(after, 1000) if name == "init" else after  # the file is small
    if has_earlier and name != "restore":  # which only makes new homes
        writers[name](path)
    before = contents(tmp_path / "here")
    with full_disk(after), pytest.raises((TunerError, ModelError)) as caught:
        writers[name](path)
    text = str(caught.value) + capsys.readouterr().err
    assert "cannot" in text
    assert len(text.splitlines()) <= 2
    assert contents(tmp_path / "here") == before
    writers[name](path)  # when there is space again
    assert contents(tmp_path / "here") != before or has_earlier


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in paths}


def test_full_disk_leaves_no_half_format(tmp_path: Path) -> None:
    """An empty mark once said that a newer version had made the home."""
    root = tmp_path / "new"
    with full_disk(0):
        Home.at(root)
    assert list(root.iterdir()) == []
    (root / "format").touch()  # as an earlier version left it
    Home.at(root)
    assert (root / "format").read_text() == "1\n"


@pytest.mark.parametrize("after", [0, 3])
def test_replaced_file_stays_on_a_full_disk(tmp_path: Path, after: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(after), pytest.raises(OSError, match="File too large"), replacing(path) as file:
        file.write(b"new text")
    assert contents(tmp_path / "here") == {}
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["file"]
    assert path.read_bytes() == b"old"
