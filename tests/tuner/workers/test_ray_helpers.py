"""Processes of Ray that are killed as soon as they appear, and no others."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner.workers.ray_helpers import without_helpers

_SLEEP = "import time; time.sleep(60)"


def start(path: Path, folder: Path) -> subprocess.Popen[bytes]:
    path.write_text(_SLEEP)
    return subprocess.Popen([sys.executable, "-u", str(path), f"--logs-dir={folder}/ray"])


@pytest.mark.slow
def test_only_the_helpers_of_the_session_are_killed(tmp_path: Path) -> None:
    folder, other = tmp_path / "tuner-1", tmp_path / "tuner-2"
    with without_helpers(folder):
        killed = [
            start(tmp_path / name, folder)
            for name in ("dashboard.py", "log_monitor.py", "monitor.py")
        ]
        kept = [
            start(tmp_path / "default_worker.py", folder),
            start(tmp_path / "monitor.py", other),
        ]
        assert [process.wait(30) for process in killed] == [-9, -9, -9], "before the block ends"
    try:
        time.sleep(0.1)
        assert [process.poll() for process in kept] == [None, None]
    finally:
        for process in kept:
            process.kill()
            process.wait()


def test_ray_says_nothing_of_the_dashboard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("ray._private.services")
    with without_helpers(tmp_path):
        logger.error("Failed to start the dashboard")
    assert not caplog.records
    assert logger.level == logging.NOTSET
