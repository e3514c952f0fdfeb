"""Run one `tuner search`, and record how full its slots are and when they train.

    python -m parts.watched_search FILE.json search --space … --json

runs `tuner search --space … --json` in this process and writes to the file:

    usage       `Worker.usage` of each worker, when the last trial ended
    samples     for each worker, twice a second: [time, seconds in training so far]
    until_last  when the last new trial got a slot: usage; `jobs`, the number of jobs assigned to
                slots (new and resumed trials); `lacking`, slot-seconds without a trial to begin
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.workers import cluster

PERIOD_SECONDS = 0.5


def occupancy(counts: Mapping[str, Any]) -> dict[str, float]:
    """Return the shares of slot-time in `until_last`; nothing if all trials began at once."""

    def total(name: str) -> float:
        return float(sum(usage[name] for usage in counts["usage"]))

    slots, workers, seconds = counts["usage"][0]["slots"], len(counts["usage"]), total("seconds")
    refills = counts["jobs"] - slots * workers
    if refills <= 0:
        return {}
    idle = max(0.0, total("free_slot_seconds") - counts["lacking"])
    return {
        "seconds": seconds / workers,
        "idle": idle / (slots * seconds),
        "none_left": counts["lacking"] / (slots * seconds),
        "engine_idle": total("idle_seconds") / seconds,
        "training": total("training_seconds") / seconds,
        "refills": refills,
        "ms_per_refill": 1000 * idle / refills,
    }


class Watch:
    """Records the occupancy of the slots of a search.

    Args:
        path: file to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
            jobs = self._fill(conductor)
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
        if new:
            counts = {"lacking": self._lacking, "jobs": self._jobs}
            self._record["until_last"] = {"usage": self._usage(), **counts}
        if conductor.is_over:
            self._record |= {"usage": self._usage(), "samples": self._samples}
            self._path.write_text(json.dumps(self._record))

    def _usage(self) -> list[dict[str, float]]:
        import ray

        usage: list[dict[str, float]] = ray.get([w.usage.remote() for w in self._workers])
        return usage

    def _sample(self) -> None:
        """Sample the training seconds of the workers until the search ends."""
        self._samples = [[] for _ in self._workers]
        while "usage" not in self._record:
            for samples, usage in zip(self._samples, self._usage(), strict=True):
                samples.append((time.time(), usage["training_seconds"]))
            time.sleep(PERIOD_SECONDS)


def main() -> int:
    """Run one search."""
    from tuner.cli import main as tuner

    path, *command = sys.argv[1:]
    Watch(Path(path)).begin()
    return tuner(command)


if __name__ == "__main__":
    sys.exit(main())
