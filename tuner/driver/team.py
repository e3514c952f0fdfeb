"""Workers of a session: chooses their devices and starts them."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from model.corpus.corpus import Corpus
from model.errors import CompileError
from tuner import leaving
from tuner.conductor.clock import SECONDS, TOKENS
from tuner.driver.interrupt import Interrupts
from tuner.driver.view import View
from tuner.errors import Interrupted, TunerError
from tuner.home.home import Home
from tuner.journal.events import SessionBegun
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.storage.states import CHECKPOINTS
from tuner.workers.compilation import num_missing, repays_compilation

if TYPE_CHECKING:
    from tuner.workers.devices import Devices
    from tuner.workers.products import ProductsMeasurement
    from tuner.workers.ray_session import RaySession


class Order(NamedTuple):
    """Order in which reports are taken.

    Attributes:
        in_order: True for the order of the lanes' clocks, False for the order of arrival.
        clock: name of the lanes' clock.
    """

    in_order: bool
    clock: str


@dataclass(frozen=True)
class Team:
    """Workers of a session.

    Attributes:
        devices: devices of the workers.
        workers: handles of the workers.
        order: order in which reports are taken.
        session: the Ray on which they run.
    """

    devices: Devices
    workers: list[Any]
    order: Order
    session: RaySession

    @property
    def slots(self) -> int:
        """Number of trials in training at one time."""
        return self.devices.number * self.devices.slots

    def end(self) -> None:
        """End the workers, which have not trained yet."""
        import ray

        for worker in self.workers:
            ray.kill(worker)


def start_ray(
    stack: ExitStack,
    address: str | None,
    corpus: Corpus,
    home: Home,
    view: View,
    interrupts: Interrupts,
    check: Callable[[], None],
    *,
    storage: str | None,
    debug: bool,
) -> RaySession:
    """Start or join Ray until the stack is closed.

    Args:
        stack: stack that ends Ray.
        address: address of a cluster; None for a local Ray.
        corpus: prepared data.
        home: home of the search, which all nodes of a cluster must see, unless there is storage.
        view: view for the user.
        interrupts: deferred signals of the user.
        check: function that raises an exception if the start shall end.
        storage: URL of `engine.storage`; None without one.
        debug: True to keep the folder of a local Ray's session.

    Raises:
        TunerError: if the cluster cannot be joined, or one of its nodes cannot train trials.
    """
    from tuner.workers.ray_session import ray_session

    def on_wait() -> None:
        interrupts.receive()
        check()

    if address:
        view.phase(f"joining the Ray cluster at {address}")
    else:
        view.phase("starting Ray and the workers")
    starting = ray_session(address, corpus.nbytes, on_wait=on_wait, keep_logs=debug)
    with interrupts.held():
        session = stack.enter_context(starting)
    if debug and not address:
        view.phase(f"Ray's logs are kept in {session.folder}")
    check()
    if address:
        from tuner.workers.nodes import check_nodes

        home.search("").mkdir(parents=True, exist_ok=True)
        checked = check_nodes(home.search(""), storage=storage, on_wait=check)
        return replace(session, checked=checked)
    return session


def end_ray(stack: ExitStack) -> None:
    """Begin to end Ray, which takes seconds; the stack waits for it when it is closed.

    No reference to an object of Ray may be released meanwhile: Ray would end this process ("The
    core worker has already been shutdown"). So call this once `train` has returned, which releases
    its own; what the session still refers to lives until Ray has ended. And the result must have
    been shown, because nobody would show it if this process ended.

    Args:
        stack: stack of `start_ray`.
    """
    thread = threading.Thread(target=stack.pop_all().close, name="ray-end")
    thread.start()
    stack.callback(_join, thread)


def _join(thread: threading.Thread) -> None:
    if not leaving.is_leaving():
        thread.join()


def start_team(
    name: str,
    space: SearchSpace,
    home: Home,
    corpus: Corpus,
    facts: DataFacts,
    last: SessionBegun | None,
    view: View,
    check_interrupt: Callable[[], None],
    ray: RaySession,
    products: ProductsMeasurement | None = None,
) -> Team:
    """Start the workers of a search; Ray must have been started.

    A worker takes seconds to import torch, so it is started before the tracking store is open.

    Args:
        name: name of the search.
        space: search space.
        home: home of the search.
        corpus: prepared data.
        facts: facts of the data that specifications depend on.
        last: last session of a resumed search; None if the search begins.
        view: view for the user.
        check_interrupt: function that raises KeyboardInterrupt once the user wants to end.
        ray: Ray, as it was started or joined.
        products: measurement of products in bfloat16, if one was begun.
    """
    from tuner.workers.cluster import start_workers

    measured = None if products is None else partial(products.dtype, check_interrupt)
    is_cluster = ray.address is not None
    devices = choose_devices(space, facts, last, measured, is_cluster=is_cluster)
    if devices.is_compiled and num_missing(space, facts, _dtype(devices)):
        view.phase("compiling the ticks, for this and later searches of the model: half a minute")
    if devices.needs_calibration:
        view.phase("measuring how many trials the GPU should train at one time")
        devices = calibrate(devices, space, home, corpus, facts, check_interrupt)
    folders = str(home.search(name) / CHECKPOINTS), str(home.starts)
    url = space.engine.storage
    storage = "" if url is None else f"{url}/{name}"
    workers = start_workers(devices, corpus, folders, storage=storage)
    return Team(devices, workers, choose_order(space, facts, last, devices), ray)


def choose_devices(
    space: SearchSpace,
    facts: DataFacts,
    last: SessionBegun | None,
    measured: Callable[[], str] | None = None,
    *,
    is_cluster: bool = False,
) -> Devices:
    """Return the devices.

    A resumed search keeps its number of slots, its dtype, and whether its ticks are compiled,
    because the decisions in its journal depend on them.

    Args:
        space: search space.
        facts: facts of the data that specifications depend on.
        last: last session of a resumed search; None if the search begins.
        measured: function that returns the dtype which is faster on this machine's CPU.
        is_cluster: True to train on a cluster: its CPUs may be others than this machine's.
    """
    from tuner.workers.devices import find_devices

    devices = find_devices(space, is_cluster=is_cluster)
    if measured is not None and devices.kind == "cpu" and not is_cluster:
        devices = replace(devices, dtype=measured())
    devices = replace(devices, is_compiled=_is_compiled(space, facts, last, devices))
    if last is None:
        return devices
    # The number of devices may have changed: each takes its share of the slots, rounded up.
    slots = math.ceil(last.slots / devices.number)
    if not devices.needs_calibration:
        slots = max(devices.slots, slots)
    before = last.environment
    if devices.dtype == "auto" and before["device"].startswith(devices.kind):
        # "auto" may mean another dtype in this version than when the search began.
        devices = replace(devices, dtype=before["dtype"])
    return replace(devices, slots=slots, needs_calibration=False)


def choose_order(
    space: SearchSpace, facts: DataFacts, last: SessionBegun | None, devices: Devices
) -> Order:
    """Return the order of reports; a resumed search keeps it.

    Args:
        space: search space.
        facts: facts of the data that specifications depend on.
        last: last session of a resumed search; None if the search begins.
        devices: devices of the search.
    """
    if last is not None:
        return Order(last.in_order, last.clock)
    setting = space.search.order
    if setting != "auto":
        return Order(setting == "tokens", TOKENS)
    if devices.number > 1 and devices.is_cluster:
        return Order(False, TOKENS)  # nodes differ, come and go
    # The trials of an engine with several slots take turns tick by tick, whatever a tick costs.
    has_turns = devices.slots > 1 or devices.kind != "cpu"
    # On several engines these turns are equally long only if all models are alike.
    is_uneven = has_turns and devices.number > 1 and not _has_one_shape(space, facts)
    return Order(not is_uneven, TOKENS if has_turns else SECONDS)


def _has_one_shape(space: SearchSpace, facts: DataFacts) -> bool:
    try:
        return len(space.shapes(facts.vocab_size)) == 1
    except ValueError:  # an entry is a range
        return False


def _is_compiled(
    space: SearchSpace, facts: DataFacts, last: SessionBegun | None, devices: Devices
) -> bool:
    """Return whether ticks are compiled: as asked for, as recorded, or if it saves time."""
    from tuner.workers.devices import check_compilation, why_not_compiled

    setting = space.engine.compile
    if space.is_lora:  # compiled ticks train all weights
        return False
    if setting == "on":
        check_compilation(devices.kind)
        return True
    if setting == "off" or devices.kind != "cpu" or (devices.is_cluster and last is None):
        return False
    if last is not None:
        wanted = last.environment["compiled"] != "no"
    else:
        try:
            wanted = repays_compilation(space, facts, devices.number, _dtype(devices))
        except CompileError:
            return False
    return wanted and why_not_compiled() is None


def _dtype(devices: Devices) -> str:
    """Return the dtype of a CPU: without a measurement, "auto" is float32."""
    return "float32" if devices.dtype == "auto" else devices.dtype


def begin_compilation(
    space: SearchSpace,
    facts: DataFacts,
    last: SessionBegun | None,
    products: ProductsMeasurement | None,
    check: Callable[[], None],
) -> None:
    """Begin to compile the ticks of the first trial, in a thread, if the search compiles them.

    A worker that needs them earlier waits. What cannot be compiled fails in the worker.

    Args:
        space: search space.
        facts: facts of the data, which may be estimated.
        last: last session of a resumed search; None if the search begins.
        products: measurement of products in bfloat16, if one was begun.
        check: function that raises an exception if the start has ended.
    """
    from model.stack.compiled_file import compiled_file
    from model.stack.tick_kind import TickKind
    from tuner.workers.devices import Devices, has_nvidia_gpu, num_cores

    engine = space.engine
    may_be_gpu = engine.device == "auto" and (has_nvidia_gpu() or sys.platform == "darwin")
    if may_be_gpu or engine.device not in {"auto", "cpu"} or engine.compile == "off":
        return

    def run() -> None:
        with suppress(CompileError, TunerError, Interrupted):
            dtype = engine.dtype if products is None else products.dtype(check)
            if last is not None and dtype == "auto":
                dtype = last.environment["dtype"]
            devices = Devices("cpu", engine.workers or num_cores(), 1, dtype)
            if _is_compiled(space, facts, last, devices):
                spec = space.spec(space.defaults(), facts, space.search.seed)
                compiled_file(TickKind.of(spec, _dtype(devices)))

    threading.Thread(target=run, name="compilation", daemon=True).start()


def calibrate(
    devices: Devices,
    space: SearchSpace,
    home: Home,
    corpus: Corpus,
    facts: DataFacts,
    check_interrupt: Callable[[], None],
) -> Devices:
    """Return the devices with the number of slots that suits trials like the first one best."""
    from tuner.workers.cluster import calibrated

    spec = space.spec(space.defaults(), facts, space.search.seed)
    most = math.ceil(space.search.trials / devices.number)
    return calibrated(devices, corpus, spec, most, home.calibration, on_wait=check_interrupt)
