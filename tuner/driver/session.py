"""One session of a search: trains its trials, records the result and publishes it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGINT
from typing import Literal

from model.checkpoints.header import recorded_digest
from model.errors import CheckpointError
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial
from tuner.driver.interrupt import deferred_interrupts
from tuner.driver.start import Start
from tuner.driver.team import end_ray
from tuner.driver.training import TrainingResult, train
from tuner.errors import Interrupted, ResultError, StorageError, StoreError, signal_text
from tuner.journal.events import SessionEnded
from tuner.journal.fold import Search
from tuner.journal.follower import Cursor, Follower
from tuner.publish.publish import attach_report, register_model
from tuner.results.advice import advise
from tuner.results.result import SearchResult
from tuner.storage.states import keep_only, present_state
from tuner.tracking.projection import BYTES_PER_SECOND, CURSOR

_PATIENCE_SECONDS = 30.0  # without any progress of the store


def run_session(start: Start) -> SearchResult:
    """Train the trials of a search, record the result and publish it.

    The user sees the result as soon as the record is complete: the model is registered and the
    report written while the user reads. A signal meanwhile ends this after the step under way, and
    `tuner sync` makes what is missing. SIGTERM and SIGHUP, whose senders soon kill, leave more to
    it: nothing is published, and no weights are sent.

    A tracking store that fails after the training does not fail the search: the result's
    `problem` names the error.

    Args:
        start: inputs of the session.

    Raises:
        ResultError: if no trial has reached a report.
        StoreError: if the tracking store cannot be opened, as the first trials train.
        KeyboardInterrupt: if the search was interrupted before the first report.
        Replaced: if another driver has taken over the search; nothing is written or deleted then.
    """
    journal = start.journal
    mlflow = Follower(
        start.mlflow, journal.feed(), Cursor(start.folder, CURSOR), may_write=journal.may_write
    )
    followers = [mlflow] if start.mirror is None else [mlflow, start.mirror]
    status: Literal["finished", "interrupted", "failed"] = "failed"
    patience = _PATIENCE_SECONDS
    checkpoints: list[tuple[Trial, Path, str]] = []
    end: SessionEnded | None = None
    try:
        training = train(start, followers)
        result, board = _result(start, training)
        checkpoints = _checkpoints(start, _kept_trials(result, board))
        end = _end(result, training, _kept_trials(result, board), checkpoints)
        journal.append(end)  # before the store, which may be slow: SIGKILL often follows SIGTERM
        if checkpoints and not start.interrupts.is_urgent:
            start.view.phase("recording the best trials")
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except StoreError:  # it cannot be opened: nobody waits for it
        patience = 0.0
        raise
    finally:
        # a second Ctrl-C must not leave a record that says "running"
        with deferred_interrupts():
            if end is None:
                end = SessionEnded(status)
                journal.append(end)
            mlflow.start()  # if no trial has trained
            size = sum(path.stat().st_size for _, path, _ in checkpoints)
            problem = mlflow.flush(patience + size / BYTES_PER_SECOND)
            mlflow.close(0.0 if problem else _PATIENCE_SECONDS)
        journal.check_epoch()  # what follows belongs to a driver that came meanwhile
        shutil.rmtree(start.folder / "tune", ignore_errors=True)
        if problem is None and end.status == "finished":
            shutil.rmtree(start.checkpoints, ignore_errors=True)
            if start.storage is not None:
                with suppress(StorageError):  # they cost space only
                    keep_only(start.storage, [path for _, path, _ in checkpoints])
    result = replace(result, problem=problem, signal=start.interrupts.signal)
    if start.mlflow.is_open:
        runs, run_ids = start.mlflow.runs, start.mlflow.run_ids
        result = replace(
            result, run_id=runs.run_id, experiment_id=runs.experiment_id, run_ids=run_ids
        )
    return _show(start, result)


def _show(start: Start, result: SearchResult) -> SearchResult:
    """Show a result that is recorded, and publish it while Ray ends."""
    try:
        start.request.on_result(result)
    finally:  # also if nobody reads the output any more
        end_ray(start.ray)  # only now: a fault of Ray in its end costs no result
        problem = result.problem or _publish(start, result)
    return replace(result, problem=problem, signal=start.interrupts.signal)


def _store_problem(step: Callable[[], None]) -> str | None:
    """Run a step; return the message of its StoreError, if it raises one."""
    try:
        step()
    except StoreError as error:
        return str(error)
    return None


def _kept_trials(result: SearchResult, board: Board) -> list[Trial]:
    """Return the trials whose checkpoints are kept: the winner, and the best of the search.

    And the best of each shorter budget.
    """
    best = board.trials[result.best.number]
    others = [*board.ranked[: result.space.search.keep], *result.best_by_budget.values()]
    return [best, *(trial for trial in others if trial.number != best.number)]


def _checkpoints(start: Start, kept: Sequence[Trial]) -> list[tuple[Trial, Path, str]]:
    """Return the last checkpoint of each trial, and its digest, if this search wrote it.

    The checkpoint of a worker on another node comes from storage.
    """
    checkpoints = []
    for trial in kept:
        path = trial.reports[-1].checkpoint
        if path is None:
            continue
        present = present_state(path, start.checkpoints, start.storage)
        if present is not None:
            with suppress(CheckpointError):  # a damaged one is not kept
                checkpoints.append((trial, present, recorded_digest(present)))
        elif start.storage is not None:
            start.view.phase(
                f"the weights of trial {trial.number} are neither here nor in the storage; what "
                f"needs them trains the trial again"
            )
    return checkpoints


def _end(
    result: SearchResult,
    training: TrainingResult,
    kept: Sequence[Trial],
    checkpoints: Sequence[tuple[Trial, Path, str]],
) -> SessionEnded:
    """Return the journal's last event of a session that has a result."""
    return SessionEnded(
        status="interrupted" if training.halted else "finished",
        summary=result.summary(),
        first_turn=training.first_turn,
        best=result.best.number,
        kept=tuple(trial.number for trial in kept),
        limit=result.limit,
        halted=result.halted,
        advice=tuple(result.advice),
        weights={trial.number: sha256 for trial, _, sha256 in checkpoints},
    )


def _publish(start: Start, result: SearchResult) -> str | None:
    """Register the model and attach the report; return a message about what failed, if any."""

    def register() -> None:
        version = register_model(start.home, result)
        if version is not None:
            start.view.phase(f"the model registry has it as {version}")

    def attach() -> None:
        start.view.phase("writing the report")
        attach_report(start.home, result)

    problems = []
    for step, what in ((register, "registering the model"), (attach, "writing the report")):
        interrupts = start.interrupts
        if interrupts.is_urgent or interrupts.signal != result.signal:  # soon killed, or a new one
            problems.append(
                f"{signal_text(interrupts.signal or SIGINT)} before {what}; "
                f"'tuner sync {start.name}' does it"
            )
            break
        start.journal.check_epoch()
        if problem := _store_problem(step):
            problems.append(problem)
    return "; ".join(problems) or None


def _result(start: Start, training: TrainingResult) -> tuple[SearchResult, Board]:
    """Return the result of a session, and its trials."""
    status: Literal["interrupted", "finished"] = "interrupted" if training.halted else "finished"
    # the journal gets the end with the result; what it makes of open trials is known already
    end = SessionEnded(status, time_ms=time.time_ns() // 1_000_000)
    search = Search.of_name([*start.journal.events, end], start.name)
    # the store says which runs they are once it has them
    result = SearchResult.of(start.name, search, run_id="", experiment_id="", run_ids={})
    if result is None and training.halted == "stopped":
        raise Interrupted(0)
    if result is None and training.halted:
        raise Interrupted(start.interrupts.signal or SIGINT)
    if result is None:
        outcomes = ", ".join(sorted({str(trial.outcome) for trial in search.board.searched}))
        raise ResultError(
            f"no trial of {start.name} has a result: {outcomes}; if they diverged, lower the "
            f"learning rates; 'tuner show --search {start.name}' shows them"
        )
    wall = time.monotonic() - start.began
    before = start.recorded.seconds if start.recorded else 0.0
    result = replace(
        result,
        wall_seconds=before + wall,
        training_share=training.training_seconds / (training.workers * wall),
        limit=training.limit,
        halted=training.halted,
        advice=[] if training.halted else _advice(result),
    )
    return result, search.board


def _advice(result: SearchResult) -> list[str]:
    """Return recommendations for the next search."""
    trials = [trial for trial in result.trials if trial.parent is None and not trial.is_untrained]
    spread = result.confirmation.spread if result.confirmation else None
    return advise(result.space, trials, result.name, spread)
