"""One session of a search: trains its trials, records the result and publishes it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGINT

from model.checkpoints.header import recorded_digest
from model.errors import CheckpointError
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial
from tuner.driver.context import SearchContext
from tuner.driver.interrupt import Interrupts, deferred_interrupts
from tuner.driver.team import end_ray
from tuner.driver.training import TrainingResult, train
from tuner.errors import Interrupted, ResultError, StorageError, StoreError, signal_text
from tuner.journal.events import SessionEnded
from tuner.publish.live_report import live_report
from tuner.publish.publish import attach_report, register_model
from tuner.results.result import SearchResult
from tuner.storage.states import keep_only, present_state
from tuner.tracking.progress import final_tags
from tuner.tracking.tags import Tag

OnResult = Callable[[SearchResult], None]


def run_search(
    context: SearchContext,
    interrupts: Interrupts,
    started: float,
    on_result: OnResult,
) -> SearchResult:
    """Train the trials of a search, record the result and publish it.

    The user sees the result as soon as the record is complete: the model is registered and the
    report written while the user reads. A signal meanwhile ends this after the step under way, and
    `tuner sync` makes what is missing. SIGTERM and SIGHUP, whose senders soon kill, leave more to
    it: nothing is published, and no weights are sent.

    A tracking store that fails after the training does not fail the search: the result's
    `problem` names the error.

    Args:
        context: inputs of the session.
        interrupts: deferred signals of the user.
        started: time of `time.monotonic` at which the session started.
        on_result: function to call with the result, before it is published.

    Raises:
        ResultError: if no trial has reached a report.
        KeyboardInterrupt: if the search was interrupted before the first report.
        Replaced: if another driver has taken over the search; nothing is written or deleted then.
    """
    tracker, journal = context.tracker, context.journal
    status, best_run, store = "failed", None, _StoreSteps()
    checkpoints: list[tuple[Trial, Path, str]] = []
    end: SessionEnded | None = None
    tags: dict[str, str] = {}
    try:
        with live_report(context.home, context.name):
            training = train(context, interrupts)
        result = _result(context, training, started, interrupts.signal)
        status = result.status
        kept = _kept_trials(result, training.conductor.board)
        checkpoints = _checkpoints(context, kept)
        end = _end(result, training, kept, checkpoints)
        journal.append(end)  # before the store, which may be slow: SIGKILL often follows SIGTERM
        tags = _final_tags(end, training.conductor.board, result.space.search.trials)
        store.run(tracker.flush)
        runs = {n: run for n in training.conductor.board.trials if (run := tracker.run_of(n))}
        result = replace(result, run_ids=runs)
        best_run = tracker.run_of(result.best.number)
        if not interrupts.is_urgent:
            context.view.phase("recording the best trials")
            attach = tracker.keep_checkpoint
            store.run(*(partial(attach, t.number, path, t.tokens) for t, path, _ in checkpoints))
    except KeyboardInterrupt:
        status = end.status if end else "interrupted"
        raise
    finally:
        # a second Ctrl-C must not leave a record that says "running"
        with closing(tracker), deferred_interrupts():
            if end is None:
                end = SessionEnded(status)
                journal.append(end)
            digest = {Tag.JOURNAL: journal.digest}
            attach_journal = partial(tracker.add_artifact, journal.path, tags=digest)
            end_parent_run = partial(tracker.finish, status, end.summary, best_run, tags=tags)
            store.run(attach_journal, end_parent_run)
        journal.check_epoch()  # what follows belongs to a driver that came meanwhile
        shutil.rmtree(context.folder / "tune", ignore_errors=True)
        if store.problem is None and status == "finished":
            shutil.rmtree(context.checkpoints, ignore_errors=True)
            if context.storage is not None:
                with suppress(StorageError):  # they cost space only
                    keep_only(context.storage, [path for _, path, _ in checkpoints])
    result = replace(result, problem=store.problem, signal=interrupts.signal)
    return _show(context, result, interrupts, on_result)


def _show(
    context: SearchContext, result: SearchResult, interrupts: Interrupts, on_result: OnResult
) -> SearchResult:
    """Show a result that is recorded, and publish it while Ray ends."""
    try:
        on_result(result)
    finally:  # also if nobody reads the output any more
        end_ray(context.ray)  # only now: a fault of Ray in its end costs no result
        problem = result.problem or _publish(context, result, interrupts)
    return replace(result, problem=problem, signal=interrupts.signal)


class _StoreSteps:
    """Runs steps that write to the tracking store, up to the first that fails.

    The tracker waits half a minute for a store that does not answer, so no later step is tried.

    Attributes:
        problem: message of the step that failed; None if none has.
    """

    def __init__(self) -> None:
        self.problem: str | None = None

    def run(self, *steps: Callable[[], None]) -> None:
        for step in steps:
            if self.problem is None:
                self.problem = _store_problem(step)


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


def _checkpoints(context: SearchContext, kept: Sequence[Trial]) -> list[tuple[Trial, Path, str]]:
    """Return the last checkpoint of each trial, and its digest, if this search wrote it.

    The checkpoint of a worker on another node comes from storage.
    """
    found = []
    for trial in kept:
        path = trial.reports[-1].checkpoint
        if path is None:
            continue
        present = present_state(path, context.checkpoints, context.storage)
        if present is not None:
            with suppress(CheckpointError):  # a damaged one is not kept
                found.append((trial, present, recorded_digest(present)))
        elif context.storage is not None:
            context.view.phase(
                f"the weights of trial {trial.number} are neither here nor in the storage; what "
                f"needs them trains the trial again"
            )
    return found


def _end(
    result: SearchResult,
    training: TrainingResult,
    kept: Sequence[Trial],
    checkpoints: Sequence[tuple[Trial, Path, str]],
) -> SessionEnded:
    """Return the journal's last event of a session that has a result."""
    return SessionEnded(
        status=result.status,
        summary=result.summary(),
        first_turn=training.first_turn,
        best=result.best.number,
        kept=[trial.number for trial in kept],
        limit=result.limit,
        halted=result.halted,
        advice=result.advice,
        weights={trial.number: sha256 for trial, _, sha256 in checkpoints},
    )


def _final_tags(end: SessionEnded, board: Board, trials: int) -> dict[str, str]:
    """Return the tags of a session that has a result; `trials` is their number in the space."""
    number = max(trials, len(board.trials))
    return final_tags(end.status, end.best, end.summary, len(board.ended), number)


def _publish(context: SearchContext, result: SearchResult, interrupts: Interrupts) -> str | None:
    """Register the model and attach the report; return a message about what failed, if any."""

    def register() -> None:
        version = register_model(context.home, result)
        if version is not None:
            context.view.phase(f"the model registry has it as {version}")

    def attach() -> None:
        context.view.phase("writing the report")
        attach_report(context.home, result)

    problems = []
    for step, what in ((register, "registering the model"), (attach, "writing the report")):
        if interrupts.is_urgent or interrupts.signal != result.signal:  # soon killed, or a new one
            problems.append(
                f"{signal_text(interrupts.signal or SIGINT)} before {what}; "
                f"'tuner sync {context.name}' does it"
            )
            break
        context.journal.check_epoch()
        if problem := _store_problem(step):
            problems.append(problem)
    return "; ".join(problems) or None


def _result(
    context: SearchContext, training: TrainingResult, started: float, signal: int | None
) -> SearchResult:
    conductor = training.conductor
    board = conductor.board
    best, trials = board.best, board.searched
    if best is None and training.halted == "stopped":
        raise Interrupted(0)
    if best is None and training.halted:
        raise Interrupted(signal or SIGINT)
    if best is None:
        outcomes = ", ".join(sorted({str(trial.outcome) for trial in trials}))
        raise ResultError(
            f"no trial of {context.name} has a result: {outcomes}; if they diverged, lower the "
            f"learning rates; 'tuner show --search {context.name}' shows them"
        )
    wall, recorded = time.monotonic() - started, context.recorded
    return SearchResult(
        name=context.name,
        space=conductor.space,
        metric=board.metric,
        trials=trials,
        best=best,
        run_ids={},  # until the store has them
        experiment_id=context.tracker.experiment_id,
        wall_seconds=wall + (recorded.seconds if recorded else 0.0),
        training_share=training.training_seconds / (training.workers * wall),
        run_id=context.tracker.run_id,
        status="interrupted" if training.halted else "finished",
        started=context.journal.begun_ms,
        space_text=context.space_text,
        environment=training.environment,
        branches=board.branches,
        confirming=board.confirming,
        confirmation=conductor.confirmation,
        limit=conductor.limit,
        halted=training.halted,
        advice=training.advice,
        sessions=1 + (len(recorded.sessions) if recorded else 0),
    )
