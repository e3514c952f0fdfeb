"""Run one `tuner search`, and record how full its slots are and when they train.

    python -m parts.watched_search [--no-refill] FILE.json search --space … --json

runs `tuner search --space … --json` in this process and writes to the file:

    usage       `Worker.usage` of each worker, when the last trial ended
    jobs        number of jobs assigned to slots until then: new and resumed trials
    lacking     slot-seconds for which the search had no trial: near its end fewer trials are
                left than slots
    began       Unix time when the slots were first filled
    ended       Unix time when the last trial ended
    last        Unix time when the last new trial got a slot
    until_last  usage, jobs and lacking at `last`
    samples     for each worker, twice a second: [time, seconds in training so far]

With --no-refill a free slot waits until all slots are free.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.workers import cluster

PERIOD_SECONDS = 0.5


class Watch:
    """Records the occupancy of the slots of a search.

    Args:
        path: file to write.
        refill: True if a free slot gets the next trial at once.
    """

    def __init__(self, path: Path, *, refill: bool) -> None:
        self._path, self._refill = path, refill
        self._workers: list[Any] = []
        self._free = self._jobs = 0  # slots without a trial; jobs assigned
        self._updated = self._lacking = 0.0
        self._record: dict[str, Any] = {}
        self._samples: list[list[tuple[float, float]]] = []
        self._start, self._fill = cluster.start_workers, Conductor.fill

    def begin(self) -> None:
        """Replace `start_workers` and `Conductor.fill` by versions that record their calls."""

        def start_workers(*args: Any, **options: Any) -> Any:
            workers = self._start(*args, **options)
            self._workers = workers
            threading.Thread(target=self._sample, daemon=True).start()
            return workers

        def fill(conductor: Conductor) -> list[Job]:
            waits = not self._refill and not conductor.is_over
            jobs = [] if waits else self._fill(conductor)
            self._jobs += len(jobs)
            self._note(conductor, new=any(not job.after for job in jobs))
            return jobs

        cluster.start_workers = start_workers
        Conductor.fill = fill  # type: ignore[method-assign, assignment]

    def _note(self, conductor: Conductor, *, new: bool) -> None:
        """Update the counts, because slots were freed or filled."""
        now = time.time()
        if self._updated:
            self._lacking += self._free * (now - self._updated)
        self._updated = now
        self._free = sum(lane.job is None for lane in conductor._lanes)
        self._record.setdefault("began", now)
        if new:
            self._record["last"] = now
            self._record["until_last"] = self._counts()
        if conductor.is_over:
            self._record |= {"ended": now, **self._counts()}
            self._record["samples"] = self._samples
            self._path.write_text(json.dumps(self._record))

    def _counts(self) -> dict[str, Any]:
        return {"usage": self._usage(), "lacking": self._lacking, "jobs": self._jobs}

    def _usage(self) -> list[dict[str, float]]:
        import ray

        usage: list[dict[str, float]] = ray.get([w.usage.remote() for w in self._workers])
        return usage

    def _sample(self) -> None:
        """Sample the training seconds of the workers until the search ends."""
        self._samples = [[] for _ in self._workers]
        while "ended" not in self._record:
            for samples, usage in zip(self._samples, self._usage(), strict=True):
                samples.append((time.time(), usage["training_seconds"]))
            time.sleep(PERIOD_SECONDS)


def main() -> int:
    """Run one search."""
    from tuner.cli import main as tuner

    arguments = sys.argv[1:]
    refill = "--no-refill" not in arguments
    path, *command = [argument for argument in arguments if argument != "--no-refill"]
    Watch(Path(path), refill=refill).begin()
    return tuner(command)


if __name__ == "__main__":
    sys.exit(main())
