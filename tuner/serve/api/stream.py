"""The events of a search as a stream for browsers and commands: server-sent events.

The id of an event is its number in the journal, and its data is the line of the journal. So a
client that comes back with `Last-Event-ID` loses nothing, also after the server was killed, and a
client of ours can check the lines as any reader of journals does. No client costs memory: each
reads the file itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from tuner.home.home import open_file
from tuner.journal.journal import JOURNAL_FILE
from tuner.serve.views import ENDED, SearchView

_POLL_SECONDS = 0.5
ALIVE_SECONDS = 15.0  # between two lines, so that proxies keep the connection
_MOST_BYTES = 1 << 20  # that are read at one time

Sleep = Callable[[float], Awaitable[None]]


class JournalLines:
    """The complete lines of a growing journal.

    Args:
        folder: folder of the search.
        after: number of lines to leave out.
        place: number of lines, and of bytes, which need not be read for that.
    """

    def __init__(self, folder: Path, after: int, place: tuple[int, int] = (0, 0)) -> None:
        self._path = folder / JOURNAL_FILE
        self._after = after
        self.count, self._end = place

    def read(self) -> list[tuple[int, str]]:
        """Return new lines with their numbers, from 1; at most a megabyte of them.

        Raises:
            JournalError: if the journal is a link.
        """
        try:
            file = open_file(self._path, os.O_RDONLY)
        except OSError:
            return []
        try:
            data = os.pread(file, _MOST_BYTES, self._end)
            while b"\n" not in data and len(data) and len(data) % _MOST_BYTES == 0:
                more = os.pread(file, _MOST_BYTES, self._end + len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(file)
        data = data[: data.rfind(b"\n") + 1]
        self._end += len(data)
        lines = []
        for line in data.splitlines():
            self.count += 1
            if self.count > self._after:
                lines.append((self.count, line.decode(errors="replace")))
        return lines


async def stream(
    lines: JournalLines, view: Callable[[], SearchView | None], sleep: Sleep
) -> AsyncIterator[str]:
    """Yield the events of a search, and its state whenever it changes, until it has ended.

    Args:
        lines: lines of its journal.
        view: function that returns the search as it is; None after it was deleted.
        sleep: function that waits some seconds.
    """
    seen, silent = None, 0.0
    yield "retry: 3000\n\n"
    while True:
        now = await run_in_threadpool(view)
        new = await run_in_threadpool(lines.read)
        for number, line in new:
            yield f"id: {number}\ndata: {line}\n\n"
        if now is None:
            yield "event: deleted\ndata: {}\n\n"
            return
        state = (now.state, now.position, now.waits_for)
        if state != seen:
            yield f"event: state\ndata: {now.model_dump_json()}\n\n"
        if now.state in ENDED and not new:
            return
        silent = 0.0 if new or state != seen else silent + _POLL_SECONDS
        seen = state
        if silent >= ALIVE_SECONDS:
            silent = 0.0
            yield ": \n\n"
        if not new:
            await sleep(_POLL_SECONDS)
