"""Trains the trials of a search: runs conductor and driver with the workers of a session."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.conductor.conductor import Conductor
from tuner.driver.driver import Driver
from tuner.driver.start import Start
from tuner.driver.view import View, ViewProjection
from tuner.errors import Replaced
from tuner.journal.events import SearchEdited, SessionBegun
from tuner.journal.follower import Follower
from tuner.journal.repeat import repeat, restored_decisions
from tuner.texts.formatting import counted
from tuner.tracking.tags import ENVIRONMENT
from tuner.trained.finished_trials import FinishedTrials

if TYPE_CHECKING:
    from tuner.workers.cluster import Environments
    from tuner.workers.watchdog import Watchdog

_POLL_SECONDS = 0.05
_WAITING_SECONDS = 10.0  # for a first worker, until the user hears of it
_IMPORT_SECONDS = 10.0  # from the first trial on: its processes start before
# Longest waits at the end of a session: for states on their way to storage, and for an answer.
_FINISHED_SECONDS, _HALTED_SECONDS, _ANSWER_SECONDS = 60.0, 10.0, 10.0
_SIGNAL_SECONDS = 0.3  # for either, after a signal whose sender soon kills
_VIEW_SECONDS = 5.0  # longest wait for a view, which a stopped terminal may hold


@dataclass(frozen=True)
class TrainingResult:
    """Result of the training of a session.

    Attributes:
        halted: reason why the session ended early; None if the search is over.
        limit: name of the limit that the search reached; None if it reached none.
        workers: number of workers.
        training_seconds: seconds that the workers trained, summed over workers.
        first_turn: time at which the first trial started to train, in seconds since the epoch;
            infinity if no worker answered.
    """

    halted: str | None
    limit: str | None
    workers: int
    training_seconds: float
    first_turn: float


def train(start: Start, followers: Sequence[Follower]) -> TrainingResult:
    """Train all trials of a search; return early if the search is halted.

    Args:
        start: inputs of the session.
        followers: followers of its journal, whose problems the user hears of. They begin when the
            first trials train, because MLflow takes seconds of a core to load.
    """
    from tuner.workers.cluster import Environments, usages_of
    from tuner.workers.load import MetricsPoller
    from tuner.workers.nodes import NodeChecks, waiting_text
    from tuner.workers.orders import Orders
    from tuner.workers.watchdog import Watchdog

    interrupts, team, engine = start.interrupts, start.team, start.space.engine
    announce = interrupts.announce
    workers, slots = team.workers, team.slots

    def check_interrupt() -> None:
        interrupts.announce = lambda number: None  # the driver says that the search ends
        interrupts.check()

    address, nodes = team.session.address, None
    if address is not None:
        nodes = NodeChecks(start.home.search(""), team.session.checked, engine.storage)
    environments = Environments(workers)
    watchdog = Watchdog(workers, engine.timeout_seconds, nodes=nodes)
    orders = Orders(workers, team.devices.slots, are_up=address is None)

    def waiting() -> str:
        return waiting_text(address, team.devices.kind) if address else ""

    poller = MetricsPoller(workers)

    def poll() -> None:
        start.mlflow.check_open()
        if metrics := poller.poll():
            start.mlflow.sample(metrics)

    up = first_workers(watchdog, environments, len(workers), interrupts.check, start.view, waiting)
    for worker in up:
        orders.welcome(worker)
    view = Follower(ViewProjection(start.view, start.name), start.journal.feed(), from_now=True)
    view.start()
    driver = Driver(
        _make_conductor(start, environments.first),
        start.journal,
        workers,
        in_order=team.order.in_order,
        check_interrupt=check_interrupt,
        watchdog=watchdog,
        orders=orders,
        environments=None if address is None else environments,
        followers=followers,
        say=start.view.phase,
        poll=poll,
    )
    driver.begin()
    from tuner.driver.ray_tune import run_ray_tune  # takes a second; trials train already

    imports = _begin_beside(followers)
    try:
        run_ray_tune(driver, workers, slots, start.folder, team.session.client_resources)
    except Replaced:
        raise
    except KeyboardInterrupt:
        driver.halt("interrupted")
    finally:
        imports.cancel()
        interrupts.announce = announce
        view.close(_VIEW_SECONDS)
        driver.close()
    if start.storage is not None:
        _send_states(start, workers, driver.halted)
    # one that Ray has not started yet would let the user wait for its answer
    usages = usages_of(
        [workers[worker] for worker in sorted(watchdog.up)],
        _SIGNAL_SECONDS if interrupts.is_urgent else _ANSWER_SECONDS,
    )
    return TrainingResult(
        driver.halted,
        driver.conductor.limit,
        len(workers),
        sum(usage.get("training_seconds", 0.0) for usage in usages),
        min((usage.get("first_turn", math.inf) for usage in usages), default=math.inf),
    )


def first_workers(
    watchdog: Watchdog, environments: Environments, number: int, on_wait: Callable[[], None],
    view: View, waiting: Callable[[], str],
) -> list[int]:  # fmt: skip
    """Wait until a worker is up, and choose its environment.

    Args:
        watchdog: watchdog of the workers.
        environments: devices and versions of the workers.
        number: number of workers.
        on_wait: function to call about twenty times a second meanwhile.
        view: view for the user.
        waiting: function that says for what they wait, if it takes long; empty to say nothing.

    Returns:
        The workers that are up, at least one.

    Raises:
        RayError: if no worker can start.
    """
    from tuner.workers.watchdog import WorkerEvent

    say_at, gone = time.monotonic() + _WAITING_SECONDS, set[int]()
    while True:
        on_wait()
        changes = watchdog.check()
        for change in changes:
            if change.event is WorkerEvent.MISSING and change.reason:
                view.phase(f"worker {change.worker} is not used: {change.reason}")
        up = [each.worker for each in changes if each.event in {WorkerEvent.UP, WorkerEvent.BACK}]
        gone = (gone | {each.worker for each in changes if each.event is WorkerEvent.GONE}) - {*up}
        if up or len(gone) == number:
            environments.choose((up or [*gone])[0])
            return up
        if time.monotonic() > say_at:
            say_at = math.inf
            if text := waiting():
                view.phase(text)
        time.sleep(_POLL_SECONDS)


def _begin_beside(followers: Sequence[Follower]) -> threading.Timer:
    """Begin to follow the journal; return the timer of imports that the end of a search needs."""
    for follower in followers:
        follower.start()
    timer = threading.Timer(_IMPORT_SECONDS, _import_early)
    timer.daemon = True
    timer.start()
    return timer


def _import_early() -> None:
    """Import what the end of a search needs while its trials train, so that nobody waits for it."""
    for name in ("sklearn.ensemble", "tuner.report.write"):  # for recommendations and report
        import_module(name)


def _send_states(start: Start, workers: list[Any], halted: str | None) -> None:
    """Wait until the states of all trials are in storage, less long if the user waits."""
    from tuner.workers.cluster import send_states

    seconds = _FINISHED_SECONDS if halted is None else _HALTED_SECONDS
    if start.interrupts.is_urgent:
        seconds = _SIGNAL_SECONDS
    start.view.phase("sending the last states to the storage")
    if missing := send_states(workers, seconds):
        start.view.phase(
            f"the storage lacks the newest states of {counted(missing, 'trial')}: where they are "
            f"needed, the trial trains again from an earlier one"
        )


def _make_conductor(start: Start, environment: Mapping[str, str]) -> Conductor:
    """Return a new conductor, or the conductor that the journal of the search leads to."""
    journal, recorded = start.journal, start.recorded
    slots, order = start.team.slots, start.team.order
    find = FinishedTrials(start.trials, environment, start.name)
    may_find = None if start.request.fresh else find
    is_edited = recorded is not None and start.space != recorded.space
    if recorded is None or recorded.session is None:
        conductor = Conductor(
            start.space, start.facts, slots, find=may_find, clock=order.clock,
            proposals=start.proposals, memory_bytes=start.trial_bytes,
        )  # fmt: skip
    else:
        start.view.phase(f"reading the journal of {start.name}")
        restored = restored_decisions(journal.events, find)
        first_slots = recorded.sessions[0].slots
        conductor = Conductor(
            recorded.first_space, start.facts, first_slots, restored, may_find, order.clock,
            start.proposals, start.trial_bytes,
        )  # fmt: skip
        repeat(conductor, journal.events, start.name)
        if changed := environment_changes(recorded.session.environment, environment):
            start.view.phase(f"unfinished trials resume with {changed}: their last bits may differ")
        if is_edited:
            conductor.edit(start.space, recorded.session.slots)
        if slots != recorded.session.slots:
            conductor.edit(start.space, slots)
    if recorded is not None and is_edited:
        journal.append(SearchEdited(start.space, start.request.space_text or recorded.space_text))
    journal.append(SessionBegun(environment, slots, order.in_order, journal.epoch, order.clock))
    return conductor


def environment_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the differences of two environments; empty if there are none."""
    changed = (k for k in ENVIRONMENT if before.get(k) != now.get(k))
    return "; ".join(f"{k} {before.get(k)} → {now.get(k)}" for k in changed)
