"""The conductor in Ray Tune's terms: a searcher hands out jobs, a scheduler says who goes on.

A Tune trial is one job, one leg of a trial of ours. A trial that is parked ends in Tune, and is
brought back as another one that goes on from its state; so nothing of Tune's pausing, saving and
restoring is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from tuner.driver.driver import Driver

_LONGEST_REASON = 300


class TuneSearcher(Searcher):
    """Hands out the driver's jobs."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searcher for a restore that is not used."""
        return {}

    # Ray's annotation forgets FINISHED
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next job; None if there is none just now."""
        job = self._driver.next_job()
        return self.FINISHED if job is None and self._driver.is_over else job

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The driver knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search is resumed from its journal."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
        raise NotImplementedError("a search is resumed from its journal, not from Ray's snapshot")


class TuneScheduler(FIFOScheduler):
    """Stops a client when its job is done."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        goes_on = self._driver.take(trial.config["number"], result["report"])
        return str(self.CONTINUE if goes_on else self.STOP)


class TuneCallback(tune.Callback):
    """Tells the driver that time passes, and which clients died."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """About ten times a second."""
        self._driver.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A client is up."""
        self._driver.client_is_up(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A client died."""
        self._driver.fail(trial.config["number"], _reason(trial))


def _reason(trial: Any) -> str:
    """The last line of a failed trial's error, which Tune keeps in a file."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1][:_LONGEST_REASON] if lines else "for an unknown reason"
