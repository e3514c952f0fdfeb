"""Ray Tune's trainable: a thin client of some workers, which reads the reports of all their trials.

This module imports neither torch nor the trainer, so that a client's process stays small.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.exceptions import ObjectLostError, RayActorError
from typing_extensions import override

from tuner.workers.batch import ReportBatch

_RETRY_SECONDS = 0.2  # between two calls of a worker that Ray restarts
_BROKEN_SECONDS = 1.0  # until a worker whose engine broke has ended
_LONGEST_STEP_SECONDS = 5.0  # without news: Tune can end a client only between two steps


class BatchReader:
    """Reads the batches of some workers, also of those that die and are restarted.

    It only reads: the driver starts the trials of a worker again that was restarted.

    Args:
        workers: handles of the workers, by index.
    """

    def __init__(self, workers: Mapping[int, Any]) -> None:
        self._workers = workers
        self._received: dict[int, dict[int, int]] = {index: {} for index in workers}
        self._calls: dict[Any, int] = {}  # Ray reference to an answer → worker
        self._not_before = dict.fromkeys(workers, 0.0)  # time of the next call

    def next_batches(self) -> list[tuple[int, ReportBatch]]:
        """Wait until a worker has news, at most some seconds.

        Call this again only when the batches of the last call have been taken: it tells the workers
        so.

        Returns:
            The batches that have come, each with the index of its worker.
        """
        batches: list[tuple[int, ReportBatch]] = []
        until = time.monotonic() + _LONGEST_STEP_SECONDS
        while not batches and time.monotonic() < until:
            self._call()
            if not self._calls:
                time.sleep(_RETRY_SECONDS)
                continue
            calls = [*self._calls]
            if ray.wait(calls, timeout=self._patience(until))[0]:
                answers, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
                batches = [pair for answer in answers if (pair := self._take(answer)) is not None]
        return batches

    def _patience(self, until: float) -> float:
        """Return the seconds to wait for an answer: another worker may be to call before."""
        is_paused = len(self._calls) < len(self._workers)
        left = max(0.0, until - time.monotonic())
        return min(left, _RETRY_SECONDS) if is_paused else left

    def _call(self) -> None:
        """Ask all workers that are not asked already."""
        now, asked = time.monotonic(), set(self._calls.values())
        for index, worker in self._workers.items():
            if index not in asked and now >= self._not_before[index]:
                self._calls[worker.next_reports.remote(self._received[index])] = index

    def _take(self, answer: Any) -> tuple[int, ReportBatch] | None:
        """Return the index and the batch of a worker that answered; None if it died."""
        index = self._calls.pop(answer)
        try:
            batch: ReportBatch = ray.get(answer)
        except (RayActorError, ObjectLostError):  # its node was lost, perhaps with a large answer
            self._not_before[index] = time.monotonic() + _RETRY_SECONDS
            return None
        if batch.broken:
            self._not_before[index] = time.monotonic() + _BROKEN_SECONDS
        self._received[index] = batch.received
        return index, batch


class TuneTrainable(tune.Trainable):
    """The client of some workers as a Ray Tune trial, which lasts as long as the search."""

    @override
    def setup(self, config: dict[str, Any], workers: Sequence[Any] = ()) -> None:
        self._reader = BatchReader({index: workers[index] for index in config["workers"]})

    @override
    def step(self) -> dict[str, Any]:
        # Never "done": the scheduler says when to stop. The metrics stay inside the reports,
        # because Tune keeps a history of each top-level metric.
        return {"batches": self._reader.next_batches()}
