"""All searches as they are now, for many pages at one time, and a stream of their changes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from tuner.serve.access import may_read
from tuner.serve.api.stream import ALIVE_SECONDS, Sleep
from tuner.serve.pages.result_views import ChangesView
from tuner.serve.records import QueuedSearch, User
from tuner.serve.service import Service
from tuner.serve.views import ENDED, SearchView

_FRESH_SECONDS = 0.7
_ENDED_SECONDS = 5.0  # between two looks at a search that has ended, of which a home has many
_LONGEST_SECONDS = 600.0  # of a stream: its client comes again, and says who it is


class Overview:
    """The searches of a server, looked at once for all pages that show them.

    Args:
        service: the searches.
        clock: seconds since any moment.
    """

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._clock = service, clock
        self._lock = threading.Lock()
        self._at = -math.inf
        self._views: dict[str, tuple[float, QueuedSearch | None, SearchView]] = {}
        self._owners: dict[str, User] = {}

    def views(self, user: User) -> list[SearchView]:
        """Return the searches that a user may see, the newest first."""
        with self._lock:
            if self._clock() - self._at >= _FRESH_SECONDS:
                self._look()
            views, owners = self._views, self._owners
        return [
            view for _, entry, view in views.values()
            if may_read(user, entry, owners.get(entry.owner) if entry else None)
        ]  # fmt: skip

    def _look(self) -> None:
        service, now = self._service, self._clock()
        everybody = User("", "admin")
        views = {}
        for name, entry in service.names(everybody):
            at, before, view = self._views.get(name, (-math.inf, None, None))
            is_settled = view is not None and view.state in ENDED and before == entry
            if view is None or not is_settled or now - at >= _ENDED_SECONDS:
                at, (view,) = now, service.views([(name, entry)])
            views[name] = at, entry, view
        self._views, self._at = views, now
        self._owners = {each.name: each for each in service.database.users()}


async def changes(look: Callable[[], Sequence[SearchView]], sleep: Sleep) -> AsyncIterator[str]:
    """Yield the searches that have changed, all of them first.

    Args:
        look: function that returns all searches, the newest first.
        sleep: function that waits some seconds.
    """
    seen: dict[str, SearchView] = {}
    silent = lasted = 0.0
    yield "retry: 2000\n\n"
    while lasted < _LONGEST_SECONDS:
        now = {view.name: view for view in await run_in_threadpool(look)}
        changed = [view for name, view in now.items() if seen.get(name) != view]
        gone = [name for name in seen if name not in now]
        silent = 0.0 if changed or gone or not lasted else silent + _FRESH_SECONDS
        if changed or gone or not lasted:
            view = ChangesView(searches=changed, gone=gone, is_all=not lasted)
            yield f"event: searches\ndata: {view.model_dump_json()}\n\n"
        elif silent >= ALIVE_SECONDS:
            silent = 0.0
            yield ": \n\n"
        seen = now
        await sleep(_FRESH_SECONDS)
        lasted += _FRESH_SECONDS
