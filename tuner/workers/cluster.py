"""A Ray of one's own on this machine, and the workers in it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.corpus.corpus import Corpus
from model.spec.trial import TrialSpec
from tuner.workers.devices import Devices

_ANSWER_SECONDS = 10.0
_MOST_CALLS = 10_000  # waiting in one worker at a time
_SMALLEST_OBJECT_STORE = 100_000_000
# Exact resource: Tune starts a client for each slot, and no more than it can use.
SLOT = "tune_slot"
# The resource only has to be exact per client; how many clients there are, max_concurrent_trials
# says, once Ray has told how many devices there are.
_MOST_SLOTS = 1_000_000

# Stay on loopback, send nothing home, print and write nothing unasked. Read when Ray is imported,
# so a program that has imported Ray itself keeps its own settings.
_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of orders to a worker: its clients hear of them
    "RAY_AIR_NEW_OUTPUT": "0",  # the other output prints a table even when silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it listens only while trials train, and never stops
}


@contextlib.contextmanager
def local_ray(corpus_bytes: int) -> Iterator[None]:
    """A local, quiet Ray for as long as the block runs."""
    if "ray" not in sys.modules:
        for key, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(key, value)
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures reach the user through us
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
        ray.shutdown()


@dataclass(frozen=True)
class Workers:
    """The workers of a search.

    Attributes:
        handles: an actor for each device, whose methods are those of `Worker`.
        slots: trials that each of them trains at one time.
    """

    handles: list[Any]
    slots: int


def start_workers(
    on: Devices, corpus: Corpus, folders: tuple[str, str], *, gated: bool = False
) -> Workers:
    """An actor per device, which Ray starts again whenever it dies.

    Args:
        on: which devices.
        corpus: what the trials read.
        folders: where checkpoints are saved, and where what warm-started trials begin with lies.
        gated: whether reports are held back until `Worker.allow`.
    """
    decode = corpus.tokenizer.decode if corpus.has_pairs else None
    return make_workers(
        on.number,
        corpus.splits,
        on.slots,
        on.kind,
        folders,
        dtype=on.dtype,
        decode=decode,
        gated=gated,
    )


def calibrated(on: Devices, corpus: Corpus, spec: TrialSpec, most: int, file: Path) -> Devices:
    """The same with as many slots as one of the devices says.

    It is asked through a worker of its own, whose end gives back all of the memory.

    Args:
        on: some GPUs.
        corpus: what the trials read.
        spec: of the first trial.
        most: slots of a device that could be used.
        file: of what was measured before.
    """
    import ray
    from ray.exceptions import RayError

    nowhere = "", ""  # nothing is saved
    (worker,) = make_workers(1, corpus.splits, 1, on.kind, nowhere, dtype=on.dtype).handles
    try:
        slots: int = ray.get(worker.slots_for.remote(spec.model_dump_json(), str(file)))
    except RayError:  # whatever is broken, the trials will show
        slots = on.slots
    ray.kill(worker)
    return replace(on, slots=min(slots, most), is_open=False)


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
) -> Workers:
    """Some actors that are alike.

    Args:
        number: how many.
        splits: training and validation tokens, or pairs.
        slots: of each.
        device: of each.
        folders: where checkpoints are saved, and where what warm-started trials begin with lies.
        dtype: as for `Worker`.
        decode: likewise.
        gated: likewise.
    """
    import ray
    from ray import cloudpickle

    # As bytes, and not as arguments: Ray 2.60 lets go of what an actor's arguments refer to before
    # it may need them to start it again, and warns of it on standard error (its issue 53727). What
    # is referred to from bytes it keeps for as long as the driver lives.
    refs = [ray.put(part) for part in (*splits, decode)]
    data: bytes = cloudpickle.dumps(refs)  # type: ignore[no-untyped-call]
    actor: Any = ray.remote(_fetching())
    actor = actor.options(
        num_cpus=0,
        num_gpus=1 if device == "cuda" else 0,
        max_concurrency=_MOST_CALLS,
        max_restarts=-1,
        max_task_retries=0,  # repeating calls is the client's: it knows which report it has
    )
    handles = [actor.remote(data, slots, device, folders, dtype, gated) for _ in range(number)]
    return Workers(handles, slots)


def _fetching() -> type:
    """A `Worker` that fetches its data itself."""
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
            place = slots, device, *folders
            super().__init__(train, validation, *place, decode, dtype=dtype, gated=gated)

    WorkerActor.__qualname__ = WorkerActor.__name__  # Ray calls the process by it
    return WorkerActor


def usage_of(worker: Any) -> dict[str, float]:
    """What a worker did since it started (`Worker.usage`); nothing if it does not answer."""
    import ray
    from ray.exceptions import RayError

    try:
        usage: dict[str, float] = ray.get(worker.usage.remote(), timeout=_ANSWER_SECONDS)
    except RayError:
        return {}
    return usage
