"""One search: data, workers, Ray Tune, record, result."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from model import checkpoint
from model.corpus import Corpus
from model.preparation import prepare
from model.spec import TrialSpec
from tuner.board import Board, TrialRow
from tuner.corpus_facts import CorpusFacts
from tuner.errors import ResultError, StoreError, TunerError
from tuner.home import Home
from tuner.init_from import warm_started
from tuner.interrupt import noted_interrupts
from tuner.live import SilentView, View
from tuner.local_ray import local_ray, start_workers, training_seconds
from tuner.record import BEST_FOLDER, DATA_FILE, SPACE_FILE, START_FOLDER, Record, Tag
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
        trials: all of them, by number.
        best: the best one.
        run_ids: trial number → MLflow run.
        experiment_id: of MLflow.
        wall_seconds: from start to summary.
        training_share: part of the workers' time spent inside training, from 0 to 1.
        interrupted: whether it ended before all trials had.
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
    interrupted: bool
    problem: str | None = None

    @property
    def tokens_spent(self) -> int:
        """Training tokens of all trials."""
        return sum(row.tokens for row in self.trials)

    @property
    def tokens_full(self) -> int:
        """What the trials would have used without early stopping."""
        return sum(row.spec.budget_tokens for row in self.trials)

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
            "wall_seconds": self.wall_seconds,
            "training_share": self.training_share,
        }
        return {name: float(value) for name, value in numbers.items() if value < float("inf")}


def search(
    space: SearchSpace,
    *,
    name: str | None = None,
    home: Home | None = None,
    view: View | None = None,
    space_text: str | None = None,
) -> SearchResult:
    """Run a search and record it.

    Args:
        space: what to search.
        name: of the search, unique in its store; by default the space's name and a number.
        home: where it lives; by default ./runs.
        view: is told what happens.
        space_text: the file that the space came from, to be kept with the search.

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
        with view.progress() as on_progress:
            corpus = prepare(space.data, space.tokenizer, home.corpora, on_progress=on_progress)
        facts = _facts(space, corpus, start)
        record = opening.result()
    with noted_interrupts() as check_interrupt:
        name = _claim_name(record, space, name, home)
        try:
            tracker = _open_tracker(space, name, home, start)
        except BaseException:
            home.search(name).rmdir()  # the name is free again
            raise
        board = Board(space.objective.metric, space.search.trials, space.expected_tokens(facts)[1])
        status, summary, best_run, problem = "failed", {}, None, None
        try:
            _keep_inputs(tracker, space, space_text, home, corpus, start)
            usage = _run(space, name, home, view, corpus, facts, board, tracker, check_interrupt)
            problem = _problem(tracker.flush)
            result = _result(board, tracker, name, started, usage)
            status = "interrupted" if result.interrupted else "finished"
            summary, best_run = result.summary(), result.run_ids.get(result.best.number)
            view.phase("recording the best trial")
            problem = problem or _problem(lambda: _keep_checkpoint(tracker, result.best))
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            with noted_interrupts():  # an impatient second one must not cut the record short
                problem = problem or _problem(lambda: tracker.finish(status, summary, best_run))
            if problem is None:
                shutil.rmtree(home.search(name), ignore_errors=True)
    return replace(result, problem=problem)


def _claim_name(record: Record, space: SearchSpace, name: str | None, home: Home) -> str:
    """A name that no recorded search has, and no running one: its folder is the claim."""
    taken = {search.name for search in record.searches()}
    if name in taken:
        raise TunerError(f"a search called {name} is recorded already; choose another --name")
    candidates = [name] if name else (f"{space.name}-{i}" for i in itertools.count(1))
    for candidate in candidates:
        if candidate not in taken:
            with contextlib.suppress(FileExistsError):
                home.search(candidate).mkdir(parents=True)
                return candidate
    raise TunerError(f"{home.search(str(name))} is there already; choose another --name")


def _open_tracker(space: SearchSpace, name: str, home: Home, start: Start | None) -> Tracker:
    tags = {
        "sampler": space.search.sampler,
        "scheduler": space.search.scheduler,
        "seed": str(space.search.seed),
        Tag.METRIC: space.objective.metric,
        **({Tag.INIT_FROM: start.words} if start else {}),
    }
    return Tracker(home.tracking_uri, home.artifacts, space.name, name, tags)


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


def _problem(action: Callable[[], None]) -> str | None:
    """Do something with the store; what went wrong, if anything did."""
    try:
        action()
    except StoreError as error:
        return str(error)
    return None


def _keep_checkpoint(tracker: Tracker, best: TrialRow) -> None:
    """Attach the best trial's state, unless it is of a later report than the recorded one.

    A trial trains on past its report, so that an interrupted search may hold a newer state.
    """
    path = best.reports[-1].checkpoint
    if path and checkpoint.read(Path(path))[1]["step"] == best.reports[-1].step:
        tracker.add_artifact(Path(path), BEST_FOLDER)


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


def _result(
    board: Board, tracker: Tracker, name: str, started: float, usage: dict[str, float]
) -> SearchResult:
    best = board.best
    outcomes = sorted({str(row.outcome) for row in board.rows.values()})
    interrupted = "interrupted" in outcomes or len(board.ended) < board.num_trials
    if best is None and interrupted:
        raise KeyboardInterrupt
    if best is None:
        raise ResultError(
            f"no trial of {name} has a result: {', '.join(outcomes)}; if they diverged, lower the "
            f"learning rates; 'tuner show --search {name}' shows them"
        )
    wall = time.monotonic() - started
    run_ids = {n: r for n in board.rows if (r := tracker.run_of(n)) is not None}
    return SearchResult(
        name=name,
        metric=board.metric,
        trials=[board.rows[n] for n in sorted(board.rows)],
        best=best,
        run_ids=run_ids,
        experiment_id=tracker.experiment_id,
        wall_seconds=wall,
        training_share=usage["training_seconds"] / (usage["workers"] * wall),
        interrupted=interrupted,
    )


# Ray ---------------------------------------------------------------------------------------


def _run(
    space: SearchSpace,
    name: str,
    home: Home,
    view: View,
    corpus: Corpus,
    facts: CorpusFacts,
    board: Board,
    tracker: Tracker,
    check_interrupt: Callable[[], None],
) -> dict[str, float]:
    """Train all trials; the workers' busy seconds and how many workers there were."""
    view.phase("starting Ray and the workers")
    with local_ray(corpus.nbytes):
        check_interrupt()
        import ray
        from ray import tune

        from tuner.callbacks import Events
        from tuner.searcher import Asha, OptunaSearcher
        from tuner.trial import SLOT, Trial

        folders = str(home.search(name) / "checkpoints"), str(home.starts)
        workers, slots = start_workers(space, corpus, folders)
        environments: list[dict[str, str]] = ray.get([w.environment.remote() for w in workers])

        def on_suggest(number: int, spec: TrialSpec) -> None:
            board.add(number, spec)
            tracker.start_trial(number, spec, environments[0])

        events = Events(board, tracker, view, workers, check_interrupt)
        trainable = tune.with_resources(
            tune.with_parameters(Trial, workers=workers), {"cpu": 0, SLOT: 1}
        )
        scheduler = None
        if space.search.scheduler == "asha":
            scheduler = Asha(
                time_attr="tokens",
                metric=space.objective.metric,
                mode=space.objective.mode,
                grace_period=space.report_tokens(facts),
                max_t=space.budget_tokens(facts),
                reduction_factor=space.search.reduction_factor,
            )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearcher(space, facts, on_suggest),
                scheduler=scheduler,
                num_samples=space.search.trials,
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(home.search(name)),
                callbacks=[events],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        view.begin(board, name)
        try:
            tuner.fit()
        except KeyboardInterrupt:
            pass  # the board knows what has not ended
        finally:
            view.end()
            events.close()
        seconds = sum(training_seconds(worker) for worker in workers)
    return {"training_seconds": seconds, "workers": float(len(workers))}
