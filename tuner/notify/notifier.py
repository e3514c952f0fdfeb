"""Sends messages about a search: follows its journal, and notes what was delivered.

A message follows from an event of the journal, and its id from the digest of the journal up to it;
that of a lost node from a line that the driver writes to `outbox.jsonl`, and its id from Ray's id
of the node. So a message is sent at least once, with one id, whatever driver comes to send it: what
is not noted as delivered in `outbox.jsonl` is sent again. Nothing here can hold up training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tuner.errors import TunerError
from tuner.journal.events import SessionBegun, SessionEnded
from tuner.journal.journal import JournalTail
from tuner.notify.champion import Champions
from tuner.notify.message import (
    Message,
    message_of_champion,
    message_of_end,
    message_of_lost_node,
    message_of_stall,
)
from tuner.notify.outbox import OutboxTail, note
from tuner.notify.receivers import NotDelivered, Receiver

_POLL_SECONDS = 1.0
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 1.0, 300.0
_END_SECONDS = 5.0  # longest wait for receivers at the end of a command
_STALL_SECONDS = 900.0  # without news, at least
_STALL_GAPS = 10.0  # and so many of the longest times between two events


@dataclass
class _Mailbox:
    """Messages that wait for one receiver."""

    receiver: Receiver
    waiting: list[Message] = field(default_factory=list)
    delay: float = _FIRST_DELAY_SECONDS
    next_try: float = 0.0
    reason: str = ""


class Notifier:
    """Sends the messages of one search until it is closed.

    Args:
        folder: folder of the search.
        receivers: who gets them. A new one gets no messages about earlier events.
    """

    def __init__(self, folder: Path, receivers: Sequence[Receiver]) -> None:
        self._folder, self._receivers = folder, receivers
        self._tail, self._champions = JournalTail(folder), Champions()
        self._delivered: set[tuple[str, str]] = set()  # id, key
        self._since: dict[str, int] = {}  # key → number of events before the receiver was there
        self._listed: set[str] = (
            set()
        )  # keys of receivers, up to the line of the outbox that is read
        self._outbox = OutboxTail(folder)
        self._mailboxes = [_Mailbox(receiver) for receiver in receivers]
        self._count = 0  # of events
        self._newest = self._longest_gap = 0.0
        self._is_on = self._has_stalled = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        if receivers:
            self._read_outbox()
            self._thread.start()

    def close(self) -> str | None:
        """End; return a message about what could not be delivered, if there is something."""
        self._closing.set()
        if self._receivers:
            self._thread.join(_END_SECONDS)
        left = [f"{box.receiver.name}: {box.reason}" for box in self._mailboxes if box.waiting]
        if not left:
            return None
        return f"not delivered: {'; '.join(left)}; 'tuner sync {self._folder.name}' tries again"

    def _run(self) -> None:
        until = 0.0
        while True:
            is_last = self._closing.wait(_POLL_SECONDS)
            if is_last and not until:
                until = time.monotonic() + _END_SECONDS
            with suppress(TunerError, OSError):  # the driver says so
                self._look()
            self._send()
            if is_last:
                if not any(box.waiting for box in self._mailboxes) or time.monotonic() > until:
                    return
                time.sleep(0.2)

    # what there is to say -----------------------------------------------------------------------

    def _look(self) -> None:
        """Read the journal, and put what it says into the mailboxes."""
        events, digests = self._tail.read_chain()
        for event, digest in zip(events, digests, strict=True):
            at = event.time_ms / 1000
            if isinstance(event, SessionBegun):
                self._is_on = True
            elif self._is_on:
                self._longest_gap = max(self._longest_gap, at - self._newest)
            self._newest, self._has_stalled = at, False
            if (champion := self._champions.take(event)) is not None:
                self._post(message_of_champion(self._folder.name, champion, at, digest))
            if isinstance(event, SessionEnded):
                self._is_on = False
                self._post(message_of_end(self._folder.name, event, digest))
            self._count += 1
        for receiver in self._receivers:
            if receiver.key not in self._since:
                note(self._folder, {"to": receiver.key, "since": self._count})
                self._since[receiver.key] = self._count
        self._read_outbox()
        silence = time.time() - self._newest
        if (
            self._is_on
            and not self._has_stalled
            and silence > max(_STALL_SECONDS, _STALL_GAPS * self._longest_gap)
        ):
            self._has_stalled = True
            digest = self._tail.digest
            self._post(message_of_stall(self._folder.name, silence, time.time(), digest))

    def _post(self, message: Message) -> None:
        for box in self._mailboxes:
            key = box.receiver.key
            is_new = (message.id, key) not in self._delivered
            if is_new and self._count >= self._since.get(key, self._count + 1):
                box.waiting.append(message)

    # delivery -----------------------------------------------------------------------------------

    def _send(self) -> None:
        for box in self._mailboxes:
            while box.waiting and time.monotonic() >= box.next_try:
                try:
                    box.receiver.send(box.waiting[0])
                except NotDelivered as error:
                    box.reason = str(error)
                    box.next_try = time.monotonic() + box.delay
                    box.delay = min(2 * box.delay, _LONGEST_DELAY_SECONDS)
                    break
                message = box.waiting.pop(0)
                box.delay = _FIRST_DELAY_SECONDS
                note(self._folder, {"to": box.receiver.key, "delivered": message.id})

    def _read_outbox(self) -> None:
        """Take note of the lines that are new in the outbox, and post messages about lost nodes."""
        posts: list[tuple[Message, set[str]]] = []
        for entry in self._outbox.read():
            with suppress(ValueError, KeyError, TypeError):
                if "lost" in entry:
                    message = message_of_lost_node(
                        self._folder.name, str(entry["lost"]), str(entry["name"]),
                        float(entry["time"]),
                    )  # fmt: skip
                    posts.append((message, set(self._listed)))
                elif "since" in entry:
                    key = str(entry["to"])
                    self._since.setdefault(key, int(entry["since"]))
                    self._listed.add(key)
                else:
                    self._delivered.add((str(entry["delivered"]), str(entry["to"])))
        for message, keys in posts:  # now that all deliveries are known
            for box in self._mailboxes:
                key = box.receiver.key
                is_new = (message.id, key) not in self._delivered and message not in box.waiting
                if key in keys and is_new:
                    box.waiting.append(message)


@contextmanager
def notified(
    folder: Path, receivers: Sequence[Receiver], say: Callable[[str], None]
) -> Iterator[None]:
    """Send the messages of a search during the block, and for some seconds after it.

    Args:
        folder: folder of the search.
        receivers: who gets them.
        say: called with one sentence about what could not be delivered.
    """
    notifier = Notifier(folder, receivers)
    try:
        yield
    finally:
        if problem := notifier.close():
            say(problem)
