"""Searches whose workers are threads of this process, where Ray is not the subject.

A local Ray costs 9 s of a core, in which its processes import torch and Ray Tune, before anything
trains. `Worker`, the reader of its reports, driver, journal and record are the real ones: only the
actors, their calls, and the loop of Ray Tune are replaced. Searches in processes of their own run
on Ray, or, where the process is the subject and Ray is not, run this file as `tuner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

_STEP_SECONDS = 0.1  # between two ticks of the driver, as with Ray Tune


class ThreadWorker:
    """A worker with an event loop in a thread; called as the handle of an actor is."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        from tuner.workers.worker import Worker

        self._worker = Worker(*arguments, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker", daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._loop, getattr(self._worker, name))

    def end(self) -> None:
        """End all threads; calling it again changes nothing."""
        if self._loop.is_closed():
            return
        engine = self._worker._thread
        if engine is not None:
            self._worker._commands.put(sys.exit)
            engine.join()
        ends = self._loop.shutdown_default_executor()
        asyncio.run_coroutine_threadsafe(ends, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Method:
    def __init__(self, loop: asyncio.AbstractEventLoop, method: Callable[..., Any]) -> None:
        self._loop, self._method = loop, method

    def remote(self, *arguments: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._method(*arguments), self._loop)


def _get(answer: Future[Any], *, timeout: float | None = None) -> Any:
    return answer.result(timeout)


def _wait(
    answers: Sequence[Future[Any]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[Future[Any]], list[Future[Any]]]:
    until = FIRST_COMPLETED if num_returns == 1 else ALL_COMPLETED
    done, _ = wait(answers, timeout, until)
    ready = [answer for answer in answers if answer in done][:num_returns]
    return ready, [answer for answer in answers if answer not in ready]


def _train(
    driver: Any, workers: Sequence[Any], slots: int, folder: Path, resources: Mapping[str, float]
) -> None:
    from tuner.workers.client import BatchReader

    reader = BatchReader(dict(enumerate(workers)))
    while not driver.is_over:
        driver.tick()
        driver.record(reader.next_batches())


@contextlib.contextmanager
def threads_for_ray() -> Iterator[None]:
    """Let searches on this machine train in threads while the block runs."""
    from tuner.workers.ray_session import RaySession

    made: list[ThreadWorker] = []

    def make(number: int, splits: Sequence[Any], slots: int, device: str,
             folders: tuple[str, str], *, decode: Any, is_cluster: bool, **options: Any,
             ) -> list[ThreadWorker]:  # fmt: skip
        assert not is_cluster
        arguments = (*splits, slots, device, *folders, decode)
        new = [ThreadWorker(*arguments, **options) for _ in range(number)]
        made.extend(new)
        return new

    @contextlib.contextmanager
    def session(
        address: str | None, corpus_bytes: int, *, on_wait: Callable[[], None], keep_logs: bool,
    ) -> Iterator[RaySession]:  # fmt: skip
        assert address is None
        with TemporaryDirectory() as folder:
            try:
                yield RaySession(None, Path(folder), {})
            finally:
                while made:
                    made.pop().end()

    with (
        patch("tuner.workers.ray_session.ray_session", session),
        patch("tuner.workers.devices._num_gpus", lambda: 0),
        patch("tuner.workers.cluster.make_workers", make),
        patch("tuner.workers.client._LONGEST_STEP_SECONDS", _STEP_SECONDS),
        patch("tuner.driver.ray_tune.run_ray_tune", _train),
        patch("ray.get", _get),
        patch("ray.wait", _wait),
        patch("ray.kill", lambda worker, **_: worker.end()),
    ):
        yield


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which `python -m tuner` would not have
    from tuner.__main__ import run_process

    with threads_for_ray():
        run_process()
