"""Trains the trials of a search on Ray: devices, workers, conductor, driver and Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.conductor.conductor import Conductor
from tuner.driver.context import SearchContext, _keep_inputs
from tuner.driver.driver import Driver
from tuner.driver.optuna_dashboard import StudyStore, study_url
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journaled_search import environment_changes
from tuner.journal.repeat import repeat, restored_decisions
from tuner.tracking.reuse import ReuseIndex

if TYPE_CHECKING:
    from tuner.workers.devices import Devices


def _conductor(
    session: SearchContext, slots: int, environment: Mapping[str, str], *, in_order: bool
) -> Conductor:
    """A new one; or one that is where the journal of the search ends."""
    journal, recorded = session.journal, session.recorded
    find = ReuseIndex(session.record, environment, session.facts.data_fingerprint)
    may_find = None if session.fresh else find
    if recorded is None or recorded.session is None:
        conductor = Conductor(session.space, session.facts, slots, find=may_find)
    else:
        session.view.phase(f"repeating the journal of {session.name}")
        restored = restored_decisions(journal.events, find)
        first_slots = recorded.sessions[0].slots
        conductor = Conductor(recorded.first_space, session.facts, first_slots, restored, may_find)
        repeat(conductor, journal.events, session.name)
        if changed := environment_changes(recorded.session.environment, environment):
            session.view.phase(
                f"the trials under way go on with {changed}: their last bits may differ"
            )
        if session.space != conductor.space or slots != recorded.session.slots:
            conductor.edit(session.space, slots)
    if recorded is not None and session.space != recorded.space:
        journal.append(SearchBegun(session.space, session.space_text, session.facts))
    journal.append(SessionBegun(environment, slots, in_order))
    return conductor


def _where(session: SearchContext) -> tuple[Devices, bool]:
    """The devices, and whether reports are taken by the clocks of the slots."""
    from tuner.workers.devices import devices

    on, order = devices(session.space), session.space.search.order
    last = session.recorded.session if session.recorded else None
    if last is None:
        return on, order == "tokens" or (order == "auto" and on.number == 1)
    # as many slots as the search has, on however many devices there are now
    slots = math.ceil(last.slots / on.number)
    if not on.is_open:
        slots = max(on.slots, slots)
    before = last.environment
    if on.dtype == "auto" and before["device"].startswith(on.kind):
        on = replace(on, dtype=before["dtype"])  # as its trials so far, whatever auto means now
    return replace(on, slots=slots, is_open=False), last.in_order


def _calibrated(on: Devices, session: SearchContext) -> Devices:
    """The devices with as many slots as they gain from, for trials like the first."""
    from tuner.workers.cluster import calibrated

    session.view.phase("measuring how many trials the GPU should train at one time")
    space = session.space
    spec = space.spec(space.defaults(), session.facts, space.search.seed)
    most = math.ceil(space.search.trials / on.number)
    return calibrated(on, session.corpus, spec, most, session.home.calibration)


def _studies(session: SearchContext) -> StudyStore | None:
    url = study_url(session.home.root)
    return StudyStore(url, session.name, session.space.objectives) if url else None


def _train(
    session: SearchContext, check_interrupt: Callable[[], None]
) -> tuple[Driver, dict[str, float]]:
    """Train all trials; the workers' busy seconds, their number, and when the first one began."""
    from tuner.workers.cluster import SLOT, start_workers, usage_of

    with session.ray:
        check_interrupt()
        folders = str(session.folder / "checkpoints"), str(session.home.starts)
        on, in_order = _where(session)
        if on.is_open:
            on = _calibrated(on, session)
        workers = start_workers(on, session.corpus, folders, gated=True)
        _keep_inputs(session)  # while the workers start

        import ray

        from tuner.workers.load import MetricsPoller
        from tuner.workers.watchdog import Watchdog

        environment: dict[str, str] = ray.get(workers.handles[0].environment.remote())
        slots = on.number * on.slots
        conductor = _conductor(session, slots, environment, in_order=in_order)
        driver = Driver(
            conductor,
            session.journal,
            session.tracker,
            session.view,
            workers.handles,
            environment,
            in_order=in_order,
            check_interrupt=check_interrupt,
            studies=_studies(session),
            watchdog=Watchdog(workers.handles, session.space.engine.timeout_seconds),
            rounds=MetricsPoller(workers.handles),
        )
        session.view.begin(conductor.board, session.name)
        driver.begin()
        from ray import tune  # takes a second, while trials train already

        from tuner.driver.ray_tune import TuneCallback, TuneScheduler, TuneSearcher
        from tuner.workers.client import TuneTrainable

        trainable = tune.with_resources(
            tune.with_parameters(TuneTrainable, workers=workers.handles), {"cpu": 0, SLOT: 1}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(driver),
                scheduler=TuneScheduler(driver),
                num_samples=-1,  # until there are no more jobs
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(session.folder),
                callbacks=[TuneCallback(driver)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            driver.halt("interrupted")
        finally:
            session.view.end()
            driver.close()
        usages = [usage_of(worker) for worker in workers.handles]
    return driver, {
        "training_seconds": sum(usage.get("training_seconds", 0.0) for usage in usages),
        "workers": float(on.number),
        "first_turn": min(usage.get("first_turn", math.inf) for usage in usages),
    }
