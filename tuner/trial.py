"""The Ray Tune trainable: a thin client of a worker.

It imports neither torch nor the trainer, so that hundreds of trials cost next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

# Exact resource: Tune starts a client for each slot, and no more than it can use.
SLOT = "tune_slot"


class Trial(tune.Trainable):
    """One trial: starts on the worker with most room, waits for its reports, stops there."""

    def setup(self, config: dict[str, Any], workers: Sequence[Any] = ()) -> None:
        """Take over a configuration made by `searcher.OptunaSearcher.suggest`."""
        self._workers = workers
        self._take(config)

    def _take(self, config: dict[str, Any]) -> None:
        self._worker: int | None = None
        self._number: int = config["number"]
        self._spec: str = config["spec"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial; without True, Tune would fail it."""
        self.cleanup()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next report, as Tune wants it."""
        if self._worker is None:
            self._worker = self._start()
        report = ray.get(self._workers[self._worker].next_report.remote(str(self._number)))
        return {
            **report.metrics(),
            "report": report,
            "worker": self._worker,
            "done": report.status != "training",
        }

    def _start(self) -> int:
        """Be admitted by the worker with the fewest trials; another client may be quicker."""
        while True:
            loads = self._loads()
            for worker, load in sorted(loads.items(), key=lambda item: item[1]):
                start = self._workers[worker].start.remote(str(self._number), self._spec, load)
                if ray.get(start):
                    return worker
            time.sleep(0.01)

    def _loads(self) -> dict[int, int]:
        """Trials on each worker that lives.

        Raises:
            RuntimeError: if none does.
        """
        loads: dict[int, int] = {}
        reason = ""
        for number, worker in enumerate(self._workers):
            try:
                loads[number] = ray.get(worker.load.remote())
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]
        if not loads:
            raise RuntimeError(f"no worker is alive: {reason}")
        return loads

    def cleanup(self) -> None:
        """Free the slot."""
        if self._worker is not None:
            self._workers[self._worker].stop.remote(str(self._number))
