"""The Ray Tune trainable: a thin client of a worker.

It imports neither torch nor the trainer, so that hundreds of trials cost next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorDiedError, RayActorError

from model.engine.report import Report
from tuner.errors import WorkerError

_MOST_DEATHS = 3  # of a worker before the next report of a trial: it may be the trial's fault
_RETURNS_WITHIN_SECONDS = 600.0
_PATIENCE_SECONDS = 0.2  # between two attempts to reach a worker that is being started


class TrialClient:
    """One leg of one trial, on one worker; it survives the worker's death.

    Args:
        worker: the handle of the worker.
        job: number, spec, after, source and reports, as `Worker.start` takes them.
    """

    def __init__(self, worker: Any, job: Mapping[str, Any]) -> None:
        self._worker = worker
        self._trial_id = str(job["number"])
        self._spec: str = job["spec"]
        self._reports: list[dict[str, Any]] | None = job["reports"]
        self._after: int = job["after"]
        self._source: tuple[str, int] | None = tuple(job["source"]) if job["source"] else None
        self._is_started = False

    def next_report(self) -> Report:
        """The report after the last one, however often the worker has to be started again.

        Raises:
            TrialError: if the trial cannot be trained.
            RuntimeError: if the worker died again and again before the report, with the reason;
                or does not come back.
        """
        reason = ""
        for death in range(_MOST_DEATHS):
            if death:
                self._wait_for_worker(reason)
            try:
                report = self._ask()
            except (RayActorError, WorkerError) as error:
                reason = _in_one_line(error)
                self._is_started = False
            else:
                self._after, self._source = report.step, (self._trial_id, report.step)
                return report
        raise RuntimeError(
            f"the worker of trial {self._trial_id} died {_MOST_DEATHS} times before its next "
            f"report: {reason}"
        )

    def _ask(self) -> Report:
        if not self._is_started:
            job = self._trial_id, self._spec, self._after, self._source, self._reports
            ray.get(self._worker.start.remote(*job))
            self._is_started = True
        report: Report = ray.get(self._worker.next_report.remote(self._trial_id, self._after))
        return report

    def _wait_for_worker(self, reason: str) -> None:
        """Return when the worker answers again.

        Raises:
            RuntimeError: if it does not.
        """
        deadline = time.monotonic() + _RETURNS_WITHIN_SECONDS
        while time.monotonic() < deadline:
            try:
                if ray.get(self._worker.pulse.remote())["is_well"]:
                    return
            except ActorDiedError as error:  # Ray has given it up
                raise RuntimeError(
                    f"the worker of trial {self._trial_id} cannot be started again: "
                    f"{_in_one_line(error)}; it died of: {reason}"
                ) from error
            except RayActorError:
                pass  # Ray is starting it
            time.sleep(_PATIENCE_SECONDS)
        raise RuntimeError(
            f"the worker of trial {self._trial_id} has not come back in "
            f"{_RETURNS_WITHIN_SECONDS:.0f} seconds: {reason}"
        )


def _in_one_line(error: Exception) -> str:
    """The first and the last line of what Ray says: what happened, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, WorkerError):
        return lines[-1]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


class TuneTrainable(tune.Trainable):
    """One leg of one trial, for Ray Tune.

    Whoever decides frees the slot: `Worker.stop` is the driver's. A client that is told to end
    does not know whether the trial trains on elsewhere by then.
    """

    def setup(self, config: dict[str, Any], workers: Sequence[Any] = ()) -> None:
        """Take over a job: number, spec, worker, after, source and reports."""
        self._workers = workers
        self._take(config)

    def _take(self, job: dict[str, Any]) -> None:
        self._number: int = job["number"]
        self._index: int = job["worker"]
        self._client = TrialClient(self._workers[self._index], job)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial; without True, Tune would fail it."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next report, as Tune wants it; never "done": the scheduler says when to stop."""
        report = self._client.next_report()
        return {  # without the metrics themselves, of which Tune keeps a history for each trial
            "report": report,
            "number": self._number,
            "worker": self._index,
        }
