"""Ray Tune's trainable: a thin client of a worker.

This module imports neither torch nor the trainer, so that a client's process stays small.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorDiedError, RayActorError
from typing_extensions import override

from model.engine.report import Report
from tuner.errors import WorkerError
from tuner.workers.assignment import Assignment

_MOST_DEATHS = 3  # of a worker before the next report of a trial: the trial may be the cause
_RESTART_SECONDS = 600.0  # longest wait for a worker that Ray restarts
_RETRY_SECONDS = 0.2  # between two pings of a worker that Ray restarts


class TrialClient:
    """Reads the reports of one assignment, also if its worker dies and is restarted.

    Args:
        worker: handle of the worker.
        assignment: the segment to train.
    """

    def __init__(self, worker: Any, assignment: Assignment) -> None:
        self._worker, self._assignment = worker, assignment
        self._is_started = False

    def next_report(self) -> Report:
        """Return the report after the previous one; restart the segment if the worker died.

        Raises:
            TrialError: if the trial cannot be trained.
            RuntimeError: if the worker died three times before this report, or does not restart;
                the message has the reason.
        """
        trial_id, reason = self._assignment.trial_id, ""
        for death in range(_MOST_DEATHS):
            if death:
                self._wait_for_worker(reason)
            try:
                report = self._request_report()
            except (RayActorError, WorkerError) as error:
                reason = _in_one_line(error)
                self._is_started = False
            else:
                # After a restart the worker resumes from the checkpoint of this report.
                self._assignment = replace(
                    self._assignment, after=report.step, source=(trial_id, report.step)
                )
                return report
        raise RuntimeError(
            f"the worker of trial {trial_id} died {_MOST_DEATHS} times before its next report: "
            f"{reason}"
        )

    def _request_report(self) -> Report:
        assignment = self._assignment
        if not self._is_started:
            ray.get(self._worker.start.remote(assignment))
            self._is_started = True
        report: Report = ray.get(
            self._worker.next_report.remote(assignment.trial_id, assignment.after)
        )
        return report

    def _wait_for_worker(self, reason: str) -> None:
        """Return when the worker answers again.

        Args:
            reason: why the worker died, for the message of the error.

        Raises:
            RuntimeError: if the worker does not answer in time, or Ray has given it up.
        """
        trial_id = self._assignment.trial_id
        deadline = time.monotonic() + _RESTART_SECONDS
        while time.monotonic() < deadline:
            try:
                # A worker whose engine broke still answers until its process ends.
                if ray.get(self._worker.ping.remote())["is_healthy"]:
                    return
            except ActorDiedError as error:  # Ray does not restart it any more
                raise RuntimeError(
                    f"the worker of trial {trial_id} cannot be restarted: "
                    f"{_in_one_line(error)}; it died of: {reason}"
                ) from error
            except RayActorError:
                pass  # Ray is restarting it
            time.sleep(_RETRY_SECONDS)
        raise RuntimeError(
            f"the worker of trial {trial_id} did not restart within "
            f"{_RESTART_SECONDS:.0f} seconds: {reason}"
        )


def _in_one_line(error: Exception) -> str:
    """Join the first and the last line of Ray's message: the event and its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, WorkerError):
        return lines[-1]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


class TuneTrainable(tune.Trainable):
    """One assignment as a Ray Tune trial, or none: then it waits for the scheduler to end it.

    Only the driver calls `Worker.stop`: when Tune ends a client, the client does not know whether
    the driver has already assigned the next segment of its trial to another slot.
    """

    @override
    def setup(self, config: dict[str, Any], workers: Sequence[Any] = ()) -> None:
        self._workers = workers
        self._accept(config)

    def _accept(self, config: dict[str, Any]) -> None:
        self._assignment: Assignment | None = config["assignment"]
        self._wait_seconds: float = config["wait_seconds"]
        if self._assignment is not None:
            self._client = TrialClient(self._workers[self._assignment.worker], self._assignment)

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._accept(new_config)
        return True  # otherwise Tune marks the trial as failed

    @override
    def step(self) -> dict[str, Any]:
        # Never "done": the scheduler says when to stop. The metrics stay inside the report,
        # because Tune keeps a history of each top-level metric for each trial.
        if self._assignment is None:
            time.sleep(self._wait_seconds)
            return {"report": None}
        report = self._client.next_report()
        return {
            "report": report,
            "number": self._assignment.number,
            "worker": self._assignment.worker,
        }
