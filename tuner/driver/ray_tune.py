"""Adapter to Ray Tune: hands out assignments as Tune trials and passes reports to the driver.

A Tune trial is one assignment, that is one segment of a trial of the search. A paused trial ends in
Tune and is resumed as another Tune trial, from its checkpoint. So nothing of Tune's pausing, saving
and restoring is used.

A client whose slot has no assignment gets a Tune trial that waits for one. Without it Tune would
end the process of the client, and start another for the next assignment, which takes two seconds of
a core. While that process starts, Tune gives it up as soon as another client is free, and so starts
a process for almost every assignment of a search with short trials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from tuner.driver.driver import Driver
from tuner.workers.assignment import Assignment
from tuner.workers.client import TuneTrainable
from tuner.workers.cluster import SLOT

_LONGEST_REASON = 300  # characters
_LONGEST_START_SECONDS = 120.0  # of the first clients
_WAIT_SECONDS = 0.2  # each waiting client adds so much to the time between two questions
_LONGEST_WAIT_SECONDS = 3.0


def run_ray_tune(driver: Driver, workers: Sequence[Any], slots: int, folder: Path) -> None:
    """Run Ray Tune until the driver has no further assignment.

    Args:
        driver: the driver, begun.
        workers: handles of the workers.
        slots: number of trials in training at one time.
        folder: folder of the search; Tune writes to `tune` in it.

    Raises:
        KeyboardInterrupt: if the search was halted or the user interrupted it.
    """
    _hide_credentials()
    barrier = StartBarrier(driver)
    trainable = tune.with_resources(
        tune.with_parameters(TuneTrainable, workers=workers), {"cpu": 0, SLOT: 1}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(driver, barrier),
            scheduler=TuneScheduler(driver),
            num_samples=-1,  # until the searcher has finished
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[TuneCallback(driver, barrier)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()


def _hide_credentials() -> None:
    """Keep Tune from copying credentials into the settings of its trials, which Ray logs.

    MLflow uploads artifacts with these credentials from this process; the trials need none.
    """
    names = class_cache.ENV_VARS_TO_PROPAGATE
    names.difference_update({name for name in names if name.startswith("AWS_")})


class StartBarrier:
    """Holds all reports back until the first clients are up, then calls `release_reports`.

    Tune starts a process for each client, which takes seconds. When a trial ends meanwhile, Tune
    gives its process to a client that still waits for its own, throws that half-started process
    away, and continues so with the next. Therefore no trial may end, and no report may be released,
    before all first clients are up. After `_LONGEST_START_SECONDS` the barrier opens anyway.

    Args:
        driver: the driver whose reports are held back.
        clock: monotonic clock in seconds.
    """

    def __init__(self, driver: Driver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._clock = driver, clock
        self._deadline = clock() + _LONGEST_START_SECONDS
        self._starting: set[int] = set()  # trials whose clients have been requested
        self._is_open = False

    def client_requested(self, number: int) -> None:
        """Note that Tune starts a client for a trial."""
        if not self._is_open:
            self._starting.add(number)

    def client_started(self, number: int) -> None:
        """Open if this was the last of the first clients."""
        self._starting.discard(number)
        if not self._starting and not self._driver.has_ready_assignments:
            self._open()

    def client_failed(self, number: int) -> None:
        """Do not wait for this client any more."""
        self._starting.discard(number)

    def tick(self) -> None:
        """Open when the first clients take too long."""
        if self._clock() > self._deadline:
            self._open()

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._driver.release_reports()


class TuneSearcher(Searcher):
    """Hands out the driver's assignments as configurations of Tune trials.

    A configuration without an assignment is for a client that waits, and says how long it waits
    before it asks again. Each answer costs the driver some milliseconds, so the more clients wait,
    the longer they do.
    """

    def __init__(self, driver: Driver, barrier: StartBarrier) -> None:
        super().__init__()
        self._driver, self._barrier = driver, barrier
        self._live = 0  # Tune trials that were suggested and have not ended
        self._waiting: set[str] = set()  # those without an assignment
        self._clients = 0  # most of them at one time: so many clients have been started

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher for a restore that is not used."""
        return {}

    # Ray's annotation forgets FINISHED
    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        assignment = self._driver.next_assignment()
        if assignment is not None:
            self._barrier.client_requested(assignment.number)
        elif self._driver.is_over:
            return self.FINISHED
        elif self._live >= self._clients:  # no client is free
            return None
        else:
            self._waiting.add(trial_id)
        self._live += 1
        self._clients = max(self._clients, self._live)
        wait = min(_WAIT_SECONDS * len(self._waiting), _LONGEST_WAIT_SECONDS)
        return {"assignment": assignment, "wait_seconds": wait}

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that a client is free; the driver has decided about the trial already."""
        self._live -= 1
        self._waiting.discard(trial_id)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search is resumed from its journal."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its journal, not from Ray's snapshot")


class TuneScheduler(FIFOScheduler):
    """Passes reports to the driver, and ends a Tune trial when its assignment is done."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `TuneSearcher` does."""
        return {}

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, driver = _number(trial), self._driver
        if number is None:
            continues = not driver.has_ready_assignments and not driver.is_over
        else:
            continues = driver.record_report(number, result["report"])
        return str(self.CONTINUE if continues else self.STOP)


class TuneCallback(tune.Callback):
    """Calls the driver regularly, and reports started and failed clients."""

    def __init__(self, driver: Driver, barrier: StartBarrier) -> None:
        self._driver, self._barrier = driver, barrier

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `TuneSearcher` does."""
        return {}

    @override
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._driver.tick()  # about ten times a second
        self._barrier.tick()

    @override
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if (number := _number(trial)) is not None:
            self._barrier.client_started(number)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if (number := _number(trial)) is not None:
            self._barrier.client_failed(number)
            self._driver.fail(number, _reason(trial))


def _number(trial: Any) -> int | None:
    """Return the number of the trial that a Tune trial trains; None if it waits."""
    assignment: Assignment | None = trial.config["assignment"]
    return None if assignment is None else assignment.number


def _reason(trial: Any) -> str:
    """Return the last line of the error of a failed Tune trial, which Tune keeps in a file."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1][:_LONGEST_REASON] if lines else "for an unknown reason"
