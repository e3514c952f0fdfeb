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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from model.files import NotRegular
from tuner.errors import JournalInUse, TunerError
from tuner.home.home import Home
from tuner.journal.journal import read_search
from tuner.lease.folder import is_running, newest
from tuner.notify.receivers import environment_of

_POLL_SECONDS = 0.2
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_LOGGED = "from tuner.jobs.submit import run_logged; run_logged()"


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
        self._home, self._read = home, log_start
        before = newest(self._folder)
        self._epoch = before.epoch if before else 0

    @property
    def exit_status(self) -> int | None:
        """Exit status of the driver; None while it runs."""
        return self._status()

    def wait(self, on_line: Callable[[str], None]) -> int | None:
        """Wait until the driver has the search, or ends; return its exit status if it has ended.

        Args:
            on_line: function to call with each line that the driver prints meanwhile.
        """
        while True:
            status = self.exit_status
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
            with os.fdopen(self._home.open_log(self.name), "rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        return data.decode(errors="replace").splitlines()


def free_name(space: str, home: Home, first: int = 1) -> str:
    """Return the first name `SPACE-N` from a number on that no search and no log of a home has."""
    for number in itertools.count(first):
        name = f"{space}-{number}"
        if not home.search(name).exists() and not home.log(name).exists():
            return name
    raise AssertionError("names never end")


def submit(
    name: str,
    home: Home,
    arguments: Sequence[str],
    urls: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Submission:
    """Start `tuner search` as a process of its own, in a session of its own.

    Args:
        name: name of the search.
        home: home of the search.
        arguments: arguments of `tuner search` but for the home and the URLs.
        urls: who gets messages; handed over out of sight of other users.
        environment: variables of the process beside those of this one.

    Raises:
        TunerError: if another process runs the search, or its log cannot be written.
    """
    command = _command(name, home, arguments)
    log, start = _begun_log(name, home)
    own = {"PYTHONUNBUFFERED": "1", **environment, **environment_of(urls)}
    with os.fdopen(log, "ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, **own},
        )  # fmt: skip
    return Submission(name, home, f"process {process.pid}", process.poll, start)


def submit_to_ray(
    name: str, home: Home, arguments: Sequence[str], address: str, urls: Sequence[str] = ()
) -> Submission:
    """Start `tuner search` as a job of a Ray cluster, on its head, with `--address auto`.

    The cluster must see the home, this folder and this Python at the same paths.

    Args:
        name: name of the search.
        home: home of the search.
        arguments: arguments of `tuner search` but for the home and the URLs; the last --address
            counts.
        address: address of the cluster's dashboard, as http://HOST:8265.
        urls: who gets messages; whoever may use the dashboard sees them.

    Raises:
        TunerError: as `submit`; or if the cluster does not answer, or refuses.
    """
    command = _command(name, home, [*arguments, "--address", "auto"])
    log, start = _begun_log(name, home)
    os.close(log)
    try:
        from ray.job_submission import JobStatus, JobSubmissionClient
    except ImportError as error:
        raise TunerError(
            f"jobs of Ray need its dashboard ({error}); run pip install 'ray[default]' here and "
            f"on the head of the cluster"
        ) from error
    where = shlex.quote(str(Path.cwd()))
    line = shlex.join([sys.executable, "-c", _LOGGED, str(home.root), name, *command])
    attempt = time.strftime("%Y%m%d-%H%M%S")
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=f"cd {where} && exec {line} </dev/null",
            submission_id=f"{name}-{attempt}",
            metadata={"tuner.search": name},
            runtime_env={"env_vars": environment_of(urls)},
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


def run_logged() -> None:
    """Become the command of the arguments, whose output goes to the log of a search: a job of Ray.

    A shell would follow a link that somebody lays in the place of the log.
    """
    root, name, *command = sys.argv[1:]
    log = Home.of(root).open_log(name, _APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.execv(command[0], command)


def _command(name: str, home: Home, arguments: Sequence[str]) -> list[str]:
    """Return the command of a driver, unless a search is running."""
    folder = home.search(name)
    if is_running(folder):
        holder = newest(folder)
        raise JournalInUse(
            f"{name} is running already, by {holder.text if holder else 'another process'}; "
            f"'tuner attach {name}' shows it"
        )
    return [sys.executable, "-m", "tuner", "search", *arguments, "--home", str(home.root)]


def _begun_log(name: str, home: Home) -> tuple[int, int]:
    """Return the open log of a search, with a line that begins a driver's part, and its length."""
    path = home.log(name)
    try:
        path.parent.mkdir(exist_ok=True)
        log = home.open_log(name, _APPEND)
        os.write(log, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  tuner search, {name}\n".encode())
    except NotRegular as error:
        raise TunerError(str(error)) from error
    except OSError as error:
        raise TunerError(f"cannot write {path}: {error.strerror}") from error
    return log, os.fstat(log).st_size
