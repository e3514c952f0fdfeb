"""Observers of a search: the tracker, the view and Optuna's dashboard.

The driver adds an event to the journal, then calls the observers in the order of its list. An
observer never decides anything, and a search runs equally well without any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import override

from model.engine.report import Report
from tuner.conductor.board import Board
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.driver.catch_up import catch_up
from tuner.driver.view import View
from tuner.journal.journaled_search import JournaledSearch
from tuner.notify.outbox import note
from tuner.publish.optuna_dashboard import StudyStore
from tuner.results.optuna_export import study_trial
from tuner.storage.mirror import JournalMirror
from tuner.tracking.metrics import PROGRESS
from tuner.tracking.progress import progress_tags
from tuner.tracking.runs import trial_tags
from tuner.tracking.tracker import Tracker
from tuner.workers.load import MetricsPoller


class SearchObserver:
    """Reacts to the events of a search; every method does nothing unless it is overridden.

    Methods must return at once: the driver calls them between two reports.

    Attributes:
        name: name of the observer in messages.
    """

    name = "an observer"

    @property
    def problem(self) -> str | None:
        """Message about data that the observer cannot write at present; None if there are none."""
        return None

    def search_resumed(self, search: JournaledSearch | None) -> None:
        """Called first, with the content of the journal; None if no search begins there."""

    def trial_restored(self, trial: Trial) -> None:
        """Called for each trial of a resumed search whose state is in the journal already."""

    def trial_started(
        self, trial: Trial, time_ms: int, environment: Mapping[str, str] | None
    ) -> None:
        """Called for a new trial; `trial.outcome` is set if it equals another and is not trained.

        Args:
            trial: the trial.
            time_ms: time of the event in the journal.
            environment: device and versions of its worker, if they differ from those of the search.
        """

    def reported(self, trial: Trial, report: Report, time_ms: int, *, leads: bool) -> None:
        """Called after the conductor has decided about a report.

        Args:
            trial: the trial, which is ended or paused if the conductor has decided so.
            report: its newest report.
            time_ms: time of the event in the journal.
            leads: True if no other trial is better at its report of this number.
        """

    def trial_ended(self, trial: Trial, outcome: Outcome, time_ms: int) -> None:
        """Called when a trial has ended, or is interrupted by the end of this session.

        Args:
            trial: the trial; its `outcome` is None if it is only interrupted.
            outcome: how it ended.
            time_ms: time of the event in the journal.
        """

    def message_sent(self, text: str) -> None:
        """Called with news about the complete search, such as the restart of a worker."""

    def workers_changed(self, up: int, number: int) -> None:
        """Called when workers came or were lost, also when their number is the same again.

        Args:
            up: number of workers that can train trials.
            number: number of workers of the search.
        """

    def node_lost(self, node_id: str, name: str) -> None:
        """Called when a node of the cluster is down that had workers of the search.

        Args:
            node_id: id that Ray gave to it.
            name: host name, and address.
        """

    def tick(self) -> None:
        """Called about ten times a second while trials train."""

    def close(self) -> str | None:
        """Finish; return a message about data that could not be written, if there are any."""
        return None


class TrackerObserver(SearchObserver):
    """Records the search in MLflow.

    Args:
        tracker: the open tracker of the search.
        environment: device and versions of the workers.
        poller: source of the system metrics.
        board: trials of the search, whose progress is logged with them; None for no progress.
    """

    name = "the tracking store"

    def __init__(
        self,
        tracker: Tracker,
        environment: Mapping[str, str],
        poller: MetricsPoller | None = None,
        board: Board | None = None,
    ) -> None:
        self._tracker, self._environment, self._poller = tracker, environment, poller
        self._board = board

    @property
    @override
    def problem(self) -> str | None:
        return self._tracker.problem

    @override
    def search_resumed(self, search: JournaledSearch | None) -> None:
        catch_up(self._tracker, search)  # the previous driver may have died before it sent them

    @override
    def trial_started(
        self, trial: Trial, time_ms: int, environment: Mapping[str, str] | None
    ) -> None:
        tags = trial_tags(trial.parent, trial.confirms, recorded=bool(trial.reused))
        own = environment or self._environment
        self._tracker.start_trial(trial.number, trial.spec, own, time_ms, tags)

    @override
    def reported(self, trial: Trial, report: Report, time_ms: int, *, leads: bool) -> None:
        self._tracker.log_report(trial.number, report, time_ms)

    @override
    def trial_ended(self, trial: Trial, outcome: Outcome, time_ms: int) -> None:
        self._tracker.end_trial(trial.number, str(outcome), time_ms)

    @override
    def tick(self) -> None:
        if self._poller is not None and (metrics := self._poller.poll()):
            values = {**metrics.values, **self._progress()}
            self._tracker.log_system_metrics(metrics._replace(values=values, tags=self._tags()))

    def _tags(self) -> dict[str, str]:
        """Return how far the search is, as tags of its run, which a person reads."""
        board = self._board
        if board is None:
            return {}
        best, leader = None, board.best
        if leader is not None and math.isfinite(value := board.value(leader)):
            best = board.metric, value, leader.number
        return progress_tags(len(board.ended), board.num_trials, best, board.seconds_left)

    def _progress(self) -> dict[str, float]:
        """Return how far the search is, as metrics of its run: MLflow's page of it is live."""
        board = self._board
        if board is None:
            return {}
        values = {
            "trials_ended": len(board.ended),
            "trials": board.num_trials,
            "tokens_per_second": board.tokens_per_second,
        }
        if board.seconds_left is not None:
            values["seconds_left"] = board.seconds_left
        if board.best is not None and math.isfinite(best := board.value(board.best)):
            values[f"best_{board.metric}"] = best
        return {f"{PROGRESS}{name}": float(value) for name, value in values.items()}


class ViewObserver(SearchObserver):
    """Shows the search to the user.

    Args:
        view: the view.
        metric: name of the objective's metric.
    """

    name = "the view"

    def __init__(self, view: View, metric: str) -> None:
        self._view, self._metric = view, metric
        self._workers: tuple[int, int] | None = None  # that are up, and all

    @override
    def trial_started(
        self, trial: Trial, time_ms: int, environment: Mapping[str, str] | None
    ) -> None:
        if trial.outcome is not None:  # no report will show that it equals another trial
            self._view.event(trial, str(trial.outcome))

    @override
    def reported(self, trial: Trial, report: Report, time_ms: int, *, leads: bool) -> None:
        self._view.event(trial, report_text(trial, self._metric, leads=leads))

    @override
    def message_sent(self, text: str) -> None:
        self._view.phase(text)

    @override
    def workers_changed(self, up: int, number: int) -> None:
        if self._workers != (up, number):
            self._workers = up, number
            self._view.workers(up, number)


class StorageObserver(SearchObserver):
    """Says when the storage does not answer, and when it answers again.

    Args:
        mirror: sends the journal to storage.
    """

    name = "the storage"

    def __init__(self, mirror: JournalMirror) -> None:
        self._mirror = mirror

    @property
    @override
    def problem(self) -> str | None:
        return self._mirror.problem


class OutboxObserver(SearchObserver):
    """Notes for messages what the journal does not hold.

    Args:
        folder: folder of the search.
    """

    name = "the outbox"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @override
    def node_lost(self, node_id: str, name: str) -> None:
        note(self._folder, {"lost": node_id, "name": name, "time": time.time()})


class DashboardObserver(SearchObserver):
    """Copies ended trials to Optuna's dashboard.

    Args:
        store: writer of the study.
        conductor: conductor of the search, for its space, which may be edited, and its trials.
    """

    name = "Optuna's study"

    def __init__(self, store: StudyStore, conductor: Conductor) -> None:
        self._store, self._conductor = store, conductor

    @override
    def trial_restored(self, trial: Trial) -> None:
        self._copy(trial)

    @override
    def trial_ended(self, trial: Trial, outcome: Outcome, time_ms: int) -> None:
        self._copy(trial)

    def _copy(self, trial: Trial) -> None:
        # Trials that confirm or cool down repeat draws, so the study does not get them.
        if trial.outcome and trial.is_searched and trial.reports:
            observation = self._conductor.board.observation(trial)
            frozen = study_trial(self._conductor.space, trial.draw, observation)
            self._store.add(trial.number, frozen)

    @override
    def close(self) -> str | None:
        return self._store.close()


def report_text(trial: Trial, metric: str, *, leads: bool) -> str:
    """Format the newest report of a trial: `report 3/9  val_loss 4.1234  best at this report`."""
    value = trial.objective(metric)
    parts = [f"report {len(trial.reports)}/{len(trial.report_steps)}  {metric} {value:.4f}"]
    if leads:
        parts.append("best so far" if trial.has_finished else "best at this report")
    if trial.outcome:
        parts.append(str(trial.outcome))
    elif trial.is_paused:
        parts.append("waits to be promoted")
    if trial.last is not None and trial.last.problem:
        parts.append(trial.last.problem)
    return "  ".join(parts)
