"""One search: data, workers, Ray Tune, record, result."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from model import checkpoint
from model.corpus import Corpus
from model.preparation import prepare
from tuner.advice import advise
from tuner.board import TrialRow
from tuner.conductor import Conductor
from tuner.confirmation import Confirmation
from tuner.corpus_facts import CorpusFacts
from tuner.driver import Driver
from tuner.errors import ResultError, StoreError, TunerError
from tuner.home import Home
from tuner.init_from import warm_started
from tuner.interrupt import noted_interrupts
from tuner.journal import Event, Journal
from tuner.live import SilentView, View
from tuner.record import BEST_FOLDER, DATA_FILE, SPACE_FILE, START_FOLDER, Record, Tag
from tuner.resume import Recorded, check_edit, memory_of, repeat, search_event
from tuner.space import SearchSpace
from tuner.space_checks import conflicts
from tuner.tracking import Tracker
from tuner.warm_start import Start


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        name: of the search.
        metric: the objective.
        trials: those of the search, by number; not those that confirm.
        best: the best one; the confirmed winner if there is one.
        run_ids: trial number → MLflow run.
        experiment_id: of MLflow.
        wall_seconds: from start, or from being resumed, to summary.
        training_share: part of the workers' time spent inside training, from 0 to 1.
        confirmation: of the best configurations by fresh seeds.
        confirmation_tokens: that it took.
        limit: which limit ended the search, if one did.
        halted: why it ended before its time; it can be resumed.
        advice: what to do next.
        problem: why the record is not complete, if it is not.
    """

    name: str
    metric: str
    trials: list[TrialRow]
    best: TrialRow
    run_ids: dict[int, str]
    experiment_id: str
    wall_seconds: float
    training_share: float
    confirmation: Confirmation | None = None
    confirmation_tokens: int = 0
    limit: str | None = None
    halted: str | None = None
    advice: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def tokens_spent(self) -> int:
        """Training tokens of all trials."""
        return sum(row.tokens_trained for row in self.trials)

    @property
    def tokens_full(self) -> int:
        """What the trials would have used without early stopping."""
        return sum(
            row.spec.budget_tokens - row.tokens_before for row in self.trials if not row.recorded
        )

    def summary(self) -> dict[str, float]:
        """The numbers that MLflow gets on the parent run."""
        best, defaults = self.best, self.trials[0]
        numbers = {
            f"best_{self.metric}": best.objective(self.metric),
            f"defaults_{self.metric}": defaults.objective(self.metric),
            "trials": len(self.trials),
            "diverged": sum(row.has_diverged for row in self.trials),
            "tokens_spent": self.tokens_spent,
            "tokens_spared": self.tokens_full - self.tokens_spent,
            "confirmation_tokens": self.confirmation_tokens,
            "wall_seconds": self.wall_seconds,
            "training_share": self.training_share,
        }
        if self.confirmation is not None:
            numbers[f"confirmed_{self.metric}"] = self.confirmation.ranked[0].mean
        return {name: float(value) for name, value in numbers.items() if value < float("inf")}


@dataclass(frozen=True)
class _Search:
    """All that a driver needs to begin, or to go on."""

    name: str
    space: SearchSpace
    space_text: str | None
    home: Home
    view: View
    corpus: Corpus
    facts: CorpusFacts
    record: Record
    journal: Journal
    tracker: Tracker
    recorded: Recorded | None  # None: it begins
    fresh: bool

    @property
    def folder(self) -> Path:
        return self.home.search(self.name)


def search(
    space: SearchSpace,
    *,
    name: str | None = None,
    home: Home | None = None,
    view: View | None = None,
    space_text: str | None = None,
    fresh: bool = False,
) -> SearchResult:
    """Run a search and record it.

    Args:
        space: what to search.
        name: of the search, unique in its store; by default the space's name and a number.
        home: where it lives; by default ./runs.
        view: is told what happens.
        space_text: the file that the space came from, to be kept with the search.
        fresh: train what an equal trial of another search has trained already.

    Returns:
        The trials and the best of them.

    Raises:
        TunerError: if the space does not fit the data or this machine, or the name is taken.
        CorpusError: if the data cannot be used.
        StoreError: if the tracking store cannot be used; once trials have run, a store that fails
            is reported in the result's `problem` instead.
        ResultError: if no trial reached a report.
    """
    started = time.monotonic()
    home, view = home or Home.at(), view or SilentView()
    with ThreadPoolExecutor(1) as pool:  # MLflow takes seconds to import; read text meanwhile
        opening = pool.submit(Record, home.tracking_uri)
        space, start = warm_started(space, home)
        corpus = _prepared(space, home, view)
        facts = _facts(space, corpus, start)
        record = opening.result()
    with noted_interrupts() as check_interrupt:
        name, journal = _claim_name(record, space, name, home)
        with contextlib.closing(journal):
            try:
                tracker = _open_tracker(space, name, home, start)
            except BaseException:
                shutil.rmtree(home.search(name))  # the name is free again
                raise
            what = _Search(
                name, space, space_text, home, view, corpus, facts, record, journal, tracker,
                None, fresh,
            )  # fmt: skip

            def keep_inputs() -> None:
                _keep_inputs(tracker, space, space_text, home, corpus, start)

            return _conduct(what, keep_inputs, check_interrupt, started)


def resume(
    name: str,
    *,
    edit: Callable[[SearchSpace], SearchSpace] | None = None,
    home: Home | None = None,
    view: View | None = None,
    space_text: str | None = None,
    fresh: bool = False,
) -> SearchResult:
    """Go on with a search that was interrupted, killed, or is to have more trials.

    Args:
        name: of the search.
        edit: makes the space to go on with from the recorded one; by default it stays.
        home: where it lives; by default ./runs.
        view: is told what happens.
        space_text: the file that the edited space came from.
        fresh: as for `search`.

    Returns:
        As `search`.

    Raises:
        TunerError: if there is no such search, another process runs it, the edit is not allowed,
            or the data are no longer the same; and as `search`.
    """
    started = time.monotonic()
    home, view = home or Home.at(), view or SilentView()
    if not home.search(name).is_dir():
        raise TunerError(f"there is no search {name} in {home.root}; 'tuner list' shows them")
    with noted_interrupts() as check_interrupt:
        with contextlib.closing(Journal.open(home.search(name))) as journal:
            recorded = Recorded.of(journal.events, name)
            space = edit(recorded.space) if edit else recorded.space
            if space.init_from is not None and space.init_from == recorded.space.init_from:
                # what it starts from is in the journal, and gave its tokenizer then
                space = space.model_copy(update={"tokenizer": recorded.space.tokenizer})
            check_edit(recorded.space, space, name)
            corpus = _prepared(space, home, view)
            facts = recorded.facts
            fingerprints = corpus.data_fingerprint, corpus.tokenizer_fingerprint
            if fingerprints != (facts.data_fingerprint, facts.tokenizer_fingerprint):
                raise TunerError(
                    f"the data of {name} changed since it began; bring them back to resume it, or "
                    f"start a new search"
                )
            record = Record(home.tracking_uri)
            tracker = _open_tracker(space, name, home, None, resume=True)
            text = space_text or recorded.space_text
            what = _Search(
                name, space, text, home, view, corpus, facts, record, journal, tracker, recorded,
                fresh,
            )  # fmt: skip
            return _conduct(
                what, lambda: tracker.add_text(text, SPACE_FILE), check_interrupt, started
            )


def _prepared(space: SearchSpace, home: Home, view: View) -> Corpus:
    with view.progress() as on_progress:
        return prepare(space.data, space.tokenizer, home.corpora, on_progress=on_progress)


def _claim_name(
    record: Record, space: SearchSpace, name: str | None, home: Home
) -> tuple[str, Journal]:
    """A name that no recorded search has, and no other one: its folder is the claim."""
    taken = {search.name for search in record.searches()}
    if name in taken:
        raise TunerError(
            f"a search called {name} is recorded already; choose another --name, or go on with it "
            f"by --resume {name}"
        )
    candidates = [name] if name else (f"{space.name}-{i}" for i in itertools.count(1))
    for candidate in candidates:
        if candidate not in taken:
            with contextlib.suppress(FileExistsError):
                home.search(candidate).mkdir(parents=True)
                return candidate, Journal.open(home.search(candidate))
    raise TunerError(f"{home.search(str(name))} is there already; choose another --name")


def _open_tracker(
    space: SearchSpace, name: str, home: Home, start: Start | None, *, resume: bool = False
) -> Tracker:
    tags = {
        "sampler": space.search.sampler,
        "scheduler": space.search.scheduler,
        "seed": str(space.search.seed),
        Tag.METRIC: space.objective.metric,
        **({Tag.INIT_FROM: start.words} if start else {}),
    }
    return Tracker(home.tracking_uri, home.artifacts, space.name, name, tags, resume=resume)


def _keep_inputs(
    tracker: Tracker,
    space: SearchSpace,
    space_text: str | None,
    home: Home,
    corpus: Corpus,
    start: Start | None,
) -> None:
    """Attach what a replay, or another search, will need."""
    tracker.add_text(space_text or space.model_dump_json(indent=2), SPACE_FILE)
    tracker.add_text(json.dumps(corpus.files, indent=1), DATA_FILE)
    with TemporaryDirectory() as folder:
        (tokenizer,) = corpus.tokenizer.save(folder, "huggingface")
        tracker.add_artifact(tokenizer)
    if start is not None:
        tracker.add_artifact(start.keep(home), START_FOLDER)


def _facts(space: SearchSpace, corpus: Corpus, start: Start | None) -> CorpusFacts:
    """What specifications need, once every shape and every rule is known to fit it."""
    facts = CorpusFacts.of(corpus)
    if start is not None:
        start.check_tokenizer(corpus.tokenizer_fingerprint)
        facts = replace(facts, init_from=start.init_from)
    try:
        for shape in space.shapes(facts.vocab_size):
            facts.sequences(shape.context_length)
    except ValueError as error:
        raise TunerError(f"the space {space.name} does not fit its data: {error}") from error
    # what a file can be told before its tokens are counted has been told; this is the rest
    for _, message in conflicts(space, facts.train_size):
        raise TunerError(f"the space {space.name} does not fit its data: {message}")
    return facts


# conducting --------------------------------------------------------------------------------


def _conduct(
    what: _Search,
    keep_inputs: Callable[[], None],
    check_interrupt: Callable[[], None],
    started: float,
) -> SearchResult:
    """Train, record, sum up; what can go wrong with the store at the end is no reason to fail."""
    tracker, journal = what.tracker, what.journal
    status, best, problem = "failed", None, None
    summary: dict[str, float] = {}
    try:
        keep_inputs()
        driver, usage = _train(what, check_interrupt)
        problem = _problem(tracker.flush)
        result = _result(what, driver, started, usage)
        status = "interrupted" if result.halted else "finished"
        summary, best = result.summary(), result.best
        what.view.phase("recording the best trial")
        problem = problem or _problem(lambda: _keep_checkpoint(tracker, result.best))
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        with noted_interrupts():  # an impatient second one must not cut the record short
            number = None if best is None else best.number
            end: Event = {"event": "end", "status": status, "summary": summary, "best": number}
            journal.append(end)
            best_run = None if number is None else tracker.run_of(number)
            problem = problem or _problem(lambda: tracker.finish(status, summary, best_run))
        shutil.rmtree(what.folder / "tune", ignore_errors=True)
        if problem is None and status == "finished":
            shutil.rmtree(what.folder / "checkpoints", ignore_errors=True)
    return replace(result, problem=problem)


def _problem(action: Callable[[], None]) -> str | None:
    """Do something with the store; what went wrong, if anything did."""
    try:
        action()
    except StoreError as error:
        return str(error)
    return None


def _keep_checkpoint(tracker: Tracker, best: TrialRow) -> None:
    """Attach the best trial's state, if this search has trained it."""
    path = best.reports[-1].checkpoint
    if path and Path(path).is_file():
        tracker.add_artifact(Path(path), BEST_FOLDER)


def _result(what: _Search, driver: Driver, started: float, usage: dict[str, float]) -> SearchResult:
    board, conductor = driver.conductor.board, driver.conductor
    best, trials = board.best, board.searched
    if best is None and driver.halted:
        raise KeyboardInterrupt
    if best is None:
        outcomes = ", ".join(sorted({str(row.outcome) for row in trials}))
        raise ResultError(
            f"no trial of {what.name} has a result: {outcomes}; if they diverged, lower the "
            f"learning rates; 'tuner show --search {what.name}' shows them"
        )
    wall = time.monotonic() - started
    run_ids = {n: r for n in board.rows if (r := what.tracker.run_of(n)) is not None}
    spent = sum(row.tokens_trained for row in board.rows.values() if row.confirms is not None)
    unlike = [row for row in trials if not (row.outcome or "").startswith("same as")]
    return SearchResult(
        name=what.name,
        metric=board.metric,
        trials=trials,
        best=best,
        run_ids=run_ids,
        experiment_id=what.tracker.experiment_id,
        wall_seconds=wall,
        training_share=usage["training_seconds"] / (usage["workers"] * wall),
        confirmation=conductor.confirmation,
        confirmation_tokens=spent,
        limit=conductor.limit,
        halted=driver.halted,
        advice=[] if driver.halted else advise(conductor.space, unlike, what.name),
    )


def _conductor(
    what: _Search, slots: int, environment: Mapping[str, str], *, in_order: bool
) -> Conductor:
    """A new one; or one that is where the journal of the search ends."""
    journal, recorded = what.journal, what.recorded
    find = Finished(what.record, environment)
    if recorded is None:
        conductor = Conductor(what.space, what.facts, slots, find=None if what.fresh else find)
        is_edited = True
    else:
        what.view.phase(f"repeating the journal of {what.name}")
        space, begun_slots = recorded.begun
        memory = memory_of(journal.events, find)
        conductor = Conductor(space, what.facts, begun_slots, memory, None if what.fresh else find)
        repeat(conductor, journal.events, what.name)
        if changed := environment_changes(recorded.environment, environment):
            what.view.phase(
                f"the trials under way go on with {changed}: their last bits may differ"
            )
        is_edited = what.space != recorded.space or slots > recorded.slots
        if is_edited:
            conductor.edit(what.space, slots)
    if is_edited:
        event = search_event(what.space, what.space_text, what.facts, slots, in_order=in_order)
        journal.append(event)
    journal.append({"event": "session", "environment": dict(environment)})
    return conductor


# Ray ---------------------------------------------------------------------------------------


def _train(what: _Search, check_interrupt: Callable[[], None]) -> tuple[Driver, dict[str, float]]:
    """Train all trials; the workers' busy seconds and how many workers there were."""
    from tuner.local_ray import local_ray, start_workers, training_seconds

    what.view.phase("starting Ray and the workers")
    with local_ray(what.corpus.nbytes):
        check_interrupt()
        import ray
        from ray import tune

        from tuner.health import Health
        from tuner.searcher import Events, Jobs, Verdicts
        from tuner.trial import SLOT, Trial

        folders = str(what.folder / "checkpoints"), str(what.home.starts)
        workers, slots, in_order = start_workers(what.space, what.corpus, folders, _slots(what))
        environment: dict[str, str] = ray.get(workers[0].environment.remote())
        conductor = _conductor(what, slots, environment, in_order=in_order)
        driver = Driver(
            conductor,
            what.journal,
            what.tracker,
            what.view,
            workers,
            environment,
            in_order=in_order,
            check_interrupt=check_interrupt,
            watchdog=Health(workers, what.space.engine.timeout_seconds),
        )
        what.view.begin(conductor.board, what.name)
        driver.begin()
        trainable = tune.with_resources(
            tune.with_parameters(Trial, workers=workers), {"cpu": 0, SLOT: 1}
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
                storage_path=str(what.folder),
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
            what.view.end()
            driver.close()
        seconds = sum(training_seconds(worker) for worker in workers)
    return driver, {"training_seconds": seconds, "workers": float(len(workers))}
