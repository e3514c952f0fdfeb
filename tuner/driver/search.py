"""Begins or resumes a search: claims its name, takes the steps of the start, runs the session."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from tuner.driver.early_checks import check_home
from tuner.driver.interrupt import announcing, deferred_interrupts, naming
from tuner.driver.session import run_session
from tuner.driver.start import (
    STEPS,
    OnResult,
    SearchRequest,
    Start,
    edited_space,
    say_waiting,
)
from tuner.driver.steps import take_steps
from tuner.driver.view import View
from tuner.errors import JournalError, StorageError, TunerError
from tuner.home.home import Home
from tuner.home.names import check_name, check_new_name
from tuner.journal.edit import changes
from tuner.journal.edit_request import EditRequests, edit_requests
from tuner.journal.fold import Search
from tuner.journal.journal import Journal, JournalTail, read_journal, read_search
from tuner.lease.lease import Wait
from tuner.notify.projection import notified
from tuner.notify.receivers import receivers_of
from tuner.results.result import SearchResult
from tuner.space.space import SearchSpace
from tuner.storage.mirror import restore
from tuner.storage.storage import Storage
from tuner.tracking.record import recorded_names
from tuner.trained.load_search import load_search


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
            the home has a search of this name, it is resumed with this space.
        home: home of the search; by default ./runs.
        view: view of the progress; by default nothing is shown.
        space_text: text of the file of the space, to be kept with the search.
        fresh: True to train trials again that another search has finished already.
        debug: True to keep the folder of Ray's session, with its logs.
        address: address of a Ray cluster, HOST:PORT or auto, or local; by default RAY_ADDRESS or
            this machine alone.
        notify: URLs of webhooks, or of Apprise, that hear of the search, besides those of the
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
    if name is not None:
        check_new_name(name)
    request = _request(
        lambda recorded: space, home=home, view=view, space_text=space_text, fresh=fresh,
        debug=debug, address=address, notify=notify, on_result=on_result,
    )  # fmt: skip
    recorded = None
    if name is not None:
        restore(space.engine.storage, request.home, name, request.view.phase)
        recorded = read_search(request.home.search(name))
    return _run(name, space.name, request, space.engine.storage, recorded)


def resume(
    name: str,
    *,
    edit: Callable[[SearchSpace], SearchSpace] | None = None,
    **options: Any,
) -> SearchResult:
    """Resume a search that was interrupted or killed, or shall have more trials.

    The result of a search that has finished, and is not edited, is returned at once.

    Args:
        name: name of the search.
        edit: function from the recorded space to the space of this session; by default the
            recorded space is used.
        options: further arguments of `search`.

    Returns:
        The trials and the best one.

    Raises:
        TunerError: if there is no such search, another process runs it, the edit is not allowed,
            the data have changed, or the space does not fit the data or this machine.
        CorpusError, StoreError, ResultError, Interrupted: as for `search`.
    """
    check_name(name)

    def edited(recorded: SearchSpace | None) -> SearchSpace:
        assert recorded is not None
        return edit(recorded) if edit else recorded

    request = _request(edited, **options)
    home = request.home
    if not home.search(name).is_dir():
        raise TunerError(f"there is no search {name} in {home.root}; 'tuner list' shows them")
    recorded = Search.of_name(read_journal(home.search(name)), name)
    return _run(name, name, request, None, recorded)


def _request(edit: Callable[[SearchSpace | None], SearchSpace], **options: Any) -> SearchRequest:
    """Return a request; options that are None keep their defaults."""
    given = {key: value for key, value in options.items() if value is not None}
    return SearchRequest(edit=edit, **given)


def _run(
    name: str | None, stem: str, request: SearchRequest, url: str | None, recorded: Search | None
) -> SearchResult:
    """Run one session of a search.

    Args:
        name: name of the search; None for a new name.
        stem: begin of a new name.
        request: what the caller asks for.
        url: storage of a new search; None without one.
        recorded: the search by its journal, before it is claimed; None if it has not begun.
    """
    if name is not None and recorded is not None and _has_finished(recorded, name, request):
        return _finished(name, request)
    check_home(request.home)
    with deferred_interrupts(announcing(request.view)) as interrupts, ExitStack() as ray:
        waiting = say_waiting(request.view, interrupts)
        if name is not None and recorded is not None:
            journal = Journal.open(request.home.search(name), waiting)
        else:
            journal = _claim(name, stem, request.home, url, waiting)
        start: Start | None = None
        is_new = not journal.entries

        def is_recorded() -> bool:
            return not is_new or (start is not None and start.is_recorded)

        with ExitStack() as ends:
            ends.callback(_close, journal, is_recorded)
            ends.enter_context(naming(journal.path.parent.name, is_recorded))
            _take_edits(journal, request.view)
            start = Start(request, journal, interrupts, ends, ray)
            take_steps(STEPS, start)
            with notified(start.folder, start.receivers, journal.feed, request.view.phase):
                result = run_session(start)
            try:
                journal.close()
            except JournalError as error:  # everything is trained, and the result is known
                return replace(result, lost=str(error))
            return result


def _take_edits(journal: Journal, view: View) -> None:
    """Write the edits to the journal that another process has asked for since the last session."""
    folder = journal.path.parent
    recorded = Search.of(journal.events) if edit_requests(folder) else None
    if recorded is not None:
        for edit in EditRequests(folder, view.phase).take(recorded.space, is_live=False):
            journal.append(edit)
            if journal.problem:
                return


def _has_finished(search: Search, name: str, request: SearchRequest) -> bool:
    """Return True if a search has finished, and the request does not edit it."""
    if search.end is None or search.end.status != "finished":
        return False
    if edit_requests(request.home.search(name)):
        return False
    return not changes(search.space, edited_space(search, name, request))


def _finished(name: str, request: SearchRequest) -> SearchResult:
    """Return the result of a search that has finished; nothing is left to train."""
    from tuner.driver.sync import sync

    home, view = request.home, request.view
    view.phase(f"{name} has finished already: nothing is left to train")
    # its driver may have been killed before everything was sent, also to the receivers of messages
    try:
        sync(home, name)
    except StorageError as error:
        view.phase(f"{error}; 'tuner sync {name}' sends the journal there")
    folder, receivers = home.search(name), receivers_of(request.notify)
    with notified(folder, receivers, lambda: JournalTail(folder), view.phase):
        pass
    result = load_search(name, home=home)
    request.on_result(result)
    return result


def _claim(name: str | None, stem: str, home: Home, url: str | None, on_wait: Wait) -> Journal:
    """Claim a search that has not begun: open its journal.

    Creating its folder claims a new name, which is free in the home, the store and the storage. The
    journal claims a name that the user chose: its folder may exist, of a driver that was killed.

    Raises:
        TunerError: if the store has a search of this name, whose journal is in another home.
    """
    used = recorded_names(home.tracking_uri)
    if name in used:
        raise TunerError(
            f"a search called {name} is recorded already, and its journal is in another home; "
            f"choose another --name, or name that home with --home to go on with it"
        )
    if name is not None:
        return Journal.open(home.search(name), on_wait)
    if url is not None:  # of another home
        used |= set(Storage(url).names())
    for candidate in (f"{stem}-{i}" for i in itertools.count(1)):
        if candidate not in used:
            with suppress(FileExistsError):
                home.search(candidate).mkdir(parents=True)
                return Journal.open(home.search(candidate))
    raise AssertionError("names never end")


def _close(journal: Journal, is_recorded: Callable[[], bool]) -> None:
    """Close a journal; free the name of a search that did not begin.

    Another driver may have taken the search over, and then it keeps the name.
    """
    is_ours = journal.may_write()
    try:
        journal.close()
    finally:
        if is_ours and not is_recorded():
            shutil.rmtree(journal.path.parent, ignore_errors=True)
