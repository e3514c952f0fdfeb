"""A local Ray that does not start: once more, then one sentence, and its logs are kept."""

from __future__ import annotations

import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import ray

from tuner import leaving
from tuner.errors import TunerError
from tuner.workers.ray_session import ray_session


class FailingRay:
    """`ray.init` that fails some times, as a raylet that ends at once."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts = failures, 0

    def __call__(self, *, _temp_dir: str, **settings: Any) -> None:
        self.starts += 1
        if self.starts > self.failures:
            return
        logs = Path(_temp_dir, "session_2026-11-25_00-00-00", "logs")
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "raylet.err").write_text("a line\nno module named _ssl\n\n")
        raise RuntimeError("The current node timed out during startup.\nThis could happen because")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FailingRay:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    failing = FailingRay(1)
    monkeypatch.setattr(ray, "init", failing)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return failing


@pytest.mark.slow
def test_ray_that_was_too_slow_is_started_once_more(failing: FailingRay) -> None:
    with ray_session(None):
        assert failing.starts == 2


def test_interrupt_does_not_wait_for_the_start_of_ray(
    failing: FailingRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the process of a command, which ends; a program that goes on waits for it."""
    may_start, heard = threading.Event(), list[int]()

    def start(**settings: Any) -> None:
        starts.set()
        assert may_start.wait(30)

    def interrupt() -> None:
        if starts.is_set():
            raise KeyboardInterrupt

    starts = threading.Event()
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(leaving, "_ours", [signal.SIGTERM])
    monkeypatch.setattr(leaving, "_heard", set())
    with pytest.raises(KeyboardInterrupt):
        with ray_session(None, on_wait=interrupt):
            heard.append(0)
    assert leaving.is_leaving()
    assert not heard
    (thread,) = (t for t in threading.enumerate() if t.name == "ray")
    may_start.set()
    thread.join(30)
    assert not thread.is_alive()


def test_ray_that_does_not_start_is_one_sentence(failing: FailingRay, tmp_path: Path) -> None:
    failing.failures = 9
    with pytest.raises(TunerError) as caught, ray_session(None):
        pass
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("Ray did not start within 0 s, nor at another try: a line no module")
    assert "repeat the command later; Ray's logs are in " in text
    kept = Path(text.rpartition(" ")[2])
    assert kept.parent == tmp_path
    assert "_ssl" in (kept / "raylet.err").read_text()
    assert failing.starts == 2
    assert not list(tmp_path.glob("tuner-*/ray")), "the folder of the session is removed"
