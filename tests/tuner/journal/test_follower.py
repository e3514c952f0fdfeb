"""What keeps a projection level with a journal, whatever the projection does; no test waits."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.manual_clock import ManualClock, SharedClock
from tests.tuner.simulated_search import FACTS
from tests.tuner.tracking.recorded import ENVIRONMENT, SPACE, report
from tuner.clock import SystemClock
from tuner.errors import Replaced, StoreError
from tuner.journal.events import (
    Event,
    MessageSent,
    Reported,
    SearchBegun,
    SessionBegun,
    TrialBegun,
)
from tuner.journal.fold import Search
from tuner.journal.follower import CURSORS, Cursor, Follower, Projection
from tuner.journal.journal import Feed, Journal, JournalTail
from tuner.journal.lines import Entry, line_of

BEGUN = (SearchBegun(SPACE, "", FACTS), SessionBegun(ENVIRONMENT, 1, in_order=True))


class Noted(Projection):
    """Sends texts to a list, unless it is out of order.

    Attributes:
        sent: messages of the journal that were sent.
        known: those of which it was told that they were sent before.
        tries: times at which it was asked to send something.
        fault: raised instead of sending.
        before: called before anything is sent.
    """

    name = "the list"

    def __init__(self, clock: SystemClock) -> None:
        self.sent: list[str] = []
        self.known: list[str] = []
        self.tries: list[float] = []
        self.fault: Exception | None = None
        self.before: Callable[[], None] = lambda: None
        self.is_closed = False
        self._clock = clock
        self._waiting: list[str] = []

    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        if isinstance(entry.event, MessageSent):
            (self.known if is_sent else self._waiting).append(entry.event.text)

    def send(self) -> None:
        if self._waiting:
            self.tries.append(self._clock.now())
        while self._waiting:
            self.before()
            if self.fault is not None:
                raise self.fault
            self.sent.append(self._waiting.pop(0))
            self.progress += 1

    def close(self) -> None:
        self.is_closed = True


class Lines:
    """A journal in memory, and its feed."""

    def __init__(self, *texts: str) -> None:
        self.entries: list[Entry] = []
        self.feed = Feed(self.entries)
        self.append(*BEGUN)
        self.say(*texts)

    def append(self, *events: Event) -> None:
        for event in events:
            digest = self.entries[-1].digest if self.entries else ""
            self.entries.append(line_of(event, digest)[1])
        self.feed.wake()

    def say(self, *texts: str) -> None:
        self.append(*map(MessageSent, texts))


@pytest.fixture
def clock() -> SharedClock:
    return SharedClock()


# what is sent, and when ------------------------------------------------------------------------


def test_follower_sends_what_is_there_and_what_comes(clock: SharedClock) -> None:
    lines, projection = Lines("a", "b"), Noted(clock)
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.flush(1) is None
    assert projection.sent == ["a", "b"]
    lines.say("c")
    clock.pass_time(0)
    assert follower.flush(1) is None
    assert projection.sent == ["a", "b", "c"]
    assert (follower.reason, follower.problem) == (None, None)
    assert follower.close(30) is None
    assert projection.is_closed


def test_follower_sends_without_being_asked(clock: SharedClock) -> None:
    """Events are collected for the period of the projection."""
    lines, projection = Lines(), Noted(clock)
    projection.period_seconds = 10.0
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.flush(1) is None
    for text in "abc":
        lines.say(text)
        clock.pass_time(2)
    assert projection.sent == []
    clock.pass_time(20)
    assert projection.sent == ["a", "b", "c"]
    assert len(projection.tries) == 1
    assert follower.close(30) is None


def test_follower_tries_again_later_and_later(clock: SharedClock) -> None:
    lines, projection = Lines("a"), Noted(clock)
    projection.fault = OSError("refused\nby the other side")
    follower = Follower(projection, lines.feed, clock=clock).start()
    clock.pass_time(180)
    assert projection.tries == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]
    assert follower.reason == "refused"
    assert follower.problem == "the list cannot be written: refused"
    projection.fault = None
    clock.pass_time(30)
    assert projection.sent == ["a"]
    assert (follower.reason, follower.problem) == (None, None)
    projection.fault = StoreError("it is\nfull")
    lines.say("b")
    begun = clock.now()
    clock.pass_time(5)
    assert [time - begun for time in projection.tries[-3:]] == [0, 1, 3]
    assert follower.reason == "it is\nfull"
    assert follower.close(0) == "the list cannot be written: it is\nfull"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(), "ValueError"),
        (RuntimeError("first\nsecond"), "first"),
        (StoreError("a sentence"), "a sentence"),
    ],
)
def test_reason_is_one_line(clock: SharedClock, error: Exception, reason: str) -> None:
    projection = Noted(clock)
    projection.fault = error
    follower = Follower(projection, Lines("a").feed, clock=clock).start()
    assert follower.flush(1) == f"the list cannot be written: {reason}"
    assert follower.reason == reason
    follower.close(0)


# callers that wait -----------------------------------------------------------------------------


def test_flush_waits_as_long_as_there_is_progress(clock: SharedClock) -> None:
    projection = Noted(clock)
    projection.before = lambda: clock.sleep(20)
    follower = Follower(projection, Lines(*"abcdefg").feed, clock=clock).start()
    assert follower.flush(30) is None
    assert (projection.sent, clock.now()) == ([*"abcdefg"], 140)
    assert follower.close(30) is None


def test_flush_ends_without_progress(clock: SharedClock) -> None:
    """Its reason is that of the newest try, or that there is no answer."""
    lines, projection = Lines("a"), Noted(clock)
    projection.before = lambda: clock.sleep(100)
    projection.fault = StoreError("too slow")
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.flush(30) == "the list cannot be written: it does not answer"
    assert clock.now() == 30
    clock.pass_time(100)
    assert follower.flush(30) == "the list cannot be written: too slow"
    follower.close(0)


def test_flush_tries_every_second_whatever_the_delay_was(clock: SharedClock) -> None:
    """A store that comes back while somebody waits at the end of a search is noticed."""
    projection = Noted(clock)
    projection.fault = StoreError("down")
    follower = Follower(projection, Lines("a").feed, clock=clock).start()
    clock.pass_time(100)
    before, begun = len(projection.tries), clock.now()

    def come_back() -> None:
        if clock.now() > begun + 5:
            projection.fault = None

    projection.before = come_back
    assert follower.flush(30) is None
    assert clock.now() - begun <= 7
    assert len(projection.tries) - before <= 8
    assert follower.close(30) is None


def test_flush_sends_at_once(clock: SharedClock) -> None:
    lines, projection = Lines(), Noted(clock)
    projection.period_seconds = 100.0
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.flush(1) is None
    begun = clock.now()
    lines.say("a")
    assert follower.flush(1) is None
    assert projection.sent == ["a"]
    assert clock.now() == begun
    assert follower.close(30) is None


def test_close_sends_what_waits() -> None:
    clock = ManualClock()
    lines, projection = Lines("a"), Noted(clock)
    projection.fault = StoreError("down")

    def come_back() -> None:
        if clock.now() > 3:
            projection.fault = None

    projection.before = come_back
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.close(30) is None
    assert projection.sent == ["a"]
    assert projection.is_closed
    assert 3 < clock.now() < 4


def test_close_ends_at_its_deadline() -> None:
    clock = ManualClock()
    projection = Noted(clock)
    projection.fault = StoreError("down")
    follower = Follower(projection, Lines("a").feed, clock=clock).start()
    assert follower.close(30) == "the list cannot be written: down"
    follower._thread.join(10)
    assert projection.is_closed
    assert 30 <= clock.now() < 31


def test_close_leaves_a_projection_that_hangs() -> None:
    """Its request may take a minute; nobody waits for it, and the thread is no reason to stay."""
    projection, awake = Noted(ManualClock()), threading.Event()
    projection.before = lambda: awake.wait(10) and None
    follower = Follower(projection, Lines("a").feed).start()
    assert follower.close(0.05) == "the list cannot be written: it does not answer"
    assert follower._thread.daemon
    awake.set()
    follower._thread.join(10)
    assert projection.is_closed


# who may write ---------------------------------------------------------------------------------


def test_follower_of_a_replaced_driver_ends_without_a_problem(clock: SharedClock) -> None:
    lines, projection, is_replaced = Lines("a"), Noted(clock), threading.Event()
    follower = Follower(
        projection, lines.feed, may_write=lambda: not is_replaced.is_set(), clock=clock
    ).start()
    assert follower.flush(1) is None
    is_replaced.set()
    lines.say("b")
    assert follower.flush(30) is None
    assert follower.close(30) is None
    assert projection.sent == ["a"]
    assert projection.is_closed


def test_projection_may_find_out_that_its_driver_was_replaced(clock: SharedClock) -> None:
    projection, is_replaced = Noted(clock), threading.Event()
    projection.fault = Replaced("lm-1", "process 7")
    projection.before = is_replaced.set
    follower = Follower(
        projection, Lines("a").feed, may_write=lambda: not is_replaced.is_set(), clock=clock
    ).start()
    assert follower.flush(30) is None
    assert (projection.sent, follower.problem) == ([], None)


# faults ----------------------------------------------------------------------------------------


def test_event_that_cannot_be_folded_is_a_problem_that_stays(
    clock: SharedClock, make_spec: MakeSpec
) -> None:
    """A follower that had lost an event must not say that it is level."""
    lines, projection = Lines("a"), Noted(clock)
    follower = Follower(projection, lines.feed, clock=clock).start()
    assert follower.flush(1) is None
    lines.append(BEGUN[0])
    lines.say("b")
    for _ in range(2):
        problem = follower.flush(30)
        assert problem is not None
        assert "at event 4: the search begins again" in problem
    assert projection.sent == ["a"]
    follower.close(0)


def test_journal_that_cannot_be_read_is_read_again(tmp_path: Path, clock: SharedClock) -> None:
    with closing(Journal.open(tmp_path / "lm-1")) as journal:
        for event in (*BEGUN, MessageSent("a")):
            journal.append(event)
    whole = journal.path.read_bytes()
    damaged = whole.replace(b'"text":"a"', b'"text":"b"')
    journal.path.write_bytes(damaged)
    projection = Noted(clock)
    follower = Follower(projection, JournalTail(journal.path.parent), clock=clock).start()
    problem = follower.flush(3)
    assert problem is not None
    assert "journal.jsonl:3 is damaged" in problem
    journal.path.write_bytes(whole)
    assert follower.flush(3) is None
    assert projection.sent == ["a"]
    assert follower.close(30) is None


# sources ---------------------------------------------------------------------------------------


def test_tail_follows_a_journal_that_another_process_writes(
    tmp_path: Path, clock: SharedClock
) -> None:
    """It polls; a line that is not complete yet waits."""
    folder = tmp_path / "lm-1"
    projection = Noted(clock)
    follower = Follower(projection, JournalTail(folder), clock=clock).start()
    clock.pass_time(1)
    with closing(Journal.open(folder)) as journal:
        for event in (*BEGUN, MessageSent("a")):
            journal.append(event)
        clock.pass_time(1)
        assert projection.sent == ["a"]
        line, _ = line_of(MessageSent("b", time_ms=1), journal.digest)
        with journal.path.open("ab") as file:
            file.write(line[:-5])
        clock.pass_time(1)
        assert projection.sent == ["a"]
        with journal.path.open("ab") as file:
            file.write(line[-5:])
        clock.pass_time(1)
    assert projection.sent == ["a", "b"]
    assert follower.close(30) is None


def test_feed_has_only_what_is_on_the_disk(
    tmp_path: Path, clock: SharedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Journal.open(tmp_path / "lm-1")) as journal:
        projection = Noted(clock)
        follower = Follower(projection, journal.feed(), clock=clock).start()
        with journal.together():
            for event in (*BEGUN, MessageSent("a")):
                journal.append(event)
            assert follower.flush(1) is None
            assert projection.sent == []
        assert follower.flush(1) is None
        assert projection.sent == ["a"]
        assert follower.close(30) is None


def test_projection_sees_the_search_up_to_the_event(
    clock: SharedClock, make_spec: MakeSpec
) -> None:
    losses: list[float] = []

    class Losses(Projection):
        def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
            best = search.board.best
            losses.append(math.nan if best is None else search.board.value(best))

    lines = Lines()
    lines.append(TrialBegun(0, {}, make_spec()))
    reports: list[Report] = [report(4, 3.0), report(8, 2.0), report(12, 1.0, Status.FINISHED)]
    lines.append(*(Reported(0, each) for each in reports))
    follower = Follower(Losses(), lines.feed, clock=clock).start()
    assert follower.flush(1) is None
    assert list(map(str, losses)) == ["nan", "nan", "nan", "3.0", "2.0", "1.0"]
    assert follower.close(30) is None


# cursors ---------------------------------------------------------------------------------------


def followed(lines: Lines, cursor: Cursor, *, from_now: bool = False, fault: str = "") -> Noted:
    """Follow a journal to its end."""
    clock = ManualClock()
    projection = Noted(clock)
    projection.fault = StoreError(fault) if fault else None
    lines.feed = Feed(lines.entries)
    follower = Follower(projection, lines.feed, cursor, from_now=from_now, clock=clock).start()
    assert (follower.close(5) is None) is not bool(fault)
    follower._thread.join(10)
    return projection


def test_next_follower_goes_on_from_the_cursor(tmp_path: Path) -> None:
    lines, cursor = Lines("a", "b"), Cursor(tmp_path, "list")
    assert cursor.read() is None
    assert followed(lines, cursor).sent == ["a", "b"]
    assert cursor.read() == (4, lines.entries[3].digest)
    lines.say("c")
    assert followed(lines, cursor, fault="down").sent == []
    assert cursor.read() == (4, lines.entries[3].digest)
    lines.say("d")
    third = followed(lines, cursor)
    assert (third.known, third.sent) == (["a", "b"], ["c", "d"])
    assert followed(lines, cursor).sent == []
    assert followed(lines, Cursor(tmp_path, "other")).sent == ["a", "b", "c", "d"]


def test_new_follower_may_begin_now(tmp_path: Path) -> None:
    """Nobody wants messages of the past; what comes while nothing can be sent is no past."""
    lines, cursor = Lines("a"), Cursor(tmp_path, "list")
    first = followed(lines, cursor, from_now=True)
    assert (first.known, first.sent) == (["a"], [])
    lines.say("b")
    assert followed(lines, cursor, from_now=True, fault="down").sent == []
    lines.say("c")
    third = followed(lines, cursor, from_now=True)
    assert (third.known, third.sent) == (["a"], ["b", "c"])


def test_new_follower_of_an_empty_journal_misses_nothing(tmp_path: Path) -> None:
    lines, cursor = Lines(), Cursor(tmp_path, "list")
    lines.entries.clear()
    assert followed(lines, cursor, from_now=True).known == []
    lines.append(*BEGUN)
    lines.say("a")
    assert followed(lines, cursor, from_now=True).sent == ["a"]


def test_cursor_of_another_journal_does_not_count(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path, "list")
    followed(Lines("a", "b"), cursor)
    other = Lines("c", "d")
    assert followed(other, cursor).sent == ["c", "d"]
    del other.entries[-1]
    assert followed(other, cursor).sent == ["c"], "it was cut"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"events": -1, "digest": ""}', '{"events": 1, "digest": 2}',
             '{"events": "1", "digest": ""}', '{"digest": ""}', "\xff"],
)  # fmt: skip
def test_damaged_cursor_is_none(tmp_path: Path, text: str) -> None:
    cursor = Cursor(tmp_path, "list")
    cursor.write(2, "x")
    (tmp_path / CURSORS / "list").write_text(text, encoding="latin-1")
    assert cursor.read() is None
    assert followed(Lines("a"), cursor).sent == ["a"]


def test_cursor_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / CURSORS).write_text("no folder")
    cursor = Cursor(tmp_path, "list")
    assert followed(Lines("a"), cursor).sent == ["a"]
    assert cursor.read() is None
