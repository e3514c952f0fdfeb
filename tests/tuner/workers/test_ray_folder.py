from __future__ import annotations

from pathlib import Path

import pytest

from tuner.workers import ray_folder as module
from tuner.workers.ray_folder import ray_folder


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


def test_folder_of_a_session_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_root", lambda: tmp_path)
    with ray_folder() as folder:
        assert folder.parent == tmp_path
    with ray_folder(keep=True) as folder:
        pass
    assert folder.exists()
