"""Processes that train at one time, told when; and NVIDIA's service to share a GPU among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion_sides import Job

_MPS = "nvidia-cuda-mps-control"


class SideError(Exception):
    """A side cannot do what it is asked: memory, a compiler or something else is missing."""


def _serve(link: Connection) -> None:
    """A process: gets each job ready, says the losses it reached, and trains when it is told to."""
    warnings.filterwarnings("ignore")  # of torch, about how it computes
    try:
        from fusion_sides import release, side_of

        side = None
        while (told := link.recv()) is not None:
            if isinstance(told, float):
                assert side is not None
                link.send(side.rate(told))
            else:
                side = None
                release(told.device)
                side = side_of(told)
                link.send(side.losses())
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        link.send(f"{type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[0]}")


class Group:
    """Processes that share the device; each has a job at a time.

    Args:
        jobs: the first one of each, which they begin at once.
        environment: variables that these processes see and no others.

    Attributes:
        losses: seed → mean training loss of the first updates, once they are ready.
    """

    def __init__(self, jobs: Sequence[Job], environment: dict[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.losses: dict[int, float] = {}
        self._links: list[Any] = []
        self._processes: list[Any] = []
        with _environment(environment or {}):
            for _ in jobs:
                mine, its = context.Pipe()
                process = context.Process(target=_serve, args=(its,))
                process.start()
                its.close()  # so that the end of the process is heard
                self._links.append(mine)
                self._processes.append(process)
        self.begin(jobs)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Give each process another job in place of its last."""
        self.losses = {}
        for link, job in zip(self._links, jobs, strict=True):
            link.send(job)

    def get_ready(self) -> None:
        """Wait until all are warm.

        Raises:
            SideError: if one of them cannot.
        """
        for losses in self._heard():
            self.losses |= losses

    def rate(self, seconds: float) -> float:
        """What all of them together did in a second.

        Raises:
            SideError: if one of them cannot.
        """
        return float(sum(self._heard(float(seconds))))

    def _heard(self, told: float | None = None) -> list[Any]:
        """What each process says next, after it is told something."""
        try:
            for link in self._links:
                if told is not None:
                    link.send(told)
            said = [link.recv() for link in self._links]
        except (EOFError, ConnectionError) as error:
            raise SideError("a process ended without a word") from error
        for each in said:
            if isinstance(each, str):
                raise SideError(each)
        return said

    def close(self) -> None:
        """End the processes."""
        for link in self._links:
            with contextlib.suppress(OSError):
                link.send(None)
            link.close()
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.kill()
                process.join()


@contextlib.contextmanager
def _environment(given: dict[str, str]) -> Iterator[None]:
    """Variables that processes started here inherit."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def multi_process_service() -> Iterator[tuple[dict[str, str], str]]:
    """NVIDIA's MPS for as long as it is needed: what its clients' environment says, and a note.

    Without it, kernels of different processes take turns on a GPU.
    """
    if shutil.which(_MPS) is None:
        yield {}, f"The processes share the GPU without MPS: there is no {_MPS}."
        return
    with tempfile.TemporaryDirectory() as folder:
        given = {f"CUDA_MPS_{name}_DIRECTORY": str(Path(folder, name)) for name in ("PIPE", "LOG")}
        for path in given.values():
            Path(path).mkdir()
        environment = os.environ | given
        command = [_MPS, "-d"]
        begun = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if begun.returncode:
            reason = (begun.stderr or begun.stdout).strip() or f"status {begun.returncode}"
            yield {}, f"The processes share the GPU without MPS, which did not start: {reason}."
            return
        try:
            if _can_be_used(environment):
                yield given, "The processes share the GPU through MPS."
            else:
                yield {}, "The processes share the GPU without MPS: it started, but cannot be used."
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [_MPS], env=environment, input="quit\n", text=True, check=False, timeout=30
                )


def _can_be_used(environment: dict[str, str]) -> bool:
    """Whether a client of MPS finds the GPU; in some containers it does not."""
    command = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda').cpu()"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
