"""Runs the measurements of a part in a process of its own, within a budget of time.

The process is killed with its descendants when it hangs or time is over, and started again after a
failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parts.gpu.measurement import Measurement, Where
from parts.gpu.record import Record
from parts.measuring import module_command

_START_SECONDS = 180.0  # longest start of a process: torch, and the context of a GPU
_HANGS = 4  # times the expected time, after which a measurement counts as hung …
_AT_LEAST = 90.0  # … but not before so many seconds


class RefusedError(Exception):
    """The device does not exist."""


class TimeOverError(Exception):
    """A process did not answer in time."""


class Child:
    """A process of `parts.gpu.child`.

    Args:
        part: name of the part.
        where: device and scale.
        log: file to which its messages are appended.
        seconds: longest time until it is ready.

    Attributes:
        about: device, versions and date, from the process.

    Raises:
        RefusedError: if there is no such device.
        TimeOverError: if the process is not ready in time.
        ChildProcessError: if the process ends.
    """

    def __init__(self, part: str, where: Where, log: Path, seconds: float) -> None:
        command, environment = module_command("parts.gpu.child", part, json.dumps(asdict(where)))
        if not where.on_gpu:
            environment = environment | {"TRITON_INTERPRET": "1"}  # kernels without a GPU
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # a group of its own, which `kill` ends
            )
        self._rest = b""
        try:
            hello = self._reply(min(seconds, _START_SECONDS))
            if "refused" in hello:
                raise RefusedError(hello["refused"])
        except BaseException:
            self.kill()
            raise
        self.about: Mapping[str, Any] = hello["about"]

    def measure(self, name: str, seconds: float, known: Mapping[str, Any]) -> dict[str, Any]:
        """Make a measurement.

        Args:
            name: name of the measurement.
            seconds: time that it may take.
            known: measurements that were made before.

        Returns:
            The reply of the process: `numbers` or `failure`.

        Raises:
            TimeOverError: if it takes longer; the process must then be killed.
            ChildProcessError: if the process ends.
        """
        assert self._process.stdin is not None
        request = json.dumps({"name": name, "limit": seconds, "known": known}) + "\n"
        with contextlib.suppress(BrokenPipeError):  # `_reply` says that the process has ended
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        return self._reply(seconds)

    def _reply(self, seconds: float) -> dict[str, Any]:
        """Read one line of the process."""
        assert self._process.stdout is not None
        pipe, ends = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeOverError
            chunk = os.read(pipe, 2**16)
            if not chunk:
                status = self._process.wait()
                raise ChildProcessError(f"the process ended with status {status}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def kill(self) -> None:
        """End the process and its descendants."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def run(
    measurements: Mapping[str, Measurement],
    record: Record,
    start: Callable[[float], Child],
    first: Child,
    deadline: float,
    told: Callable[[str, str, float], None],
) -> list[str]:
    """Make the measurements that the record lacks, in their order, until the deadline.

    Args:
        measurements: all measurements of the part, the most important ones first.
        record: takes each measurement as soon as it is made.
        start: starts a process that must be ready after so many seconds.
        first: a process that is ready.
        deadline: of `time.monotonic()`.
        told: is told the name of a measurement, how it went, and its seconds.

    Returns:
        Names of the measurements for which no time was left.
    """
    runner = _Runner(record, start, first, deadline)
    unreached = []
    try:
        for name, (_, expected) in measurements.items():
            if name in record.numbers:
                continue
            if deadline - time.monotonic() < max(expected, 0.1):
                unreached.append(name)  # a later, shorter one may still have time
                continue
            began = time.monotonic()
            reply = runner.reply(name, max(_AT_LEAST, _HANGS * expected))
            seconds = time.monotonic() - began
            if reply is None:
                unreached.append(name)
                told(name, "cut off, time is over", seconds)
                continue
            record.add(name, seconds, numbers=reply.get("numbers"), failure=reply.get("failure"))
            told(name, reply.get("failure", "done"), seconds)
    finally:
        runner.end()
    return unreached


class _Runner:
    """The current process, which is replaced after a failure; arguments as for `run`."""

    def __init__(
        self, record: Record, start: Callable[[float], Child], first: Child, deadline: float
    ) -> None:
        self._record, self._start, self._deadline = record, start, deadline
        self._child: Child | None = first

    def reply(self, name: str, longest: float) -> dict[str, Any] | None:
        """Make a measurement within some seconds; return None if the deadline came first."""
        try:
            self._child = self._child or self._start(self._deadline - time.monotonic())
            left = self._deadline - time.monotonic()
            reply = self._child.measure(name, min(left, longest), self._record.numbers)
        except TimeOverError:
            self.end()
            if time.monotonic() >= self._deadline - 1:
                return None
            return {"failure": f"took longer than {longest:.0f} s, and was ended"}
        except (ChildProcessError, RefusedError) as error:
            reply = {"failure": str(error)}
        if "failure" in reply:
            self.end()
        return reply

    def end(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.kill()
        self._child = None
