"""Starts workers as actors of Ray, and asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.corpus.corpus import Corpus
from model.sources.choices import ChoiceSet
from model.spec.trial import TrialSpec
from tuner.workers.devices import Devices

_ANSWER_SECONDS = 10.0
_HERE_SECONDS = 2.0  # for an answer of a worker that has nothing to do
_MOST_CALLS = 10_000  # waiting in one worker at one time
_WAIT_SECONDS = 0.05  # between two calls of a function that waits


def start_workers(
    devices: Devices, corpus: Corpus, folders: tuple[str, str], *, storage: str = ""
) -> list[Any]:
    """Start an actor for each device; Ray restarts an actor that dies.

    Args:
        devices: devices to train on.
        corpus: data of the trials.
        folders: folder of the checkpoints, and folder of the warm starts.
        storage: as for `Worker`.

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
        choices=corpus.choices,
        storage=storage,
        is_cluster=devices.is_cluster,
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
    (worker,) = make_workers(
        1, corpus.splits, 1, devices.kind, no_folders, dtype=devices.dtype,
        is_cluster=devices.is_cluster,
    )  # fmt: skip
    try:
        answer = worker.slots_for.remote(spec.model_dump_json(), str(file))
        slots: int = ray.get(_first([answer], on_wait))
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
    choices: ChoiceSet | None = None,
    storage: str = "",
    is_cluster: bool = False,
) -> list[Any]:
    """Start actors with equal arguments.

    Args:
        number: number of actors.
        splits: training and validation tokens, pairs or examples.
        slots: slots of each actor.
        device: device of each actor.
        folders: folder of the checkpoints, and folder of the warm starts.
        dtype: as for `Worker`.
        is_compiled: as for `Worker`.
        decode: as for `Worker`.
        choices: as for `Worker`.
        storage: as for `Worker`.
        is_cluster: True to spread the actors over the nodes of a cluster, and to let Ray's
            scheduler count the core or GPU of each. On one machine the search has all cores.

    Returns:
        Handles of the actors.
    """
    import ray
    from ray import cloudpickle

    # The references travel inside bytes, not as arguments: Ray 2.60 releases the arguments of an
    # actor although it needs them for a restart, and warns about it on standard error (its issue
    # 53727). Objects referenced from bytes live as long as the driver.
    refs = [ray.put(part) for part in (*splits, decode, choices)]
    data: bytes = cloudpickle.dumps(refs)  # type: ignore[no-untyped-call]
    actor: Any = ray.remote(_actor_class())
    actor = actor.options(
        num_cpus=1 if is_cluster and device == "cpu" else 0,
        num_gpus=1 if device == "cuda" else 0,
        scheduling_strategy="SPREAD" if is_cluster else "DEFAULT",
        max_concurrency=_MOST_CALLS,
        max_restarts=-1,
        max_task_retries=0,  # the client repeats calls: it knows which report it has
    )
    options = {"dtype": dtype, "is_compiled": is_compiled, "storage": storage}
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
            train, validation, *others = ray.get(ray.cloudpickle.loads(data))
            super().__init__(train, validation, slots, device, *folders, *others, **options)

    WorkerActor.__qualname__ = WorkerActor.__name__  # Ray names the process after it
    return WorkerActor


class Environments:
    """Device and versions of each worker, as soon as it has answered.

    Args:
        workers: handles of the workers.

    Attributes:
        first: environment of the worker that was up first.
    """

    first: Mapping[str, str]

    def __init__(self, workers: Sequence[Any]) -> None:
        self._workers = workers
        self._answers = [worker.environment.remote() for worker in workers]
        self._known: dict[int, Mapping[str, str]] = {}

    def choose(self, worker: int) -> Mapping[str, str]:
        """Return the environment of the first worker that is up.

        Raises:
            RayError: if it has died.
        """
        import ray
        from ray.exceptions import ActorUnavailableError

        try:
            self.first = ray.get(self._answers[worker])
        except ActorUnavailableError:  # of its process on a node that was lost
            self.ask_again(worker)
            self.first = ray.get(self._answers[worker])
        return self.first

    def ask_again(self, worker: int) -> None:
        """Ask a worker that is back, perhaps on another node."""
        self._known.pop(worker, None)
        self._answers[worker] = self._workers[worker].environment.remote()

    def other_of(self, worker: int) -> Mapping[str, str] | None:
        """Return the environment of a worker if it has answered, and differs from the first."""
        import ray
        from ray.exceptions import RayError

        if worker not in self._known and ray.wait([self._answers[worker]], timeout=0)[0]:
            with suppress(RayError):  # it died: the next one of its place is asked
                self._known[worker] = ray.get(self._answers[worker])
        known = self._known.get(worker)
        return None if known == self.first else known


def _first(answers: Sequence[Any], on_wait: Callable[[], None]) -> Any:
    """Wait for an answer; return its Ray reference."""
    import ray

    while not (ready := ray.wait([*answers], timeout=_WAIT_SECONDS)[0]):
        on_wait()
    return ready[0]


def usages_of(workers: Sequence[Any], seconds: float) -> list[dict[str, float]]:
    """Return `Worker.usage` of each worker that answers in time."""
    import ray
    from ray.exceptions import RayError

    answers = [worker.usage.remote() for worker in workers]
    answers, _ = ray.wait(answers, num_returns=len(answers), timeout=seconds)
    usages: list[dict[str, float]] = []
    for answer in answers:
        with suppress(RayError):
            usages.append(ray.get(answer))
    return usages


def send_states(workers: Sequence[Any], seconds: float) -> int:
    """Wait until storage has the states of all trials; delete those of nodes without the home.

    Args:
        workers: handles of the workers, which train nothing any more.
        seconds: longest wait.

    Returns:
        Number of trials whose newest state storage may lack.
    """
    import ray
    from ray.exceptions import RayError

    asked = {worker.send_states.remote(0.0): worker for worker in workers}
    # a worker without a node never answers
    up = ray.wait([*asked], num_returns=len(asked), timeout=min(seconds, _HERE_SECONDS))[0]
    answers = [asked[answer].send_states.remote(seconds) for answer in up]
    missing = 0
    if answers:
        seconds += _WAIT_SECONDS
        for answer in ray.wait(answers, num_returns=len(answers), timeout=seconds)[0]:
            with suppress(RayError):  # a worker that died: others fetch what it has sent
                missing += ray.get(answer)
        forgotten = [asked[answer].forget_states.remote() for answer in up]
        ray.wait(forgotten, num_returns=len(forgotten), timeout=min(seconds, _HERE_SECONDS))
    return missing
