"""Starts a local Ray on this machine, and the workers in it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.corpus.corpus import Corpus
from model.spec.trial import TrialSpec
from tuner.workers.devices import Devices

_ANSWER_SECONDS = 10.0
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
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls by the driver: the clients receive the error
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler works only while trials train
}


@contextlib.contextmanager
def local_ray(corpus_bytes: int) -> Iterator[None]:
    """Run a local Ray, without output, until the block ends.

    Args:
        corpus_bytes: size of the data that workers share through the object store.
    """
    if "ray" not in sys.modules:
        for key, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(key, value)
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=max(_SMALLEST_OBJECT_STORE, 2 * corpus_bytes),
        resources={SLOT: _MOST_SLOTS},
    )
    try:
        yield
    finally:
        # Ray Tune leaves cycles behind, and their destructors call Ray. If another thread collects
        # them while Ray shuts down, Ray ends this process ("The core worker has already been
        # shutdown"): seen once, on a busy machine, after a search that its time limit had halted.
        gc.collect()
        gc.disable()
        try:
            ray.shutdown()
        finally:
            gc.enable()


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
        decode=decode,
        gated=gated,
    )


def calibrated(devices: Devices, corpus: Corpus, spec: TrialSpec, most: int, file: Path) -> Devices:
    """Return the devices with the number of slots that one of them measures to be best.

    A separate worker measures; its end releases all GPU memory.

    Args:
        devices: some GPUs.
        corpus: data of the trials.
        spec: specification of the first trial.
        most: largest useful number of slots of a device.
        file: file of earlier measurements.
    """
    import ray
    from ray.exceptions import RayError

    no_folders = "", ""  # a measurement writes no checkpoints
    (worker,) = make_workers(1, corpus.splits, 1, devices.kind, no_folders, dtype=devices.dtype)
    try:
        slots: int = ray.get(worker.slots_for.remote(spec.model_dump_json(), str(file)))
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
    return [actor.remote(data, slots, device, folders, dtype, gated) for _ in range(number)]


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
            dtype: str,
            gated: bool,
        ) -> None:
            train, validation, decode = ray.get(ray.cloudpickle.loads(data))
            super().__init__(
                train, validation, slots, device, *folders, decode, dtype=dtype, gated=gated
            )

    WorkerActor.__qualname__ = WorkerActor.__name__  # Ray names the process after it
    return WorkerActor


def usage_of(worker: Any) -> dict[str, float]:
    """Return `Worker.usage` of a worker; an empty dict if the worker does not answer."""
    import ray
    from ray.exceptions import RayError

    try:
        usage: dict[str, float] = ray.get(worker.usage.remote(), timeout=_ANSWER_SECONDS)
    except RayError:
        return {}
    return usage
