"""The client of a worker, against workers that die; Ray's calls are plain ones here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from model.engine.report import Report, Status
from tuner.errors import TrialError, WorkerError
from tuner.workers import client as trial_module
from tuner.workers.client import TrialClient, TuneTrainable

JOB = {"number": 7, "spec": "{}", "worker": 0, "after": 0, "source": None, "reports": None}


def report(step: int) -> Report:
    return Report("7", Status.TRAINING, step, step * 32, 3.0, 3.5, 1.0, 0.01)


class Lazy:
    """What Ray gives for a call; `ray.get` makes it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *args: Any) -> Lazy:
        return Lazy(lambda: self._call(*args))


class FakeWorker:
    """Reports every second update; what is in `script` happens instead, call by call."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.calls: list[Any] = []
        self.start, self.next_report = Method(self._start), Method(self._next_report)
        self.pulse, self.stop = Method(self._pulse), Method(lambda *args: self.calls.append("stop"))

    def _follow_script(self) -> None:
        event = self.script.pop(0) if self.script else None
        if event is not None:
            raise event

    def _start(self, *job: Any) -> None:
        self.calls.append(job)
        self._follow_script()

    def _next_report(self, trial_id: str, after: int) -> Report:
        self.calls.append(after)
        self._follow_script()
        return report(after + 2)

    def _pulse(self) -> dict[str, Any]:
        self.calls.append("pulse")
        self._follow_script()
        return {"is_well": True}


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda lazy: lazy.call())
    monkeypatch.setattr(trial_module, "_PATIENCE_SECONDS", 0.0)


def gone() -> Exception:
    return ActorUnavailableError("the worker is gone", b"0" * 16)


def test_client_starts_once_and_asks_for_one_after_the_other() -> None:
    worker = FakeWorker()
    client = TrialClient(worker, JOB)
    assert [client.next_report().step for _ in range(3)] == [2, 4, 6]
    assert worker.calls == [("7", "{}", 0, None, None), 0, 2, 4]


def test_client_passes_the_job_on() -> None:
    worker = FakeWorker()
    fields = [{"step": 4}]
    job = JOB | {"after": 4, "source": ["3", 4], "reports": fields}
    assert TrialClient(worker, job).next_report().step == 6
    assert worker.calls == [("7", "{}", 4, ("3", 4), fields), 4]


def test_client_goes_on_from_its_last_report() -> None:
    """The worker dies while asked, and again while it is started."""
    fine = [None] * 3
    worker = FakeWorker(*fine, gone(), gone(), gone(), None, gone(), None, None, None)
    client = TrialClient(worker, JOB | {"source": ["3", 4]})
    assert [client.next_report().step for _ in range(3)] == [2, 4, 6]
    first, again = ("7", "{}", 0, ("3", 4), None), ("7", "{}", 4, ("7", 4), None)
    pulses = ["pulse"] * 3
    assert worker.calls == [first, 0, 2, 4, *pulses, again, "pulse", again, 4]


def test_client_starts_anew_if_there_was_no_report() -> None:
    worker = FakeWorker(None, gone())
    client = TrialClient(worker, JOB | {"source": ["3", 4]})
    assert client.next_report().step == 2
    start = ("7", "{}", 0, ("3", 4), None)
    assert worker.calls == [start, 0, "pulse", start, 0]


@pytest.mark.parametrize("error", [gone(), WorkerError("the engine broke: ValueError: no luck")])
def test_client_gives_up_after_three_deaths_without_a_report(error: Exception) -> None:
    worker = FakeWorker(None, error, None, None, error, None, None, error)
    reason = "no luck" if isinstance(error, WorkerError) else "the worker is gone"
    with pytest.raises(RuntimeError, match=f"died 3 times before its next report: .*{reason}"):
        TrialClient(worker, JOB).next_report()
    assert worker.calls.count(("7", "{}", 0, None, None)) == 3


def test_reports_in_between_forgive_deaths() -> None:
    twice = [None, gone(), None, None, gone(), None, None, None]
    worker = FakeWorker(*twice, gone(), None, None, gone())
    client = TrialClient(worker, JOB)
    assert [client.next_report().step for _ in range(2)] == [2, 4]


def test_client_waits_until_a_broken_worker_has_gone() -> None:
    """One that is about to end still answers."""
    worker = FakeWorker(None, WorkerError("broken"))
    answers: Iterator[Any] = iter([{"is_well": False}, gone(), {"is_well": True}])

    def pulse() -> dict[str, Any]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return {**answer}

    worker.pulse = Method(pulse)
    assert TrialClient(worker, JOB).next_report().step == 2
    assert not list(answers)


def test_client_gives_up_a_worker_that_ray_gave_up() -> None:
    worker = FakeWorker(None, gone(), ActorDiedError())
    with pytest.raises(
        RuntimeError, match=r"cannot be started again: The actor died unexpec.*the worker is gone"
    ):
        TrialClient(worker, JOB).next_report()


def test_client_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_RETURNS_WITHIN_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match=r"has not come back in 0 seconds: .*gone"):
        TrialClient(FakeWorker(None, gone()), JOB).next_report()


@pytest.mark.parametrize("error", [TrialError("too large"), GetTimeoutError()])
def test_client_passes_on_what_no_restart_helps(error: Exception) -> None:
    worker = FakeWorker(None, error)
    with pytest.raises(type(error)):
        TrialClient(worker, JOB).next_report()
    assert len(worker.calls) == 2


def test_trial_keeps_to_its_worker_and_never_says_done() -> None:
    workers = [FakeWorker(), FakeWorker()]
    trial = object.__new__(TuneTrainable)
    trial.setup(JOB | {"worker": 1}, workers)
    result = trial.step()
    assert result["report"] == report(2)
    assert (result["number"], result["worker"], result["report"].tokens) == (7, 1, 64)
    assert "done" not in result
    assert trial.reset_config(JOB | {"number": 8})
    assert trial.step()["worker"] == 0
    trial.cleanup()  # type: ignore[no-untyped-call]
    assert "stop" not in workers[0].calls + workers[1].calls


def test_client_is_thin() -> None:
    """A process without torch takes 116 MB instead of 244 MB."""
    heavy = {"torch", "model.spec.trial", "pydantic.main"}
    code = f"import sys, tuner.workers.client; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "model.spec.trial" not in done.stdout
