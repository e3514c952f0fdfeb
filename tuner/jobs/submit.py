"""Hands a search over to a process that outlives the terminal, here or in a Ray cluster.

The process is `tuner search` with the same arguments. It writes what it prints to a log in the
home, so that every machine that sees the home can read it, also after a cluster was restarted.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.errors import JournalInUse, TunerError
from tuner.home import Home
from tuner.journal.journal import read_search
from tuner.lease.folder import is_running, newest

_POLL_SECONDS = 0.2


class Submission:
    """A driver that was started.

    Args:
        name: name of the search.
        home: home of the search.
        who: which process or job it is.
        status: function that returns its exit status; None while it runs.
        log_start: length of the log before.
    """

    def __init__(
        self,
        name: str,
        home: Home,
        who: str,
        status: Callable[[], int | None],
        log_start: int,
    ) -> None:
        self.name, self.who = name, who
        self._folder, self._status = home.search(name), status
        self._log, self._read = home.log(name), log_start
        before = newest(self._folder)
        self._epoch = before.epoch if before else 0

    def wait(self, on_line: Callable[[str], None]) -> int | None:
        """Wait until the driver has the search, or ends; return its exit status if it has ended.

        Args:
            on_line: function to call with each line that the driver prints meanwhile.
        """
        while True:
            status = self._status()
            for line in self._lines():
                on_line(line)
            if status is not None or self._has_begun():
                return status
            time.sleep(_POLL_SECONDS)

    def _has_begun(self) -> bool:
        now = newest(self._folder)
        if now is None or now.epoch <= self._epoch or not is_running(self._folder):
            return False
        return read_search(self._folder) is not None

    def _lines(self) -> list[str]:
        """Return the complete lines that the driver has printed since the last call."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        return data.decode(errors="replace").splitlines()


def free_name(space: str, home: Home) -> str:
    """Return the first name `SPACE-N` that no search and no log of a home has."""
    for number in itertools.count(1):
        name = f"{space}-{number}"
        if not home.search(name).exists() and not home.log(name).exists():
            return name
    raise AssertionError("names never end")


def submit(name: str, home: Home, arguments: Sequence[str]) -> Submission:
    """Start `tuner search` as a process of its own, in a session of its own.

    Args:
        name: name of the search.
        home: home of the search.
        arguments: arguments of `tuner search` but for the home.

    Raises:
        TunerError: if another process runs the search, or its log cannot be written.
    """
    log, command = _prepared(name, home, arguments)
    start = log.stat().st_size
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    return Submission(name, home, f"process {process.pid}", process.poll, start)


def submit_to_ray(name: str, home: Home, arguments: Sequence[str], address: str) -> Submission:
    """Start `tuner search` as a job of a Ray cluster, on its head, with `--address auto`.

    The cluster must see the home, this folder and this Python at the same paths.

    Args:
        name: name of the search.
        home: home of the search.
        arguments: arguments of `tuner search` but for the home; the last --address counts.
        address: address of the cluster's dashboard, as http://HOST:8265.

    Raises:
        TunerError: as `submit`; or if the cluster does not answer, or refuses.
    """
    log, command = _prepared(name, home, [*arguments, "--address", "auto"])
    start = log.stat().st_size
    try:
        from ray.job_submission import JobStatus, JobSubmissionClient
    except ImportError as error:
        raise TunerError(
            f"jobs of Ray need its dashboard ({error}); run pip install 'ray[default]' here and "
            f"on the head of the cluster"
        ) from error
    where, line = shlex.quote(str(Path.cwd())), shlex.join(command)
    attempt = time.strftime("%Y%m%d-%H%M%S")
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=f"cd {where} && exec {line} >>{shlex.quote(str(log))} 2>&1 </dev/null",
            submission_id=f"{name}-{attempt}",
            metadata={"tuner.search": name},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TunerError(
            f"the Ray cluster at {address} takes no job: {' '.join(str(error).split())}; --address "
            f"must be that of its dashboard, as http://HOST:8265"
        ) from error

    def status() -> int | None:
        now = client.get_job_status(job)
        if not now.is_terminal():
            return None
        return 0 if now == JobStatus.SUCCEEDED else 1

    return Submission(name, home, f"job {job} of {address}", status, start)


def _prepared(name: str, home: Home, arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the log, with a line that begins this driver's part, and the command."""
    folder = home.search(name)
    if is_running(folder):
        holder = newest(folder)
        raise JournalInUse(
            f"{name} is running already, by {holder.text if holder else 'another process'}; "
            f"'tuner attach {name}' shows it"
        )
    command = [sys.executable, "-m", "tuner", "search", *arguments, "--home", str(home.root)]
    log = home.log(name)
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  tuner search, {name}\n")
    except OSError as error:
        raise TunerError(f"cannot write {log}: {error.strerror}") from error
    return log, command
