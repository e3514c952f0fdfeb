"""A driver's time with a search, from the moment that all its inputs are known to the result."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.corpus import Corpus
from tuner.advice import advise
from tuner.board import Board
from tuner.conductor import Conductor
from tuner.corpus_facts import CorpusFacts
from tuner.driver import Driver
from tuner.errors import ResultError, StoreError
from tuner.finished import Finished
from tuner.history import (
    Recorded,
    environment_changes,
    memory_of,
    repeat,
    search_event,
    session_event,
)
from tuner.home import Home
from tuner.interrupt import noted_interrupts
from tuner.journal import Event, Journal
from tuner.live import View
from tuner.publication import attach_report, register_model
from tuner.record import Record
from tuner.result import SearchResult
from tuner.space import SearchSpace
from tuner.study_store import StudyStore, study_url
from tuner.tags import DATA_FILE, SPACE_FILE, START_FOLDER
from tuner.tracking import Tracker

if TYPE_CHECKING:
    from tuner.local_ray import Devices


@dataclass(frozen=True)
class Session:
    """All that a driver needs to begin, or to go on.

    Attributes:
        name: of the search.
        space: what it searches.
        space_text: the file that the space came from.
        home: where it lives.
        view: is told what happens.
        corpus: the data.
        facts: what specifications know of them.
        record: the store, to read.
        journal: open.
        tracker: the store, to write.
        recorded: what the journal says of the search; None if it begins.
        fresh: whether finished trials of other searches are trained again.
        ray: what runs until all trials are trained.
    """

    name: str
    space: SearchSpace
    space_text: str
    home: Home
    view: View
    corpus: Corpus
    facts: CorpusFacts
    record: Record
    journal: Journal
    tracker: Tracker
    recorded: Recorded | None
    fresh: bool
    ray: ExitStack

    @property
    def folder(self) -> Path:
        """Its journal and checkpoints."""
        return self.home.search(self.name)


def conduct(
    session: Session,
    check_interrupt: Callable[[], None],
    started: float,
) -> SearchResult:
    """Train, record, sum up; what can go wrong with the store at the end is no reason to fail."""
    tracker, journal = session.tracker, session.journal
    status, problem, best_run = "failed", None, None
    end: Event = {"summary": {}, "best": None}
    try:
        driver, usage = _train(session, check_interrupt)
        problem = _problem(tracker.flush)
        result = _result(session, driver, started, usage)
        status = result.status
        end = _end(result, driver.conductor.board, usage["first_turn"])
        best_run = tracker.run_of(result.best.number)
        session.view.phase("recording the best trials")
        for number in end["kept"]:
            problem = problem or _problem(partial(_keep_state, tracker, result, number))
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        with noted_interrupts():  # an impatient second one must not cut the record short
            journal.append({"event": "end", "status": status, **end})
            problem = problem or _problem(partial(tracker.add_artifact, journal.path))
            problem = problem or _problem(partial(tracker.finish, status, end["summary"], best_run))
        tracker.close()
        shutil.rmtree(session.folder / "tune", ignore_errors=True)
        if problem is None and status == "finished":
            shutil.rmtree(session.folder / "checkpoints", ignore_errors=True)
    return replace(result, problem=problem or _publish(session, result))


def _keep_inputs(session: Session) -> None:
    """Attach what a replay, or another search, will need."""
    tracker, corpus, start = session.tracker, session.corpus, session.facts.init_from
    tracker.add_text(session.space_text, SPACE_FILE)
    tracker.add_text(json.dumps(corpus.files, indent=1), DATA_FILE)
    with TemporaryDirectory() as folder:
        (tokenizer,) = corpus.tokenizer.save(folder, "huggingface")
        tracker.add_artifact(tokenizer)
    if start is not None:
        from model.warm_start import start_path  # brings torch

        tracker.add_artifact(start_path(session.home.starts, start), START_FOLDER)


def _problem(action: Callable[[], None]) -> str | None:
    """Do something with the store; what went wrong, if anything did."""
    try:
        action()
    except StoreError as error:
        return str(error)
    return None


def _end(result: SearchResult, board: Board, first_turn: float) -> Event:
    """What the journal says at the end, to be read back."""
    kept = [row.number for row in board.ranked[: result.space.search.keep]]
    best = result.best.number
    return {
        "summary": result.summary(),
        "first_turn": first_turn,
        "best": best,
        "kept": list(dict.fromkeys([best, *kept])),
        "limit": result.limit,
        "halted": result.halted,
        "advice": result.advice,
    }


def _keep_state(tracker: Tracker, result: SearchResult, number: int) -> None:
    """Attach the state of a trial to its run, if this search has trained it."""
    row = next(row for row in result.trials if row.number == number)
    path = row.reports[-1].checkpoint
    if path and Path(path).is_file():
        tracker.keep_state(number, Path(path), row.tokens)


def _publish(session: Session, result: SearchResult) -> str | None:
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
    session: Session, driver: Driver, started: float, usage: dict[str, float]
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
    run_ids = {n: r for n in board.rows if (r := session.tracker.run_of(n)) is not None}
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


def _advice(session: Session, conductor: Conductor) -> list[str]:
    """What the trials say about the next search."""
    trials = [
        row
        for row in conductor.board.searched
        if row.parent is None and not (row.outcome or "").startswith("same as")
    ]
    confirmation = conductor.confirmation
    spread = confirmation.spread if confirmation else None
    return advise(conductor.space, trials, session.name, spread)


def _conductor(
    session: Session, slots: int, environment: Mapping[str, str], *, in_order: bool
) -> Conductor:
    """A new one; or one that is where the journal of the search ends."""
    journal, recorded = session.journal, session.recorded
    find = Finished(session.record, environment, session.facts.data_fingerprint)
    may_find = None if session.fresh else find
    if recorded is None or recorded.session is None:
        conductor = Conductor(session.space, session.facts, slots, find=may_find)
    else:
        session.view.phase(f"repeating the journal of {session.name}")
        memory = memory_of(journal.events, find)
        space, begun_slots = recorded.begun
        conductor = Conductor(space, session.facts, begun_slots, memory, may_find)
        repeat(conductor, journal.events, session.name)
        if changed := environment_changes(recorded.session["environment"], environment):
            session.view.phase(
                f"the trials under way go on with {changed}: their last bits may differ"
            )
        if session.space != conductor.space or slots != recorded.session["slots"]:
            conductor.edit(session.space, slots)
    if recorded is not None and session.space != recorded.space:
        journal.append(search_event(session.space, session.space_text, session.facts))
    journal.append(session_event(environment, slots, in_order=in_order))
    return conductor


# Ray ---------------------------------------------------------------------------------------


def _where(session: Session) -> tuple[Devices, bool]:
    """The devices, and whether reports are taken by the clocks of the slots."""
    from tuner.local_ray import devices

    on, order = devices(session.space), session.space.search.order
    last = session.recorded.session if session.recorded else None
    if last is None:
        return on, order == "tokens" or (order == "auto" and on.number == 1)
    # as many slots as the search has, on however many devices there are now
    slots = math.ceil(last["slots"] / on.number)
    if not on.is_open:
        slots = max(on.slots, slots)
    before = last["environment"]
    if on.dtype == "auto" and before["device"].startswith(on.kind):
        on = replace(on, dtype=before["dtype"])  # as its trials so far, whatever auto means now
    return replace(on, slots=slots, is_open=False), last["in_order"]


def _calibrated(on: Devices, session: Session) -> Devices:
    """The devices with as many slots as they gain from, for trials like the first."""
    from tuner.local_ray import calibrated

    session.view.phase("measuring how many trials the GPU should train at one time")
    space = session.space
    spec = space.spec(space.defaults(), session.facts, space.search.seed)
    most = math.ceil(space.search.trials / on.number)
    return calibrated(on, session.corpus, spec, most, session.home.calibration)


def _studies(session: Session) -> StudyStore | None:
    url = study_url(session.home.root)
    return StudyStore(url, session.name, session.space.objectives) if url else None


def _train(
    session: Session, check_interrupt: Callable[[], None]
) -> tuple[Driver, dict[str, float]]:
    """Train all trials; the workers' busy seconds, their number, and when the first one began."""
    from tuner.local_ray import SLOT, start_workers, usage_of

    with session.ray:
        check_interrupt()
        folders = str(session.folder / "checkpoints"), str(session.home.starts)
        on, in_order = _where(session)
        if on.is_open:
            on = _calibrated(on, session)
        workers = start_workers(on, session.corpus, folders, gated=True)
        _keep_inputs(session)  # while the workers start

        import ray

        from tuner.health import Watchdog
        from tuner.vitals import Rounds

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
            rounds=Rounds(workers.handles),
        )
        session.view.begin(conductor.board, session.name)
        driver.begin()
        from ray import tune  # takes a second, while trials train already

        from tuner.searcher import Events, Jobs, Verdicts
        from tuner.trial import Trial

        trainable = tune.with_resources(
            tune.with_parameters(Trial, workers=workers.handles), {"cpu": 0, SLOT: 1}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Jobs(driver),
                scheduler=Verdicts(driver),
                num_samples=-1,  # until there are no more jobs
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(session.folder),
                callbacks=[Events(driver)],
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
