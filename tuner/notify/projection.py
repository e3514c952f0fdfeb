"""Sends messages about a search to a receiver: a projection of its journal.

A message follows from an event, and its id from the digest of the journal up to the event. So a
message is sent at least once, with one id, whatever driver comes to send it. Each receiver has a
follower with a cursor of its own: who does not answer delays nobody else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from tuner.clock import CLOCK
from tuner.journal.events import NodeLost, Reported, SearchStalled, SessionEnded
from tuner.journal.fold import Search
from tuner.journal.follower import Cursor, Follower, Projection, Source
from tuner.journal.lines import Entry
from tuner.notify.message import (
    Message,
    NewBest,
    message_of_best,
    message_of_end,
    message_of_lost_node,
    message_of_stall,
)
from tuner.notify.receivers import Receiver

_END_SECONDS = 5.0  # longest wait for receivers at the end of a command


class MessageProjection(Projection):
    """Sends the messages of one search to one receiver.

    Args:
        search: name of the search.
        receiver: who gets them.
    """

    def __init__(self, search: str, receiver: Receiver) -> None:
        self.name = receiver.name
        self._search, self._receiver = search, receiver
        self._waiting: deque[Message] = deque()
        self._best: NewBest | None = None

    @override
    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        message = self._message(entry, search)
        if message is not None and not is_sent:
            self._waiting.append(message)

    def _message(self, entry: Entry, search: Search) -> Message | None:
        """Return the message that follows from an event; None if there is none."""
        event, digest, name = entry.event, entry.digest, self._search
        match event:
            case Reported() if (best := self._new_best(event, search)) is not None:
                return message_of_best(name, best, event.time_ms / 1000, digest)
            case NodeLost():
                return message_of_lost_node(name, event, digest)
            case SearchStalled():
                return message_of_stall(name, event, digest)
            case SessionEnded():
                return message_of_end(name, event, digest)
        return None

    def _new_best(self, event: Reported, search: Search) -> NewBest | None:
        """Return the trial of a report if it is finished, and better than all before."""
        board, before = search.board, self._best
        trial = board.best_finished
        if trial is None or trial.number != event.number or len(search.space.objectives) > 1:
            return None
        value = board.value(trial)
        if (before is not None and before.number == trial.number) or not math.isfinite(value):
            return None
        self._best = NewBest(trial.number, board.metric, value, before and before.value)
        return self._best

    @override
    def send(self) -> None:
        while self._waiting:
            self._receiver.send(self._waiting[0])
            self._waiting.popleft()
            self.progress += 1

    @override
    def problem(self, reason: str) -> str:
        return f"{self.name}: {reason}"


@contextmanager
def notified(
    folder: Path,
    receivers: Sequence[Receiver],
    source: Callable[[], Source],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Send the messages of a search during the block, and for some seconds after it.

    Args:
        folder: folder of the search.
        receivers: who gets them. A new one gets no messages about earlier events.
        source: returns the entries of the journal, for one follower.
        say: called with one sentence about what could not be delivered.
    """
    followers = [
        Follower(
            MessageProjection(folder.name, receiver), source(),
            Cursor(folder, receiver.key), from_now=True,
        ).start()
        for receiver in receivers
    ]  # fmt: skip
    try:
        yield
    finally:
        until = CLOCK.now() + _END_SECONDS
        problems = [follower.close(max(0.0, until - CLOCK.now())) for follower in followers]
        if missing := [problem for problem in problems if problem]:
            say(f"not delivered: {'; '.join(missing)}; 'tuner sync {folder.name}' tries again")
