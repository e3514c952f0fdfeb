"""Groups of processes that train at one time, and NVIDIA's service for sharing a GPU (MPS)."""

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
    from parts.fusion.sides import Job

_MPS = "nvidia-cuda-mps-control"


class SideError(Exception):
    """A side cannot do its job: memory, a compiler or something else is missing."""


def _serve(link: Connection) -> None:
    """Run in a process: prepare each job, send its losses, and train for the seconds received."""
    warnings.filterwarnings("ignore")  # of torch, about how it computes
    try:
        from parts.fusion.sides import release, side_of

        side = None
        while (message := link.recv()) is not None:
            if isinstance(message, float):
                assert side is not None
                link.send(side.rate(message))
            else:
                side = None
                release(message.device)
                side = side_of(message)
                link.send(side.losses())
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        link.send(f"{type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[0]}")


class Group:
    """Processes that share the device; each has one job at a time.

    Args:
        jobs: first job of each process; the processes begin at once.
        environment: environment variables of these processes only.

    Attributes:
        losses: seed → mean training loss of the first updates, after `get_ready`.
    """

    def __init__(self, jobs: Sequence[Job], environment: dict[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.losses: dict[int, float] = {}
        self._links: list[Any] = []
        self._processes: list[Any] = []
        with _environment(environment or {}):
            for _ in jobs:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,))
                process.start()
                theirs.close()  # so that `recv` raises EOFError when the process ends
                self._links.append(ours)
                self._processes.append(process)
        self.begin(jobs)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Send each process its next job."""
        self.losses = {}
        for link, job in zip(self._links, jobs, strict=True):
            link.send(job)

    def get_ready(self) -> None:
        """Wait until all processes are warm.

        Raises:
            SideError: if a process fails.
        """
        for losses in self._replies():
            self.losses |= losses

    def rate(self, seconds: float) -> float:
        """Return the sum of the rates of all processes.

        Raises:
            SideError: if a process fails.
        """
        return float(sum(self._replies(float(seconds))))

    def _replies(self, message: float | None = None) -> list[Any]:
        """Send a message to each process, if there is one, and return their replies."""
        try:
            for link in self._links:
                if message is not None:
                    link.send(message)
            replies = [link.recv() for link in self._links]
        except (EOFError, ConnectionError) as error:
            raise SideError("a process ended without an error message") from error
        for reply in replies:
            if isinstance(reply, str):
                raise SideError(reply)
        return replies

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
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started within the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
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
    """Run NVIDIA's MPS; yield the environment of its clients, and a note for the result.

    Without it, kernels of different processes take turns on a GPU.
    """
    if shutil.which(_MPS) is None:
        yield {}, f"The processes share the GPU without MPS: there is no {_MPS}."
        return
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            f"CUDA_MPS_{name}_DIRECTORY": str(Path(folder, name)) for name in ("PIPE", "LOG")
        }
        for path in variables.values():
            Path(path).mkdir()
        environment = os.environ | variables
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
                yield variables, "The processes share the GPU through MPS."
            else:
                yield {}, "The processes share the GPU without MPS: it started, but cannot be used."
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [_MPS], env=environment, input="quit\n", text=True, check=False, timeout=30
                )


def _can_be_used(environment: dict[str, str]) -> bool:
    """Return True if a client of MPS finds the GPU; in some containers it does not."""
    command = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda').cpu()"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
