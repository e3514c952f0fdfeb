"""Trains the trials of a search: runs conductor and driver with the workers of a session."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.conductor.conductor import Conductor
from tuner.driver.context import SearchContext, attach_inputs
from tuner.driver.driver import Driver
from tuner.driver.interrupt import Interrupts
from tuner.driver.observer import (
    DashboardObserver,
    OutboxObserver,
    SearchObserver,
    StorageObserver,
    TrackerObserver,
    ViewObserver,
)
from tuner.driver.team import Order
from tuner.driver.view import View
from tuner.errors import Replaced
from tuner.formatting import counted
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journaled_search import environment_changes
from tuner.journal.repeat import repeat, restored_decisions
from tuner.publish.optuna_dashboard import StudyStore, study_url
from tuner.results.advice import advise
from tuner.tracking.reuse import FinishedTrials

if TYPE_CHECKING:
    from tuner.workers.cluster import Environments
    from tuner.workers.watchdog import Watchdog

_POLL_SECONDS = 0.05
_WAITING_SECONDS = 10.0  # for a first worker, until the user hears of it
_IMPORT_SECONDS = 10.0  # from the first trial on: its processes start before
# Longest waits at the end of a session: for states on their way to storage, and for an answer.
_FINISHED_SECONDS, _HALTED_SECONDS, _ANSWER_SECONDS = 60.0, 10.0, 10.0
_SIGNAL_SECONDS = 0.3  # for either, after a signal whose sender soon kills


@dataclass(frozen=True)
class TrainingResult:
    """Result of the training of a session.

    Attributes:
        conductor: conductor with all trials.
        halted: reason why the session ended early; None if the search is over.
        environment: device and versions of the workers.
        workers: number of workers.
        training_seconds: seconds that the workers trained, summed over workers.
        first_turn: time at which the first trial started to train, in seconds since the epoch;
            infinity if no worker answered.
        advice: recommendations for the next search; none if the session was halted.
    """

    conductor: Conductor
    halted: str | None
    environment: Mapping[str, str]
    workers: int
    training_seconds: float
    first_turn: float
    advice: list[str]


def train(context: SearchContext, interrupts: Interrupts) -> TrainingResult:
    """Train all trials of a search; return early if the search is halted.

    Args:
        context: inputs of the session.
        interrupts: deferred signals of the user.
    """
    from tuner.workers.cluster import Environments, usages_of

    announce, team = interrupts.announce, context.team
    workers, slots = team.workers, team.slots

    def check_interrupt() -> None:
        interrupts.announce = lambda number: None  # the driver says that the search ends
        interrupts.check()

    interrupts.check()
    attach_inputs(context)  # while the workers start

    from tuner.workers.nodes import NodeChecks, waiting_text
    from tuner.workers.orders import Orders
    from tuner.workers.watchdog import Watchdog

    address, nodes = team.session.address, None
    if address is not None:
        nodes = NodeChecks(
            context.home.search(""), team.session.checked, context.space.engine.storage
        )
    environments = Environments(workers)
    watchdog = Watchdog(workers, context.space.engine.timeout_seconds, nodes=nodes)
    orders = Orders(workers, team.devices.slots, are_up=address is None)

    def waiting() -> str:
        return waiting_text(address, team.devices.kind) if address else ""

    up = first_workers(
        watchdog, environments, len(workers), interrupts.check, context.view, waiting
    )
    for worker in up:
        orders.welcome(worker)
    environment = environments.first
    conductor = _make_conductor(context, slots, environment, team.order)
    driver = Driver(
        conductor,
        context.journal,
        workers,
        _make_observers(context, conductor, workers, environment),
        in_order=team.order.in_order,
        check_interrupt=check_interrupt,
        watchdog=watchdog,
        orders=orders,
        environments=None if address is None else environments,
    )
    context.view.begin(conductor.board, context.name)
    driver.begin()
    from tuner.driver.ray_tune import run_ray_tune  # takes a second; trials train already

    imports = threading.Timer(_IMPORT_SECONDS, _import_early)
    imports.daemon = True
    imports.start()
    try:
        run_ray_tune(driver, workers, slots, context.folder, team.session.client_resources)
    except Replaced:
        raise
    except KeyboardInterrupt:
        driver.halt("interrupted")
    finally:
        imports.cancel()
        interrupts.announce = announce
        context.view.end()
        driver.close()
    if context.storage is not None:
        _send_states(context, workers, driver.halted, interrupts)
    # one that Ray has not started yet would let the user wait for its answer
    usages = usages_of(
        [workers[worker] for worker in sorted(watchdog.up)],
        _SIGNAL_SECONDS if interrupts.is_urgent else _ANSWER_SECONDS,
    )
    return TrainingResult(
        conductor,
        driver.halted,
        environment,
        len(workers),
        sum(usage.get("training_seconds", 0.0) for usage in usages),
        min((usage.get("first_turn", math.inf) for usage in usages), default=math.inf),
        [] if driver.halted else _advice(context, conductor),
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


def _import_early() -> None:
    """Import what the end of a search needs while its trials train, so that nobody waits for it."""
    import_module("sklearn.ensemble")  # for the recommendations


def _send_states(
    context: SearchContext, workers: list[Any], halted: str | None, interrupts: Interrupts
) -> None:
    """Wait until the states of all trials are in storage, less long if the user waits."""
    from tuner.workers.cluster import send_states

    seconds = _FINISHED_SECONDS if halted is None else _HALTED_SECONDS
    if interrupts.is_urgent:
        seconds = _SIGNAL_SECONDS
    context.view.phase("sending the last states to the storage")
    if missing := send_states(workers, seconds):
        context.view.phase(
            f"the storage lacks the newest states of {counted(missing, 'trial')}: where they are "
            f"needed, the trial trains again from an earlier one"
        )


def _advice(context: SearchContext, conductor: Conductor) -> list[str]:
    """Return recommendations for the next search."""
    searched = conductor.board.searched
    trials = [trial for trial in searched if trial.parent is None and not trial.is_duplicate]
    confirmation = conductor.confirmation
    spread = confirmation.spread if confirmation else None
    return advise(conductor.space, trials, context.name, spread)


def _make_conductor(
    context: SearchContext, slots: int, environment: Mapping[str, str], order: Order
) -> Conductor:
    """Return a new conductor, or the conductor that the journal of the search leads to."""
    journal, recorded = context.journal, context.recorded
    find = FinishedTrials(context.record, environment, context.name)
    may_find = None if context.fresh else find
    if recorded is None or recorded.session is None:
        conductor = Conductor(context.space, context.facts, slots, find=may_find, clock=order.clock)
    else:
        context.view.phase(f"reading the journal of {context.name}")
        restored = restored_decisions(journal.events, find)
        first_slots = recorded.sessions[0].slots
        conductor = Conductor(
            recorded.first_space, context.facts, first_slots, restored, may_find, order.clock
        )
        repeat(conductor, journal.events, context.name)
        if changed := environment_changes(recorded.session.environment, environment):
            context.view.phase(
                f"unfinished trials resume with {changed}: their last bits may differ"
            )
        if context.space != conductor.space or slots != recorded.session.slots:
            conductor.edit(context.space, slots)
    if recorded is not None and context.space != recorded.space:
        journal.append(SearchBegun(context.space, context.space_text, context.facts))
    journal.append(SessionBegun(environment, slots, order.in_order, journal.epoch, order.clock))
    return conductor


def _make_observers(
    context: SearchContext,
    conductor: Conductor,
    workers: list[Any],
    environment: Mapping[str, str],
) -> list[SearchObserver]:
    from tuner.workers.load import MetricsPoller

    observers: list[SearchObserver] = [
        TrackerObserver(context.tracker, environment, MetricsPoller(workers), conductor.board),
        ViewObserver(context.view, conductor.board.metric),
        OutboxObserver(context.folder),
    ]
    if context.mirror is not None:
        observers.append(StorageObserver(context.mirror))
    if url := study_url(context.home.root):
        store = StudyStore(url, context.name, context.space.objectives)
        observers.append(DashboardObserver(store, conductor))
    return observers
