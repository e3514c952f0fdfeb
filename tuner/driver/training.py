"""Trains the trials of a search: chooses devices, starts workers, runs conductor and driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuner.conductor.conductor import Conductor
from tuner.driver.context import SearchContext, attach_inputs
from tuner.driver.driver import Driver
from tuner.driver.interrupt import Interrupts
from tuner.driver.observer import (
    DashboardObserver,
    SearchObserver,
    TrackerObserver,
    ViewObserver,
)
from tuner.driver.optuna_dashboard import StudyStore, study_url
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journaled_search import environment_changes
from tuner.journal.repeat import repeat, restored_decisions
from tuner.schedulers.scheduler import RULES
from tuner.space.compilation import repays_compilation
from tuner.tracking.reuse import ReuseIndex
from tuner.tracking.tags import BEFORE

if TYPE_CHECKING:
    from tuner.workers.devices import Devices


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
    """

    conductor: Conductor
    halted: str | None
    environment: Mapping[str, str]
    workers: int
    training_seconds: float
    first_turn: float


def train(context: SearchContext, interrupts: Interrupts) -> TrainingResult:
    """Train all trials of a search; return early if the search is halted.

    Args:
        context: inputs of the session.
        interrupts: deferred signals of the user.
    """
    from tuner.workers.cluster import answer_of, start_workers, usage_of

    announce = interrupts.announce

    def check_interrupt() -> None:
        interrupts.announce = lambda number: None  # the driver says that the search ends
        interrupts.check()

    with context.ray:
        interrupts.check()
        folders = str(context.checkpoints), str(context.home.starts)
        devices, in_order = choose_devices(context)
        if devices.needs_calibration:
            devices = calibrate(devices, context, interrupts.check)
        workers = start_workers(devices, context.corpus, folders, gated=True)
        attach_inputs(context)  # while the workers start

        from tuner.workers.watchdog import Watchdog

        environment: dict[str, str] = answer_of(
            workers[0].environment.remote(), on_wait=interrupts.check
        )
        slots = devices.number * devices.slots
        conductor = _make_conductor(context, slots, environment, in_order=in_order)
        driver = Driver(
            conductor,
            context.journal,
            workers,
            _make_observers(context, conductor, workers, environment),
            in_order=in_order,
            check_interrupt=check_interrupt,
            watchdog=Watchdog(workers, context.space.engine.timeout_seconds),
        )
        context.view.begin(conductor.board, context.name)
        driver.begin()
        from tuner.driver.ray_tune import run_ray_tune  # takes a second; trials train already

        try:
            run_ray_tune(driver, workers, slots, context.folder)
        except KeyboardInterrupt:
            driver.halt("interrupted")
        finally:
            interrupts.announce = announce
            context.view.end()
            driver.close()
        usages = [usage_of(worker) for worker in workers]
    return TrainingResult(
        conductor,
        driver.halted,
        environment,
        devices.number,
        sum(usage.get("training_seconds", 0.0) for usage in usages),
        min(usage.get("first_turn", math.inf) for usage in usages),
    )


def choose_devices(context: SearchContext) -> tuple[Devices, bool]:
    """Return the devices, and True if reports are taken in the order of the lanes' clocks.

    A resumed search keeps its number of slots, its order of reports, its dtype, and whether its
    ticks are compiled, because the decisions in its journal depend on them.
    """
    from tuner.workers.devices import find_devices

    devices, order = find_devices(context.space), context.space.search.order
    devices = replace(devices, is_compiled=_is_compiled(context, devices))
    last = context.recorded.session if context.recorded else None
    if last is None:
        return devices, order == "tokens" or (order == "auto" and devices.number == 1)
    # The number of devices may have changed: each takes its share of the slots, rounded up.
    slots = math.ceil(last.slots / devices.number)
    if not devices.needs_calibration:
        slots = max(devices.slots, slots)
    before = last.environment
    if devices.dtype == "auto" and before["device"].startswith(devices.kind):
        # "auto" may mean another dtype in this version than when the search began.
        devices = replace(devices, dtype=before["dtype"])
    return replace(devices, slots=slots, needs_calibration=False), last.in_order


def _is_compiled(context: SearchContext, devices: Devices) -> bool:
    """Return whether ticks are compiled: as asked for, as recorded, or if it saves time."""
    from tuner.workers.devices import check_compilation, why_not_compiled

    setting = context.space.engine.compile
    if setting == "on":
        check_compilation(devices.kind)
        return True
    if setting == "off" or devices.kind != "cpu":
        return False
    last = context.recorded.session if context.recorded else None
    if last is not None:
        wanted = {**BEFORE, **last.environment}["compiled"] != BEFORE["compiled"]
    else:
        wanted = repays_compilation(context.space, context.facts, devices.number)
    return wanted and why_not_compiled() is None


def calibrate(
    devices: Devices, context: SearchContext, check_interrupt: Callable[[], None]
) -> Devices:
    """Return the devices with the number of slots that suits trials like the first one best."""
    from tuner.workers.cluster import calibrated

    context.view.phase("measuring how many trials the GPU should train at one time")
    space = context.space
    spec = space.spec(space.defaults(), context.facts, space.search.seed)
    most = math.ceil(space.search.trials / devices.number)
    file = context.home.calibration
    return calibrated(devices, context.corpus, spec, most, file, on_wait=check_interrupt)


def _make_conductor(
    context: SearchContext, slots: int, environment: Mapping[str, str], *, in_order: bool
) -> Conductor:
    """Return a new conductor, or the conductor that the journal of the search leads to."""
    journal, recorded = context.journal, context.recorded
    find = ReuseIndex(context.record, environment, context.facts.data_fingerprint)
    may_find = None if context.fresh else find
    if recorded is None or recorded.session is None:
        rules = recorded.rules if recorded else RULES
        conductor = Conductor(context.space, context.facts, slots, find=may_find, rules=rules)
    else:
        context.view.phase(f"reading the journal of {context.name}")
        restored = restored_decisions(journal.events, find)
        first_slots = recorded.sessions[0].slots
        conductor = Conductor(
            recorded.first_space, context.facts, first_slots, restored, may_find, recorded.rules
        )
        repeat(conductor, journal.events, context.name)
        if changed := environment_changes(recorded.session.environment, environment):
            context.view.phase(
                f"unfinished trials resume with {changed}: their last bits may differ"
            )
        if context.space != conductor.space or slots != recorded.session.slots:
            conductor.edit(context.space, slots)
    if recorded is not None and context.space != recorded.space:
        edit = SearchBegun(context.space, context.space_text, context.facts, recorded.rules)
        journal.append(edit)
    journal.append(SessionBegun(environment, slots, in_order))
    return conductor


def _make_observers(
    context: SearchContext,
    conductor: Conductor,
    workers: list[Any],
    environment: Mapping[str, str],
) -> list[SearchObserver]:
    from tuner.workers.load import MetricsPoller

    observers: list[SearchObserver] = [
        TrackerObserver(context.tracker, environment, MetricsPoller(workers)),
        ViewObserver(context.view, conductor.board.metric),
    ]
    if url := study_url(context.home.root):
        store = StudyStore(url, context.name, context.space.objectives)
        observers.append(DashboardObserver(store, conductor))
    return observers
