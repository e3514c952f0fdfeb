"""Starts a local Ray on this machine, and the workers in it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import override

from model.corpus.corpus import Corpus
from model.spec.trial import TrialSpec
from tuner.workers.devices import Devices
from tuner.workers.ray_folder import ray_folder
from tuner.workers.ray_helpers import without_helpers

_ANSWER_SECONDS = 10.0
_WAIT_SECONDS = 0.05  # between two calls of a function while Ray starts
_MOST_CALLS = 10_000  # waiting in one worker at one time
_SMALLEST_OBJECT_STORE = 100_000_000  # bytes
# Custom Ray resource: each client of Tune takes one, so that Tune counts clients and not CPUs.
SLOT = "tune_slot"
# The number of clients is limited by max_concurrent_trials, because the number of devices is known
# only after Ray has started. So Ray only needs more of the resource than any search uses.
_MOST_SLOTS = 1_000_000

# Keep Ray on loopback, without telemetry, and silent. Ray reads these when it is imported, so a
# program that has imported Ray before keeps its own settings.
_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers get the priority of the command, so that `nice` works as for any program. By default
    # Ray 2.60 lowers it by 15, and beside any other program a search would hardly train.
    "RAY_worker_niceness": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls by the driver: the clients receive the error
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler works only while trials train
}
# Ray's settings of the token by which its processes know each other.
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_TOKENS = ("RAY_AUTH_TOKEN", _TOKEN_PATH)


@contextlib.contextmanager
def local_ray(
    corpus_bytes: int,
    *,
    on_import: Callable[[], None] = lambda: None,
    on_wait: Callable[[], None] = lambda: None,
    keep_logs: bool = False,
) -> Iterator[Path]:
    """Run a local Ray, without output, until the block ends.

    Args:
        corpus_bytes: size of the data that workers share through the object store.
        on_import: function to call when Ray is imported, before its processes start.
        on_wait: function to call about twenty times a second while Ray starts.
        keep_logs: True to keep the folder of the session, with Ray's logs.

    Yields:
        The folder of the session.
    """
    size = max(_SMALLEST_OBJECT_STORE, 2 * corpus_bytes)
    session = _RaySession(size, on_import, keep_logs=keep_logs)
    session.start()
    try:
        while not session.started.wait(_WAIT_SECONDS):
            on_wait()
        if session.error is not None:
            raise session.error
        yield session.folder
    finally:
        session.ended.set()
        session.join()


class _RaySession(threading.Thread):
    """A thread that starts Ray, and shuts it down when `ended` is set.

    In the main thread, Ray would install handlers of its own for signals, and an interrupt in
    Ray's start would crash the interpreter. The thread lives as long as Ray, because the kernel
    ends Ray's processes with the thread that started them.

    Args:
        object_store_bytes: size of the object store.
        on_import: function to call when Ray is imported.
        keep_logs: True to keep the folder of the session.

    Attributes:
        folder: folder of the session, once Ray has started.
        started: set when Ray has started, or cannot.
        error: why Ray cannot start; None if it can.
        ended: set by the caller when Ray shall end.
    """

    folder: Path

    def __init__(
        self, object_store_bytes: int, on_import: Callable[[], None], *, keep_logs: bool
    ) -> None:
        super().__init__(name="ray")
        self._object_store_bytes, self._keep_logs = object_store_bytes, keep_logs
        self._on_import = on_import
        self.started, self.ended = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    @override
    def run(self) -> None:
        # Ray's processes inherit the mask. A terminal that closes sends SIGHUP to all its
        # processes, and systemd or Slurm SIGTERM to all of a job; but the search needs its workers
        # until it has ended by itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
        try:
            with ray_folder(keep=self._keep_logs) as self.folder:
                with _ray_environment(self.folder):
                    self._run_ray()
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the caller
            self.error = error
        finally:
            self.started.set()

    def _run_ray(self) -> None:
        import ray

        self._on_import()
        if self.ended.is_set():  # a signal came in the seconds of the import
            return
        logging.getLogger("ray").setLevel(logging.ERROR)  # Ray notes that this is a thread
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures
        with without_helpers(self.folder):
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=self._object_store_bytes,
                resources={SLOT: _MOST_SLOTS},
                _temp_dir=str(self.folder / "ray"),
            )
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


@contextlib.contextmanager
def _ray_environment(folder: Path) -> Iterator[None]:
    """Set Ray's settings, and keep the token of the session in its private folder.

    By default Ray keeps one token for all sessions in `~/.ray`, where others may read it, and which
    some machines do not have or cannot write.
    """
    if "ray" not in sys.modules:
        for key, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(key, value)
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


def start_workers(
    devices: Devices, corpus: Corpus, folders: tuple[str, str], *, gated: bool = False
) -> list[Any]:
    """Start an actor for each device; Ray restarts an actor that dies.

    Args:
        devices: devices to train on.
        corpus: data of the trials.
        folders: folder of the checkpoints, and folder of the warm starts.
        gated: True if the workers hold reports back until `Worker.release_reports`.

    Returns:
        Handles of the actors, whose methods are those of `Worker`.
    """
    decode = corpus.tokenizer.decode if corpus.has_pairs else None
    return make_workers(
        devices.number,
        corpus.splits,
        devices.slots,
        devices.kind,
        folders,
        dtype=devices.dtype,
        is_compiled=devices.is_compiled,
        decode=decode,
        gated=gated,
    )


def calibrated(
    devices: Devices,
    corpus: Corpus,
    spec: TrialSpec,
    most: int,
    file: Path,
    *,
    on_wait: Callable[[], None] = lambda: None,
) -> Devices:
    """Return the devices with the number of slots that one of them measures to be best.

    A separate worker measures; its end releases all GPU memory.

    Args:
        devices: some GPUs.
        corpus: data of the trials.
        spec: specification of the first trial.
        most: largest useful number of slots of a device.
        file: file of earlier measurements.
        on_wait: function to call about twenty times a second meanwhile.
    """
    import ray
    from ray.exceptions import RayError

    no_folders = "", ""  # a measurement writes no checkpoints
    (worker,) = make_workers(1, corpus.splits, 1, devices.kind, no_folders, dtype=devices.dtype)
    try:
        answer = worker.slots_for.remote(spec.model_dump_json(), str(file))
        slots: int = answer_of(answer, on_wait=on_wait)
    except RayError:  # the trials will report whatever is broken
        slots = devices.slots
    ray.kill(worker)
    return replace(devices, slots=min(slots, most), needs_calibration=False)


def make_workers(
    number: int,
    splits: Sequence[Any],
    slots: int,
    device: str,
    folders: tuple[str, str],
    *,
    dtype: str = "float32",
    is_compiled: bool = False,
    decode: Callable[[list[int]], str] | None = None,
    gated: bool = False,
) -> list[Any]:
    """Start actors with equal arguments.

    Args:
        number: number of actors.
        splits: training and validation tokens, or pairs.
        slots: slots of each actor.
        device: device of each actor.
        folders: folder of the checkpoints, and folder of the warm starts.
        dtype: as for `Worker`.
        is_compiled: as for `Worker`.
        decode: as for `Worker`.
        gated: as for `Worker`.

    Returns:
        Handles of the actors.
    """
    import ray
    from ray import cloudpickle

    # The references travel inside bytes, not as arguments: Ray 2.60 releases the arguments of an
    # actor although it needs them for a restart, and warns about it on standard error (its issue
    # 53727). Objects referenced from bytes live as long as the driver.
    refs = [ray.put(part) for part in (*splits, decode)]
    data: bytes = cloudpickle.dumps(refs)  # type: ignore[no-untyped-call]
    actor: Any = ray.remote(_actor_class())
    actor = actor.options(
        num_cpus=0,
        num_gpus=1 if device == "cuda" else 0,
        max_concurrency=_MOST_CALLS,
        max_restarts=-1,
        max_task_retries=0,  # the client repeats calls: it knows which report it has
    )
    options = {"dtype": dtype, "is_compiled": is_compiled, "gated": gated}
    return [actor.remote(data, slots, device, folders, options) for _ in range(number)]


def _actor_class() -> type:
    """Return a `Worker` class that fetches its data from the object store."""
    import ray

    from tuner.workers.worker import Worker

    class WorkerActor(Worker):
        def __init__(
            self,
            data: bytes,
            slots: int,
            device: str,
            folders: tuple[str, str],
            options: dict[str, Any],
        ) -> None:
            train, validation, decode = ray.get(ray.cloudpickle.loads(data))
            super().__init__(train, validation, slots, device, *folders, decode, **options)

    WorkerActor.__qualname__ = WorkerActor.__name__  # Ray names the process after it
    return WorkerActor


def answer_of(reference: Any, *, on_wait: Callable[[], None]) -> Any:
    """Wait for an answer of a worker.

    Args:
        reference: Ray reference to the answer.
        on_wait: function to call about twenty times a second meanwhile.
    """
    import ray

    while not ray.wait([reference], timeout=_WAIT_SECONDS)[0]:
        on_wait()
    return ray.get(reference)


def usage_of(worker: Any) -> dict[str, float]:
    """Return `Worker.usage` of a worker; an empty dict if the worker does not answer."""
    import ray
    from ray.exceptions import RayError

    try:
        usage: dict[str, float] = ray.get(worker.usage.remote(), timeout=_ANSWER_SECONDS)
    except RayError:
        return {}
    return usage
