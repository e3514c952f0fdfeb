"""Private folders: whose they are, when they go, and what killed processes leave."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tuner.home import private_folder as private_folder_module
from tuner.home.private_folder import abandoned, private_folder, remove


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folder_is_private_and_is_removed(root: Path) -> None:
    before = os.umask(0)
    try:
        with private_folder() as folder:
            assert folder.parent == root
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "ray").mkdir()
            (folder / "ray" / "log").touch()
    finally:
        os.umask(before)
    assert list(root.iterdir()) == []


def test_folder_is_removed_after_an_error(root: Path) -> None:
    with pytest.raises(RuntimeError), private_folder():
        raise RuntimeError
    assert list(root.iterdir()) == []


def test_folder_of_a_killed_process_is_removed_by_the_next(root: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tuner.home.private_folder import private_folder\n"
        "with private_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'ray').mkdir()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=False)
    (leftover,) = root.iterdir()
    with private_folder() as folder:
        assert not leftover.exists()
        with private_folder():  # of another search: a folder in use stays
            assert folder.exists()


def test_only_leftovers_are_removed(root: Path) -> None:
    kept = [root / "tuner-without-lock", root / "other", root / "tuner-link"]
    kept[0].mkdir()
    kept[1].mkdir()
    (kept[1] / "lock").touch()
    kept[2].symlink_to(kept[1])
    with private_folder():
        pass
    assert sorted(root.iterdir()) == sorted(kept)
    assert (kept[1] / "lock").exists()


def test_kept_folder_is_no_leftover(root: Path) -> None:
    with private_folder(keep=True) as folder:
        (folder / "log").touch()
    with private_folder():
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["kept", "log"]


@pytest.mark.parametrize(
    ("names", "age", "is_leftover"),
    [
        (["ray"], 4000, True),
        (["ray", "token"], 4000, True),
        (["ray"], 60, False),  # of processes that are still dying
        (["ray", "kept"], 4000, False),
        (["ray", "notes"], 4000, False),  # somebody else's
        (["token"], 4000, False),
        ([], 4000, False),
    ],
)
def test_session_that_lost_its_lock_is_a_leftover(
    root: Path, names: list[str], age: float, is_leftover: bool
) -> None:
    """Ray's dying processes made it again after it was removed."""
    folder = root / "tuner-ab12cd34"
    for name in names:
        (folder / name).mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    then = time.time() - age
    os.utime(folder, (then, then))
    assert abandoned() == [folder] * is_leftover
    with private_folder():
        assert folder.exists() is not is_leftover


def test_lock_is_held_by_the_folder_in_use(root: Path) -> None:
    with (
        private_folder() as folder,
        (folder / "lock").open() as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_removed_keeps_its_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's dying processes still write to the folder: the next process removes it."""
    with private_folder() as folder:
        (folder / "ray").mkdir()
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
        monkeypatch.setattr(private_folder_module, "_REMOVE_SECONDS", 0.0)
    assert abandoned() == [folder]
    monkeypatch.undo()
    remove(folder)
    assert not folder.exists()


def test_lasting_folder_ends_with_its_process(root: Path) -> None:
    program = (
        "import sys, tempfile\ntempfile.tempdir = sys.argv[1]\n"
        "from tuner.home.private_folder import lasting_folder\n"
        "print((lasting_folder() / 'file').touch(), lasting_folder().exists())\n"
    )
    command = [sys.executable, "-c", program, str(root)]
    assert subprocess.check_output(command, text=True) == "None True\n"
    assert list(root.iterdir()) == []
