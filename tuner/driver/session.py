"""A driver's time with a search, from the moment that all its inputs are known to the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.conductor.board import Board
from tuner.conductor.conductor import Conductor
from tuner.driver.context import SearchContext
from tuner.driver.driver import Driver
from tuner.driver.interrupt import deferred_interrupts
from tuner.driver.training import _train
from tuner.errors import ResultError, StoreError
from tuner.journal.events import SessionEnded
from tuner.publish.publish import attach_report, register_model
from tuner.results.advice import advise
from tuner.results.result import SearchResult
from tuner.tracking.tracker import Tracker

if TYPE_CHECKING:
    pass


def run_search(
    session: SearchContext,
    check_interrupt: Callable[[], None],
    started: float,
) -> SearchResult:
    """Train, record, sum up; what can go wrong with the store at the end is no reason to fail."""
    tracker, journal = session.tracker, session.journal
    status, problem, best_run = "failed", None, None
    end = SessionEnded(status)
    try:
        driver, usage = _train(session, check_interrupt)
        problem = _problem(tracker.flush)
        result = _result(session, driver, started, usage)
        status = result.status
        end = _end(result, driver.conductor.board, usage["first_turn"])
        best_run = tracker.run_of(result.best.number)
        session.view.phase("recording the best trials")
        for number in end.kept:
            problem = problem or _problem(partial(_keep_state, tracker, result, number))
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        with deferred_interrupts():  # an impatient second one must not cut the record short
            journal.append(replace(end, status=status))
            problem = problem or _problem(partial(tracker.add_artifact, journal.path))
            problem = problem or _problem(partial(tracker.finish, status, end.summary, best_run))
        tracker.close()
        shutil.rmtree(session.folder / "tune", ignore_errors=True)
        if problem is None and status == "finished":
            shutil.rmtree(session.folder / "checkpoints", ignore_errors=True)
    return replace(result, problem=problem or _publish(session, result))


def _problem(action: Callable[[], None]) -> str | None:
    """Do something with the store; what went wrong, if anything did."""
    try:
        action()
    except StoreError as error:
        return str(error)
    return None


def _end(result: SearchResult, board: Board, first_turn: float) -> SessionEnded:
    """What the journal says at the end, to be read back."""
    kept = [row.number for row in board.ranked[: result.space.search.keep]]
    best = result.best.number
    return SessionEnded(
        status=result.status,
        summary=result.summary(),
        first_turn=first_turn,
        best=best,
        kept=list(dict.fromkeys([best, *kept])),
        limit=result.limit,
        halted=result.halted,
        advice=result.advice,
    )


def _keep_state(tracker: Tracker, result: SearchResult, number: int) -> None:
    """Attach the state of a trial to its run, if this search has trained it."""
    row = next(row for row in result.trials if row.number == number)
    path = row.reports[-1].checkpoint
    if path and Path(path).is_file():
        tracker.keep_checkpoint(number, Path(path), row.tokens)


def _publish(session: SearchContext, result: SearchResult) -> str | None:
    """Make of the record what others look at; what went wrong, if anything did."""

    def add_model() -> None:
        made = register_model(session.home, result)
        if made is not None:
            session.view.phase(f"the model registry has it as {made}")

    def add_report() -> None:
        session.view.phase("writing the report")
        attach_report(session.home, result)

    problems = [problem for problem in map(_problem, (add_model, add_report)) if problem]
    return "; ".join(problems) or None


def _result(
    session: SearchContext, driver: Driver, started: float, usage: dict[str, float]
) -> SearchResult:
    board, conductor = driver.conductor.board, driver.conductor
    best, trials = board.best, board.searched
    if best is None and driver.halted:
        raise KeyboardInterrupt
    if best is None:
        outcomes = ", ".join(sorted({str(row.outcome) for row in trials}))
        raise ResultError(
            f"no trial of {session.name} has a result: {outcomes}; if they diverged, lower the "
            f"learning rates; 'tuner show --search {session.name}' shows them"
        )
    wall = time.monotonic() - started
    run_ids = {n: r for n in board.trials if (r := session.tracker.run_of(n)) is not None}
    return SearchResult(
        name=session.name,
        space=conductor.space,
        metric=board.metric,
        trials=trials,
        best=best,
        run_ids=run_ids,
        experiment_id=session.tracker.experiment_id,
        wall_seconds=wall,
        training_share=usage["training_seconds"] / (usage["workers"] * wall),
        run_id=session.tracker.run_id,
        status="interrupted" if driver.halted else "finished",
        started=session.journal.begun_ms,
        space_text=session.space_text,
        environment=driver.environment,
        confirming=board.confirming,
        confirmation=conductor.confirmation,
        limit=conductor.limit,
        halted=driver.halted,
        advice=[] if driver.halted else _advice(session, conductor),
    )


def _advice(session: SearchContext, conductor: Conductor) -> list[str]:
    """What the trials say about the next search."""
    searched = conductor.board.searched
    trials = [row for row in searched if row.parent is None and not row.is_duplicate]
    confirmation = conductor.confirmation
    spread = confirmation.spread if confirmation else None
    return advise(conductor.space, trials, session.name, spread)


# Ray ---------------------------------------------------------------------------------------
