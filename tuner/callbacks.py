"""What the driver does when Ray Tune tells it about a trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from model.report import Report
from tuner.board import Board
from tuner.live import View
from tuner.tracking import Tracker

_LONGEST_REASON = 300


class Events(tune.Callback):
    """Passes reports and endings to the board, the record and the view; frees slots at once.

    Args:
        board: the state of the search.
        tracker: the record.
        view: what the user sees.
        workers: to stop a trial without waiting for its client.
        check_interrupt: raises KeyboardInterrupt if the user wants the search to end.
    """

    def __init__(
        self,
        board: Board,
        tracker: Tracker,
        view: View,
        workers: Sequence[Any],
        check_interrupt: Callable[[], None],
    ) -> None:
        self._board, self._tracker, self._view, self._workers = board, tracker, view, workers
        self._check_interrupt = check_interrupt

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks for a restore that is not used."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """About ten times a second."""
        self._check_interrupt()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported."""
        number, report = trial.config["number"], result["report"]
        assert isinstance(report, Report)
        is_best = self._board.report(number, report)
        self._tracker.report(number, report)
        row = self._board.rows[number]
        self._view.event(
            row,
            f"report {len(row.reports)}/{len(row.spec.report_steps)}  "
            f"{self._board.metric} {row.objective(self._board.metric):.4f}"
            f"{'  best so far' if is_best else ''}",
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial finished, diverged or was stopped."""
        self._workers[trial.last_result["worker"]].stop.remote(str(trial.config["number"]))
        self._end(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's client or worker died; whichever worker has it must not train on."""
        number = trial.config["number"]
        for worker in self._workers:
            worker.stop.remote(str(number))
        self._end(number, _reason(trial))

    def _end(self, number: int, failure: str | None = None) -> None:
        outcome = self._board.end(number, failure)
        self._tracker.end_trial(number, outcome)
        self._view.event(self._board.rows[number], outcome)

    def close(self) -> None:
        """Mark what has not ended as interrupted."""
        for row in self._board.training:
            row.outcome = "interrupted"
            self._tracker.end_trial(row.number, row.outcome)


def _reason(trial: Any) -> str:
    """The last line of a failed trial's error, which Tune keeps in a file."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1][:_LONGEST_REASON] if lines else "for an unknown reason"
