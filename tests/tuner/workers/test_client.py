"""The client of a worker, with fake workers that die and without Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from model.engine.report import Report, Status
from tuner.errors import TrialError, WorkerError
from tuner.workers import client as client_module
from tuner.workers.assignment import Assignment
from tuner.workers.client import TrialClient, TuneTrainable

JOB = Assignment("7", worker=0, spec="{}")


def report(step: int) -> Report:
    return Report("7", Status.TRAINING, step, step * 32, 3.0, 3.5, 1.0, 0.01)


class Lazy:
    """Reference to the result of a call; `ray.get` makes the call."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *args: Any) -> Lazy:
        return Lazy(lambda: self._call(*args))


class FakeWorker:
    """Reports every second step; each call first raises the next entry of `script`, if any."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.calls: list[Any] = []
        self.start, self.next_report = Method(self._start), Method(self._next_report)
        self.ping, self.stop = Method(self._ping), Method(lambda *args: self.calls.append("stop"))

    def _follow_script(self) -> None:
        event = self.script.pop(0) if self.script else None
        if event is not None:
            raise event

    def _start(self, assignment: Assignment) -> None:
        self.calls.append(assignment)
        self._follow_script()

    def _next_report(self, trial_id: str, after: int) -> Report:
        self.calls.append(after)
        self._follow_script()
        return report(after + 2)

    def _ping(self) -> dict[str, Any]:
        self.calls.append("ping")
        self._follow_script()
        return {"is_healthy": True}


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda lazy: lazy.call())
    monkeypatch.setattr(client_module, "_RETRY_SECONDS", 0.0)


def gone() -> Exception:
    return ActorUnavailableError("the worker is gone", b"0" * 16)


def test_client_starts_once_and_requests_reports_in_order() -> None:
    worker = FakeWorker()
    client = TrialClient(worker, JOB)
    assert [client.next_report().step for _ in range(3)] == [2, 4, 6]
    assert worker.calls == [JOB, 0, 2, 4]


def test_client_starts_its_assignment() -> None:
    worker = FakeWorker()
    job = replace(JOB, after=4, source=("3", 4), reports=(report(4),))
    assert TrialClient(worker, job).next_report().step == 6
    assert worker.calls == [job, 4]


def test_client_resumes_from_its_last_report() -> None:
    """The worker dies during a request, and again during its restart."""
    fine = [None] * 3
    worker = FakeWorker(*fine, gone(), gone(), gone(), None, gone(), None, None, None)
    first = replace(JOB, source=("3", 4))
    client = TrialClient(worker, first)
    assert [client.next_report().step for _ in range(3)] == [2, 4, 6]
    again = replace(JOB, after=4, source=("7", 4))
    pings = ["ping"] * 3
    assert worker.calls == [first, 0, 2, 4, *pings, again, "ping", again, 4]


def test_client_restarts_from_the_source_before_the_first_report() -> None:
    worker = FakeWorker(None, gone())
    start = replace(JOB, source=("3", 4))
    assert TrialClient(worker, start).next_report().step == 2
    assert worker.calls == [start, 0, "ping", start, 0]


@pytest.mark.parametrize("error", [gone(), WorkerError("the engine broke: ValueError: no luck")])
def test_client_gives_up_after_three_deaths_without_a_report(error: Exception) -> None:
    worker = FakeWorker(None, error, None, None, error, None, None, error)
    reason = "no luck" if isinstance(error, WorkerError) else "the worker is gone"
    with pytest.raises(RuntimeError, match=f"died 3 times before its next report: .*{reason}"):
        TrialClient(worker, JOB).next_report()
    assert worker.calls.count(JOB) == 3


def test_report_resets_the_count_of_deaths() -> None:
    twice = [None, gone(), None, None, gone(), None, None, None]
    worker = FakeWorker(*twice, gone(), None, None, gone())
    client = TrialClient(worker, JOB)
    assert [client.next_report().step for _ in range(2)] == [2, 4]


def test_client_waits_until_a_broken_worker_has_exited() -> None:
    """A worker that is about to exit still answers."""
    worker = FakeWorker(None, WorkerError("broken"))
    answers: Iterator[Any] = iter([{"is_healthy": False}, gone(), {"is_healthy": True}])

    def ping() -> dict[str, Any]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return {**answer}

    worker.ping = Method(ping)
    assert TrialClient(worker, JOB).next_report().step == 2
    assert not list(answers)


def test_client_gives_up_a_worker_that_ray_gave_up() -> None:
    worker = FakeWorker(None, gone(), ActorDiedError())
    with pytest.raises(
        RuntimeError, match=r"cannot be restarted: The actor died unexpec.*the worker is gone"
    ):
        TrialClient(worker, JOB).next_report()


def test_client_wait_for_a_restart_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_RESTART_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match=r"did not restart within 0 seconds: .*gone"):
        TrialClient(FakeWorker(None, gone()), JOB).next_report()


@pytest.mark.parametrize("error", [TrialError("too large"), GetTimeoutError()])
def test_client_raises_errors_that_no_restart_fixes(error: Exception) -> None:
    worker = FakeWorker(None, error)
    with pytest.raises(type(error)):
        TrialClient(worker, JOB).next_report()
    assert len(worker.calls) == 2


def test_trainable_uses_its_worker_and_is_never_done() -> None:
    workers = [FakeWorker(), FakeWorker()]
    trial = object.__new__(TuneTrainable)
    trial.setup({"assignment": replace(JOB, worker=1), "wait_seconds": 0.0}, workers)
    result = trial.step()
    assert result["report"] == report(2)
    assert (result["number"], result["worker"], result["report"].tokens) == (7, 1, 64)
    assert "done" not in result
    assert trial.reset_config({"assignment": replace(JOB, trial_id="8"), "wait_seconds": 0.0})
    assert trial.step()["worker"] == 0
    assert trial.reset_config({"assignment": None, "wait_seconds": 0.01})
    assert trial.step() == {"report": None}, "it waits"
    trial.cleanup()  # type: ignore[no-untyped-call]
    assert "stop" not in workers[0].calls + workers[1].calls


@pytest.mark.slow
def test_client_imports_no_torch() -> None:
    """A process without torch takes 116 MB instead of 244 MB."""
    heavy = {"torch", "model.spec.trial", "pydantic.main"}
    code = f"import sys, tuner.workers.client; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "model.spec.trial" not in done.stdout
