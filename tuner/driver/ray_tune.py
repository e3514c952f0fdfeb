"""Adapter to Ray Tune: starts the clients of the workers and passes reports to the driver.

A Tune trial is a client, which reads the reports of a group of workers until the search is over. It
is no trial of the search: the driver starts, pauses and resumes those in the workers. So nothing of
Tune's pausing, saving and restoring is used, a process of Tune serves many slots, and Tune handles
one result for all reports that have come meanwhile.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from tuner.driver.driver import Driver
from tuner.workers.client import TuneTrainable

_MOST_SLOTS = 64  # of the workers of a client; its process costs 1.3 s of a core and some 60 MB
_MOST_FAILURES = 3  # of a client in a row: then the trials of its workers fail
_LONGEST_REASON = 300  # characters


def run_ray_tune(
    driver: Driver,
    workers: Sequence[Any],
    slots: int,
    folder: Path,
    client_resources: Mapping[str, float],
) -> None:
    """Run Ray Tune until the search is over.

    Args:
        driver: the driver, begun.
        workers: handles of the workers.
        slots: number of trials in training at one time.
        folder: folder of the search; Tune writes to `tune` in it.
        client_resources: what Tune asks for each client (`RaySession`).

    Raises:
        KeyboardInterrupt: if the search was halted or the user interrupted it.
    """
    _hide_credentials()
    clients = Clients(driver, groups(len(workers), slots))
    trainable = tune.with_resources(
        tune.with_parameters(TuneTrainable, workers=workers), {"cpu": 0, **client_resources}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(clients),
            scheduler=TuneScheduler(driver),
            num_samples=-1,  # until the searcher has finished
            max_concurrent_trials=clients.number,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[TuneCallback(clients)],
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


def groups(workers: int, slots: int) -> list[tuple[int, ...]]:
    """Return the workers of each client.

    Args:
        workers: number of workers.
        slots: number of slots of all workers.
    """
    size = max(1, _MOST_SLOTS * workers // slots)
    return [tuple(range(workers)[first : first + size]) for first in range(0, workers, size)]


class Clients:
    """The groups of workers, and which of them have a client.

    Args:
        driver: the driver.
        groups: indices of the workers of each group.
    """

    def __init__(self, driver: Driver, groups: Sequence[tuple[int, ...]]) -> None:
        self.driver, self.number = driver, len(groups)
        self._free = deque(groups)
        self._groups: dict[str, tuple[int, ...]] = {}  # Tune trial → workers
        self._failures: Counter[tuple[int, ...]] = Counter()  # since the last result

    def begin(self, tune_trial: str) -> tuple[int, ...] | None:
        """Return a group for a client; None if all have one."""
        if not self._free:
            return None
        group = self._groups[tune_trial] = self._free.popleft()
        return group

    def reported(self, tune_trial: str) -> None:
        """Note that a client works."""
        self._failures.pop(self._groups[tune_trial], None)

    def failed(self, tune_trial: str, reason: str) -> None:
        """Note that a client failed: its group gets another.

        A new client receives all that the last one had and the driver did not take. If that is what
        it dies of, the trials have to go.
        """
        group = self._groups.pop(tune_trial)
        self._failures[group] += 1
        if self._failures[group] >= _MOST_FAILURES:
            self.driver.fail_trials(group, reason)
        self._free.append(group)


class TuneSearcher(Searcher):
    """Hands out the groups of workers as configurations of Tune trials."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher for a restore that is not used."""
        return {}

    # Ray's annotation forgets FINISHED
    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._clients.driver.is_over:
            return self.FINISHED
        group = self._clients.begin(trial_id)
        return None if group is None else {"workers": group}

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `TuneCallback` hears of a client that failed."""

    @override
    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search is resumed from its journal."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its journal, not from Ray's snapshot")


class TuneScheduler(FIFOScheduler):
    """Passes reports to the driver, and ends the clients when the search is over."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `TuneSearcher` does."""
        return {}

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._driver.record(result["batches"])
        return str(self.STOP if self._driver.is_over else self.CONTINUE)


class TuneCallback(tune.Callback):
    """Calls the driver regularly, and notes the results and failures of clients."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `TuneSearcher` does."""
        return {}

    @override
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._clients.driver.tick()  # about ten times a second

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._clients.reported(trial.trial_id)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._clients.failed(trial.trial_id, _reason(trial))


def _reason(trial: Any) -> str:
    """Return the last line of the error of a failed Tune trial, which Tune keeps in a file."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1][:_LONGEST_REASON] if lines else "for an unknown reason"
