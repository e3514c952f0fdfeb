"""Begin a search, or go on with one: its inputs are found, checked and kept."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from tuner.driver.context import SearchContext
from tuner.driver.interrupt import deferred_interrupts
from tuner.driver.session import run_search
from tuner.driver.view import SilentView, View
from tuner.errors import TunerError
from tuner.home import Home
from tuner.journal.edit import check_edit
from tuner.journal.events import SearchBegun
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch
from tuner.results.result import SearchResult
from tuner.space.conflicts import conflicts
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.tags import Tag
from tuner.tracking.tracker import Tracker
from tuner.trained.warm_start import warm_started

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart


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
    space_text = space_text or space.model_dump_json(indent=2)
    space, start = warm_started(space, home)
    corpus = _prepared(space, home, view)
    facts = _facts(space, corpus, start)
    with deferred_interrupts() as check_interrupt, contextlib.ExitStack() as ray:
        record = _started(ray, corpus, home, view)
        name, journal = _claim_name(record, space, name, home)
        with contextlib.closing(journal):
            try:
                if start is not None:
                    start.keep(home)
                journal.append(SearchBegun(space, space_text, facts))
                tracker = _open_tracker(space, facts, name, home, start)
            except BaseException:
                shutil.rmtree(home.search(name))  # the name is free again
                raise
            session = SearchContext(
                name, space, space_text, home, view, corpus, facts, record, journal, tracker,
                None, fresh, ray,
            )  # fmt: skip
            return run_search(session, check_interrupt, started)


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
    with deferred_interrupts() as check_interrupt, contextlib.ExitStack() as ray:
        with contextlib.closing(Journal.open(home.search(name))) as journal:
            recorded = JournaledSearch.of_name(journal.events, name)
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
            record = _started(ray, corpus, home, view)
            tracker = _open_tracker(space, facts, name, home, None, resume=True)
            text = space_text or recorded.space_text
            session = SearchContext(
                name, space, text, home, view, corpus, facts, record, journal, tracker, recorded,
                fresh, ray,
            )  # fmt: skip
            return run_search(session, check_interrupt, started)


def _prepared(space: SearchSpace, home: Home, view: View) -> Corpus:
    with view.progress() as on_progress:
        return prepare(space.data, space.tokenizer, home.corpora, on_progress=on_progress)


def _started(stack: contextlib.ExitStack, corpus: Corpus, home: Home, view: View) -> Record:
    """Start Ray, until the stack is closed, and open the store meanwhile: each takes seconds."""
    from tuner.workers.cluster import local_ray

    view.phase("starting Ray and the workers")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Record, home.tracking_uri)
        stack.enter_context(local_ray(corpus.nbytes))
        return opening.result()


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
    space: SearchSpace,
    facts: DataFacts,
    name: str,
    home: Home,
    start: WarmStart | None,
    *,
    resume: bool = False,
) -> Tracker:
    tags = {
        Tag.SAMPLER: space.search.sampler,
        Tag.SCHEDULER: space.search.scheduler,
        "seed": str(space.search.seed),
        Tag.METRIC: space.objective.metric,
        **({Tag.INIT_FROM: start.description} if start else {}),
    }
    inputs = dataset_inputs(space.data, facts)
    return Tracker(
        RunSettings(home.tracking_uri, home.artifacts, space.name, name, tags, resume, inputs)
    )


def _facts(space: SearchSpace, corpus: Corpus, start: WarmStart | None) -> DataFacts:
    """What specifications need, once every shape and every rule is known to fit it."""
    facts = DataFacts.of(corpus)
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
