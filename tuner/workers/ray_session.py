"""Connects to Ray: starts one on this machine for a search, or joins the cluster of the user."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from typing_extensions import override

from tuner import leaving
from tuner.errors import TunerError
from tuner.workers.ray_folder import ray_folder
from tuner.workers.ray_helpers import end_processes, without_helpers

_WAIT_SECONDS = 0.05  # between two calls of a function while Ray starts
_SMALLEST_OBJECT_STORE = 100_000_000  # bytes
# Custom Ray resource: each client of Tune takes one, so that Tune counts clients and not CPUs.
SLOT = "tune_slot"
# The number of clients is limited by max_concurrent_trials, because the number of devices is known
# only after Ray has started. So Ray only needs more of the resource than any search uses.
_MOST_SLOTS = 1_000_000
_CLIENT_SHARE = 0.001  # of the resource that marks a node of a cluster

# Keep Ray on loopback, without telemetry, and silent. Ray reads these when it is imported, so a
# program that has imported Ray before keeps its own settings.
_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers get the priority of the command, so that `nice` works as for any program. By default
    # Ray 2.60 lowers it by 15, and beside any other program a search would hardly train.
    "RAY_worker_niceness": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it replaces those of the driver, SIGTERM's too
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls by the driver: the clients receive the error
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler works only while trials train
}
# Ray's settings of the token by which its processes know each other.
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_TOKENS = ("RAY_AUTH_TOKEN", _TOKEN_PATH)


_STARTS = 2  # attempts to start a local Ray
_LAST_LINES, _LONGEST_REASON = 2, 400  # of Ray's log, in an error
_AUTO = "auto"  # address of a cluster that has a node on this machine
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class RaySession:
    """A Ray that a search may use.

    Attributes:
        address: address of the user's cluster; None if Ray runs on this machine for one search.
        folder: folder of the session of a local Ray, with its logs.
        client_resources: what Ray Tune asks for each client, which stays on this machine.
        checked: ids of the nodes that can train trials, as far as they were checked.
    """

    address: str | None
    folder: Path
    client_resources: dict[str, float]
    checked: frozenset[str] = frozenset()


@contextlib.contextmanager
def ray_session(
    address: str | None,
    corpus_bytes: int = 0,
    *,
    on_wait: Callable[[], None] = lambda: None,
    keep_logs: bool = False,
) -> Iterator[RaySession]:
    """Run a local Ray, or join a cluster, without output, until the block ends.

    Args:
        address: address of a cluster, from `cluster_address`; None for a local Ray.
        corpus_bytes: size of the data that the workers of a local Ray share.
        on_wait: function to call about twenty times a second meanwhile.
        keep_logs: True to keep the folder of a local Ray's session, with Ray's logs.

    Raises:
        TunerError: if the cluster cannot be joined.
    """
    size = max(_SMALLEST_OBJECT_STORE, 2 * corpus_bytes)
    thread = _RayThread(address, size, keep_logs=keep_logs)
    thread.start()
    try:
        while not thread.started.wait(_WAIT_SECONDS):
            on_wait()
        if thread.error is not None:
            raise thread.error
        yield thread.session
    finally:
        thread.ended.set()
        if not thread.started.is_set():  # interrupted: Ray's start cannot be, and may take a minute
            leaving.hasten()
        if not leaving.is_leaving():
            thread.join()


def cluster_address(address: str | None) -> str | None:
    """Return the address of the user's cluster; None if Ray shall run on this machine alone.

    Args:
        address: what the user says; None to read RAY_ADDRESS.

    Raises:
        TunerError: if nothing listens there, or a driver cannot run from there.
    """
    origin = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        return None
    if address == _AUTO:
        return address
    if "://" in address:
        raise TunerError(
            f"{origin} is {address}, but a search runs on a node of its cluster: log in there, and "
            f"use auto, or HOST:PORT of the head"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise TunerError(f"{origin} is {address}; use auto, local, or HOST:PORT, such as head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise TunerError(
            f"no Ray cluster answers at {address}: {getattr(error, 'strerror', None) or error}; "
            f"start one with 'ray start --head', or correct {origin}"
        ) from error
    return address


class _RayThread(threading.Thread):
    """A thread that connects to Ray, and ends the connection when `ended` is set.

    In the main thread, Ray would install handlers of its own for signals, and an interrupt in
    Ray's start would crash the interpreter. The thread lives as long as a local Ray, because the
    kernel ends Ray's processes with the thread that started them.

    Args:
        address: address of a cluster; None for a local Ray.
        object_store_bytes: size of the object store of a local Ray.
        keep_logs: True to keep the folder of a local Ray's session.

    Attributes:
        session: the session, once Ray has started.
        started: set when Ray has started, or cannot.
        error: why Ray cannot start; None if it can.
        ended: set by the caller when Ray shall end.
    """

    session: RaySession

    def __init__(self, address: str | None, object_store_bytes: int, *, keep_logs: bool) -> None:
        super().__init__(name="ray")
        self._address = address
        self._object_store_bytes, self._keep_logs = object_store_bytes, keep_logs
        self.started, self.ended = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    @override
    def run(self) -> None:
        # Ray's processes inherit the mask. A terminal that closes sends SIGHUP to all its
        # processes, and systemd or Slurm SIGTERM to all of a job; but the search needs its workers
        # until it has ended by itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
        try:
            with (
                ray_folder(keep=self._keep_logs) as folder,
                leaving.on_leaving(partial(end_processes, folder, keep=self._keep_logs)),
            ):
                if self._address is None:
                    with _local_environment(folder):
                        self._run_ray(folder)
                else:
                    mode = "token" if _asks_for_token(self._address) else "disabled"
                    _set_environment({**_RAY_ENVIRONMENT, "RAY_AUTH_MODE": mode})
                    self._run_ray(folder)
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the caller
            self.error = error
        finally:
            self.started.set()

    def _run_ray(self, folder: Path) -> None:
        import ray

        if self.ended.is_set():  # a signal came in the seconds of the import
            return
        logging.getLogger("ray").setLevel(logging.ERROR)  # Ray notes that this is a thread
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures
        if self._address is None:
            self._start(folder)
            resources: dict[str, float] = {SLOT: 1}
        else:
            _join(self._address)
            # a small part of what marks this node: the clients need no CPU that a worker may want
            node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            resources = {f"node:{node}": _CLIENT_SHARE}
        self.session = RaySession(self._address, folder, resources)
        try:
            self.started.set()
            self.ended.wait()
        finally:
            # Ray Tune leaves cycles behind, and their destructors call Ray. If another thread
            # collects them while Ray shuts down, Ray ends this process ("The core worker has
            # already been shutdown"): seen once, on a busy machine, after a search that its time
            # limit had halted.
            gc.collect()
            gc.disable()
            try:
                ray.shutdown()
            finally:
                gc.enable()

    def _start(self, folder: Path) -> None:
        """Start a local Ray; try once more, because a busy machine may be too slow for the first.

        Raises:
            TunerError: if Ray does not start, or runs in this process already.
        """
        import ray

        if ray.is_initialized():  # the program's own, which is not ours to shut down
            raise TunerError("this program runs Ray already; call ray.shutdown() before the search")
        for attempt in range(1, _STARTS + 1):
            begun = time.monotonic()
            try:
                with without_helpers(folder):
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        object_store_memory=self._object_store_bytes,
                        resources={SLOT: _MOST_SLOTS},
                        _temp_dir=str(folder / "ray"),
                    )
                return
            except Exception as error:
                ray.shutdown()
                if attempt == _STARTS or self.ended.is_set():
                    seconds = time.monotonic() - begun
                    raise not_started(folder / "ray", seconds, error) from error


def not_started(folder: Path, seconds: float, error: Exception) -> TunerError:
    """Return the error that a local Ray did not start, and keep its logs.

    Args:
        folder: folder of Ray's sessions, which is removed afterwards.
        seconds: time of the last attempt.
        error: what Ray says.
    """
    logs = sorted(folder.glob("session_2*/logs"))
    text = f"Ray did not start within {seconds:.0f} s, nor at another try"
    lines = [line for log in logs[-1:] for line in _last_lines(log)] or str(error).splitlines()[:1]
    said = " ".join(" ".join(lines).split())[-_LONGEST_REASON:]
    hint = "the machine may be too busy: repeat the command later"
    if logs:
        with contextlib.suppress(OSError):
            kept = Path(tempfile.mkdtemp(prefix="tuner-ray-logs-"))
            shutil.copytree(logs[-1], kept, dirs_exist_ok=True)
            hint += f"; Ray's logs are in {kept}"
    return TunerError(f"{text}: {said}; {hint}")


def _last_lines(logs: Path) -> list[str]:
    """Return the last lines of the logs that say why Ray's processes ended."""
    lines: list[str] = []
    for name in ("raylet.err", "gcs_server.err", "raylet.out", "gcs_server.out"):
        with contextlib.suppress(OSError):
            text = (logs / name).read_text(encoding="utf-8", errors="replace")
            lines += [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]
        if lines:
            break
    return lines


def _join(address: str) -> None:
    """Join a cluster.

    Raises:
        TunerError: if it cannot be joined.
    """
    import ray
    from ray.exceptions import AuthenticationError

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except AuthenticationError as error:
        raise TunerError(
            f"the Ray cluster at {address} asks for another token; put that of its head, which "
            f"'ray get-auth-token' prints there, into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error
    except ConnectionError as error:
        raise TunerError(
            f"cannot join the Ray cluster at {address}: this machine must be a node of it ('ray "
            f"start --address={address}'), and must have its token if it asks for one: "
            f"{' '.join(str(error).split())}"
        ) from error
    except RuntimeError as error:  # another version of Ray or Python
        raise TunerError(
            f"cannot join the Ray cluster at {address}: {' '.join(str(error).split())}"
        ) from error


def _set_environment(values: Mapping[str, str]) -> None:
    if "ray" not in sys.modules:
        for key, value in values.items():
            os.environ.setdefault(key, value)


def _asks_for_token(address: str) -> bool:
    """Return True if a cluster answers only to processes that have its token.

    Ray reads the mode once in a process, and a process that asks others for a token in a cluster
    without one is taken for dead: its actors never start. So another process finds out.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if address != _AUTO:
        command += ["--address", address]
    done = subprocess.run(
        command, env={**os.environ, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode != 0 and "AuthenticationError" in done.stderr


@contextlib.contextmanager
def _local_environment(folder: Path) -> Iterator[None]:
    """Set Ray's settings, and keep the token of the session in its private folder.

    By default Ray keeps one token for all sessions in `~/.ray`, where others may read it, and which
    some machines do not have or cannot write.
    """
    _set_environment({**_RAY_ENVIRONMENT, "RAY_AUTH_MODE": "token"})
    if not os.environ.keys().isdisjoint(_TOKENS):  # the user's own
        yield
        return
    path = folder / "token"
    path.touch(0o600, exist_ok=False)
    path.write_text(_token(), encoding="ascii")
    os.environ[_TOKEN_PATH] = str(path)
    try:
        yield
    finally:
        os.environ.pop(_TOKEN_PATH, None)


@cache
def _token() -> str:
    """Return the token of all sessions of this process, because Ray reads a token only once."""
    if "ray" in sys.modules:  # the program may have run Ray already, with its usual token
        with contextlib.suppress(OSError, RuntimeError):  # no such file, no home
            return (Path.home() / ".ray" / "auth_token").read_text(encoding="ascii").strip()
    return secrets.token_hex(32)
