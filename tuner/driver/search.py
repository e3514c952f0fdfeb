"""Begins or resumes a search: prepares, checks and keeps its inputs."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from tuner.driver.catch_up import check_recorded
from tuner.driver.context import SearchContext, open_tracker
from tuner.driver.early_checks import check_early, check_facts, name_taken
from tuner.driver.interrupt import Interrupts, announcing, deferred_interrupts, naming
from tuner.driver.session import OnResult, run_search
from tuner.driver.team import Team, start_ray, start_team
from tuner.driver.view import SilentView, View
from tuner.errors import JournalError, JournalInUse, TunerError
from tuner.formatting import listed
from tuner.home import Home
from tuner.journal.edit import changes, check_edit
from tuner.journal.events import SearchBegun
from tuner.journal.journal import Journal, read_journal
from tuner.journal.journaled_search import JournaledSearch, begun_search
from tuner.lease.holder import Holder
from tuner.names import check_name, check_new_name
from tuner.notify.notifier import notified
from tuner.notify.receivers import Receiver, receivers_of
from tuner.results.result import SearchResult
from tuner.space.remarks import data_notes
from tuner.space.space import SearchSpace
from tuner.storage.mirror import mirroring, restore
from tuner.storage.storage import Storage
from tuner.tracking.record import Record
from tuner.trained.load_search import load_search
from tuner.trained.moved_data import present_space, with_recorded_paths
from tuner.trained.warm_start import warm_started
from tuner.workers.products import begin_measurement
from tuner.workers.ray_session import cluster_address

_WAIT_SECONDS = 0.05  # between two checks for a signal


def search(
    space: SearchSpace,
    *,
    name: str | None = None,
    home: Home | None = None,
    view: View | None = None,
    space_text: str | None = None,
    fresh: bool = False,
    debug: bool = False,
    address: str | None = None,
    notify: Sequence[str] = (),
    on_result: OnResult = lambda result: None,
) -> SearchResult:
    """Run a search and record it; go on with it if one of this name has begun.

    Args:
        space: search space.
        name: name of the search, unique in its store; by default the space's name and a number. If
            the home has a search of this name, it is resumed, or its result returned (`go_on`).
        home: home of the search; by default ./runs.
        view: view of the progress; by default nothing is shown.
        space_text: text of the file of the space, to be kept with the search.
        fresh: True to train trials again that another search has finished already.
        debug: True to keep the folder of Ray's session, with its logs.
        address: address of a Ray cluster, HOST:PORT or auto, or local; by default RAY_ADDRESS or
            this machine alone.
        notify: URLs of webhooks, or of Apprise, that hear how the search ends, besides those of the
            user's file (`notify.receivers`).
        on_result: function to call with the result when the record is complete, before the model is
            registered and the report is written.

    Returns:
        The trials and the best one.

    Raises:
        TunerError: if the space does not fit the data or this machine, the name is taken, or the
            search of this name was begun with a space that may not be edited so.
        CorpusError: if the data cannot be used.
        StoreError: if the tracking store cannot be used; once trials have run, a store that fails
            is reported in the result's `problem` instead.
        ResultError: if no trial reached a report.
        Interrupted: if a signal ended the search before the first report.
    """
    started = time.monotonic()
    if name is not None:
        check_new_name(name)
    home, view = home or Home.at(), view or SilentView()
    if name is not None:
        restore(space.engine.storage, home, name, view.phase)
    if name is not None and begun_search(home.search(name)) is not None:
        return go_on(
            name, edit=lambda recorded: space, home=home, view=view, space_text=space_text,
            fresh=fresh, debug=debug, address=address, notify=notify, on_result=on_result,
        )  # fmt: skip
    receivers = receivers_of(notify)
    space_text = space_text or space.model_dump_json(indent=2)
    address = cluster_address(address)
    early_record = check_early(space, home, name, is_cluster=address is not None)
    space, start = warm_started(space, home)
    corpus = _prepare(space, home, view)
    for note in data_notes(corpus):
        view.phase(note)
    facts = check_facts(space, corpus, start)
    with deferred_interrupts(announcing(view)) as interrupts, contextlib.ExitStack() as ray:
        store = _Store(home, early_record)
        products = begin_measurement(space, facts, home.calibration)
        if products is not None:
            ray.callback(products.end)
        url = space.engine.storage
        session = start_ray(
            ray, address, corpus, home, store.open, view, interrupts, storage=url, debug=debug
        )
        make = partial(
            start_team, space=space, home=home, corpus=corpus, facts=facts, last=None, view=view,
            check_interrupt=interrupts.check, ray=session, products=products,
        )  # fmt: skip
        # a name that is free here may be that of another home's search in the storage
        taken = frozenset(Storage(url).names()) if url and name is None else frozenset[str]()
        name, journal, team = _claim(store, space, name, home, make, interrupts, taken)
        record = store.record
        with contextlib.closing(journal), contextlib.ExitStack() as stack:
            try:
                interrupts.check()  # nothing is recorded yet
                if start is not None:
                    start.keep(home)
                waiting = partial(_wait, view=view, interrupts=interrupts)
                mirror = stack.enter_context(
                    mirroring(url, journal, home, facts, waiting, view.phase)
                )
                journal.append(SearchBegun(space, space_text, facts))
                tracker = open_tracker(space, facts, name, home, journal, start)
            except BaseException:
                stack.close()
                _free(journal)
                raise
            context = SearchContext(
                name, space, space_text, home, view, corpus, facts, record, journal, tracker,
                team, None, fresh, ray, mirror,
            )  # fmt: skip
            return _run(context, receivers, interrupts, started, on_result)


def go_on(
    name: str,
    *,
    edit: Callable[[SearchSpace], SearchSpace],
    home: Home,
    view: View | None = None,
    on_result: OnResult = lambda result: None,
    **options: Any,
) -> SearchResult:
    """Go on with a search that has begun: resume it, or return its result if it has finished.

    Then the store gets what it lacks, and Ray is not started. The arguments are those of `resume`.

    Raises:
        TunerError, CorpusError, StoreError, ResultError, Interrupted: as `resume`.
    """
    view = view or SilentView()
    recorded = JournaledSearch.of_name(read_journal(home.search(name)), name)
    space = _edited(recorded, name, home, edit)
    has_finished = recorded.end is not None and recorded.end.status == "finished"
    if not has_finished or changes(recorded.space, space):
        return resume(name, edit=edit, home=home, view=view, on_result=on_result, **options)
    from tuner.driver.sync import sync

    view.phase(f"{name} has finished already: nothing is left to train")
    # its driver may have been killed before the store had everything, and everybody the news
    sync(home, name)
    with notified(home.search(name), receivers_of(options.get("notify", ())), view.phase):
        pass
    result = load_search(name, home=home)
    on_result(result)
    return result


def resume(
    name: str,
    *,
    edit: Callable[[SearchSpace], SearchSpace] | None = None,
    home: Home | None = None,
    view: View | None = None,
    space_text: str | None = None,
    fresh: bool = False,
    debug: bool = False,
    address: str | None = None,
    notify: Sequence[str] = (),
    on_result: OnResult = lambda result: None,
) -> SearchResult:
    """Resume a search that was interrupted or killed, or shall have more trials.

    Args:
        name: name of the search.
        edit: function from the recorded space to the space of this session; by default the
            recorded space is used.
        home: home of the search; by default ./runs.
        view: view of the progress; by default nothing is shown.
        space_text: text of the file of the edited space.
        fresh: True to train trials again that another search has finished already.
        debug: True to keep the folder of Ray's session, with its logs.
        address: address of a Ray cluster, HOST:PORT or auto, or local; by default RAY_ADDRESS or
            this machine alone.
        notify: as for `search`.
        on_result: function to call with the result when the record is complete, before the model is
            registered and the report is written.

    Returns:
        The trials and the best one.

    Raises:
        TunerError: if there is no such search, another process runs it, the edit is not allowed,
            the data have changed, or the space does not fit the data or this machine.
        CorpusError: if the data cannot be used.
        StoreError: if the tracking store cannot be used; once trials have run, a store that fails
            is reported in the result's `problem` instead.
        ResultError: if no trial reached a report.
        Interrupted: if a signal ended the search before the first report.
    """
    started = time.monotonic()
    check_name(name)
    home, view = home or Home.at(), view or SilentView()
    if not home.search(name).is_dir():
        raise TunerError(f"there is no search {name} in {home.root}; 'tuner list' shows them")
    announce, receivers = announcing(view), receivers_of(notify)
    with naming(name), deferred_interrupts(announce) as interrupts, contextlib.ExitStack() as ray:
        waiting = partial(_wait, view=view, interrupts=interrupts)
        with (
            contextlib.closing(Journal.open(home.search(name), waiting)) as journal,
            contextlib.ExitStack() as stack,
        ):
            recorded = JournaledSearch.of_name(journal.events, name)
            space = _edited(recorded, name, home, edit)
            edits = changes(recorded.space, space)
            edited = f", with another {listed(edits, 'and')}" if edits else ""
            view.phase(f"{name} goes on from its journal{edited}")
            address = cluster_address(address)
            early_record = check_early(space, home, is_cluster=address is not None)
            facts, url = recorded.facts, space.engine.storage
            mirror = stack.enter_context(mirroring(url, journal, home, facts, waiting, view.phase))
            corpus = _prepare(present_space(space, home), home, view)
            fingerprints = corpus.data_fingerprint, corpus.tokenizer_fingerprint
            if fingerprints != (facts.data_fingerprint, facts.tokenizer_fingerprint):
                raise TunerError(
                    f"the data of {name} changed since it began; restore them to resume it, or "
                    f"start a new search"
                )
            store = _Store(home, early_record)
            session = start_ray(
                ray, address, corpus, home, store.open, view, interrupts, storage=url, debug=debug
            )
            team = start_team(
                name, space, home, corpus, facts, recorded.session, view, interrupts.check, session
            )
            record = store.wait(interrupts)
            tracker = open_tracker(space, facts, name, home, journal, None, resume=True)
            try:
                check_recorded(tracker, name, journal.digests)
            except JournalError:
                tracker.close()
                raise
            text = space_text or recorded.space_text
            context = SearchContext(
                name, space, text, home, view, corpus, facts, record, journal, tracker, team,
                recorded, fresh, ray, mirror,
            )  # fmt: skip
            return _run(context, receivers, interrupts, started, on_result)


def _edited(
    recorded: JournaledSearch,
    name: str,
    home: Home,
    edit: Callable[[SearchSpace], SearchSpace] | None,
) -> SearchSpace:
    """Return the space of a session that resumes a search.

    Raises:
        TunerError: if the edit is not allowed.
    """
    space = edit(recorded.space) if edit else recorded.space
    space = with_recorded_paths(space, recorded.space, home)
    if space.init_from is not None and space.init_from == recorded.space.init_from:
        # The recorded space has the tokenizer of its warm start already, and the edited file names
        # only the warm start.
        space = space.model_copy(update={"tokenizer": recorded.space.tokenizer})
    check_edit(recorded.space, space, name)
    return space


def _wait(holder: Holder, view: View, interrupts: Interrupts) -> None:
    view.phase(f"waiting whether {holder.text}, still runs the search")
    interrupts.check()


def _prepare(space: SearchSpace, home: Home, view: View) -> Corpus:
    with view.progress() as on_progress:
        return prepare(space.data, space.tokenizer, home.corpora, on_progress=on_progress)


class _Store:
    """The tracking store, opened by a thread while Ray and the workers start: it takes seconds.

    Call `open` once.

    Args:
        home: home of the search.
        record: the store, if it is open already.
        opened: function that opens a store.
    """

    def __init__(
        self, home: Home, record: Record | None, opened: Callable[[str], Record] = Record
    ) -> None:
        self._open = lambda: record or opened(home.tracking_uri)
        self._opening: Future[Record]

    def open(self) -> None:
        """Begin to open the store."""
        pool = ThreadPoolExecutor(1)
        self._opening = pool.submit(self._open)
        pool.shutdown(wait=False)  # a signal need not wait for it

    @property
    def record(self) -> Record:
        """The store."""
        return self._opening.result()

    def wait(self, interrupts: Interrupts) -> Record:
        """Wait for the store, or for a signal."""
        while not self._opening.done():
            interrupts.check()
            wait([self._opening], timeout=_WAIT_SECONDS)
        return self.record


def _run(
    context: SearchContext, receivers: Sequence[Receiver], interrupts: Interrupts, started: float,
    on_result: OnResult,
) -> SearchResult:  # fmt: skip
    """Run a search whose inputs are complete, and close its journal."""
    with naming(context.name), notified(context.folder, receivers, context.view.phase):
        result = run_search(context, interrupts, started, on_result)
    try:
        context.journal.close()
    except JournalError as error:  # everything is trained, and the result is known
        return replace(result, lost=str(error))
    return result


def _claim(
    store: _Store,
    space: SearchSpace,
    name: str | None,
    home: Home,
    start: Callable[[str], Team],
    interrupts: Interrupts,
    taken: frozenset[str] = frozenset(),
) -> tuple[str, Journal, Team]:
    """Return a free name for the search, its journal, and its workers.

    The workers start with the first name that is free in the home, while the store opens. If the
    store has a search of that name, whose folder was removed or is in another home, they are
    started again with the next name.
    """
    used = taken
    while True:
        claimed, journal = _claim_name(used, space, name, home)
        try:
            team = start(claimed)
            used = taken | {search.name for search in store.wait(interrupts).searches()}
            if claimed not in used:
                return claimed, journal, team
        except BaseException:
            _free(journal)
            raise
        _free(journal)
        team.end()


def _free(journal: Journal) -> None:
    """Free the name of a search that has not begun, unless another driver has taken it over."""
    is_ours = journal.may_write()
    journal.close()
    if is_ours:
        shutil.rmtree(journal.path.parent)


def _claim_name(
    used: Container[str], space: SearchSpace, name: str | None, home: Home
) -> tuple[str, Journal]:
    """Return a name for the search, and its journal.

    The journal claims a name that the user chose: its folder may exist, of a driver that was killed
    before the search began. Creating the folder claims any other name.
    """
    if name in used:
        raise name_taken(str(name))
    if name is not None:
        journal = Journal.open(home.search(name), lambda holder: None)
        if journal.events:  # another driver has begun it in the last seconds
            journal.close()
            raise JournalInUse(f"the search {name} has just begun; repeat the command to resume it")
        return name, journal
    for candidate in (f"{space.name}-{i}" for i in itertools.count(1)):
        if candidate not in used:
            with contextlib.suppress(FileExistsError):
                home.search(candidate).mkdir(parents=True)
                return candidate, Journal.open(home.search(candidate))
    raise AssertionError("names never end")
