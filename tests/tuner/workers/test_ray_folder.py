from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.workers import ray_folder as module
from tuner.workers.ray_folder import ray_folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, whatever the length of its path."""
    monkeypatch.setattr(module, "_root", lambda: tmp_path)
    return tmp_path


def test_folder_is_private_and_is_removed(root: Path) -> None:
    before = os.umask(0)
    try:
        with ray_folder() as folder:
            assert folder.parent == root
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "ray").mkdir()
            (folder / "ray" / "log").touch()
    finally:
        os.umask(before)
    assert list(root.iterdir()) == []


def test_folder_is_removed_after_an_error(root: Path) -> None:
    with pytest.raises(RuntimeError), ray_folder():
        raise RuntimeError
    assert list(root.iterdir()) == []


def test_folder_of_a_killed_driver_is_removed_by_the_next(root: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tuner.workers import ray_folder\n"
        "ray_folder._root = lambda: Path(sys.argv[1])\n"
        "with ray_folder.ray_folder() as folder:\n"
        "    (folder / 'ray').mkdir()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=False)
    (leftover,) = root.iterdir()
    with ray_folder() as folder:
        assert not leftover.exists()
        with ray_folder():  # of another search: a folder in use stays
            assert folder.exists()


def test_only_leftovers_are_removed(root: Path) -> None:
    kept = [root / "tuner-without-lock", root / "other", root / "tuner-link"]
    kept[0].mkdir()
    kept[1].mkdir()
    (kept[1] / "lock").touch()
    kept[2].symlink_to(kept[1])
    with ray_folder():
        pass
    assert sorted(root.iterdir()) == sorted(kept)
    assert (kept[1] / "lock").exists()


def test_kept_folder_is_no_leftover(root: Path) -> None:
    with ray_folder(keep=True) as folder:
        (folder / "log").touch()
    with ray_folder():
        pass
    assert [path.name for path in folder.iterdir()] == ["log"]


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_path_is_short_enough_for_sockets(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = Path("/var/tmp"), tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)  # read the environment again
    monkeypatch.setenv(variable, str(short))
    assert module._root() == short
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(variable, str(long))
    assert module._root() == Path("/tmp")
    monkeypatch.setattr("tempfile.tempdir", None)


def test_lock_is_held_by_the_folder_in_use(root: Path) -> None:
    with ray_folder() as folder, (folder / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
