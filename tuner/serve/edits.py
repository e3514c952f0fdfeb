"""Edits of searches that have begun, as users of the server send them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import TunerError
from tuner.jobs.edit import EditRequest
from tuner.journal.edit import kept_overrides, needs_new_session
from tuner.journal.edit_request import edit_requests
from tuner.lease.folder import is_running
from tuner.serve.access import Refused
from tuner.serve.searches import HomeSearches
from tuner.serve.spaces import Allowed, MayRead, sent_space
from tuner.space.space import SearchSpace
from tuner.trained.moved_data import as_recorded

_PATIENCE_SECONDS = 3.0  # in which a driver that trains takes an edit: it looks once a second


@dataclass(frozen=True)
class Recorded:
    """The space of a search that has begun, and its text with the options of its drivers."""

    space: SearchSpace
    text: str


def recorded_of(searches: HomeSearches, name: str) -> Recorded | None:
    """Return what a search was last told to search; None if it has not begun."""
    return searches.read(name, lambda search: Recorded(search.space, search.space_text))


def request_of(
    searches: HomeSearches, name: str, recorded: Recorded, data: bytes, base: Path,
    allowed: Allowed, may_read: MayRead,
) -> tuple[EditRequest, bool]:  # fmt: skip
    """Ask the driver of a search, or its next one, to go on with the space that a user sent.

    How many workers it has is decided by the queue, and not by the edit. While nothing runs the
    search, a later edit replaces one that waits.

    Returns:
        The request, and True if only a driver that starts can take it.

    Raises:
        SpaceError: with every mistake of the space.
        Refused: if it differs from the search in more than is allowed.
    """
    space, text = sent_space(
        data, base, allowed, may_read,
        lambda file: kept_overrides(file, recorded.text, recorded.space, ()),
    )  # fmt: skip
    engine = space.engine.model_copy(update={"workers": recorded.space.engine.workers})
    space = as_recorded(space.model_copy(update={"engine": engine}), recorded.space, searches.home)
    folder = searches.home.search(name)
    waiting = [] if is_running(folder) else edit_requests(folder)
    try:
        request = EditRequest(name, searches.home, space, text)
    except TunerError as error:
        raise Refused(409, str(error)) from error
    for path in waiting:
        path.unlink(missing_ok=True)
    return request, needs_new_session(recorded.space, space)


def wait_for(request: EditRequest) -> None:
    """Wait a moment until a driver that trains has taken an edit; one that starts takes it later.

    Raises:
        Refused: if the driver has refused it.
    """
    try:
        request.wait(_PATIENCE_SECONDS)
    except TunerError as error:
        raise Refused(409, str(error)) from error
