from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.report import Report, Status
from tests.tuner.journal.raw_lines import raw_line
from tuner.clock import CLOCK
from tuner.errors import JournalError, JournalInUse
from tuner.journal import journal as module
from tuner.journal.events import Event, Reported, SessionEnded, TrialFailed
from tuner.journal.journal import JOURNAL_FILE, Journal, JournalTail, read_entries, read_journal
from tuner.journal.lines import line_of, parse_lines
from tuner.lease.folder import is_running

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SOME = st.none() | FLOATS
REPORTS = st.builds(
    Report,
    trial_id=st.text(),
    status=st.sampled_from(Status),
    step=st.integers(0, 2**62),
    tokens=st.integers(0, 2**62),
    val_loss=FLOATS,
    train_loss=FLOATS,
    grad_norm=FLOATS,
    learning_rate=FLOATS,
    checkpoint=st.none() | st.text(),
    sparsity=SOME,
    token_accuracy=SOME,
    bleu=SOME,
    train_objective=SOME,
    exact_match=SOME,
    acc=SOME,
    acc_norm=SOME,
)

# Writes events from a number on, and says of each that it is written.
WRITER = """
import sys
from pathlib import Path
from tuner.journal.events import TrialFailed
from tuner.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
number = journal.events[-1].number + 1 if journal.events else 0
while True:
    journal.append(TrialFailed(number, "α" * (number % 5000)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes until it is killed."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def filled(folder: Path, count: int = 4) -> Journal:
    journal = Journal.open(folder)
    for number in range(count):
        journal.append(TrialFailed(number, "Δ loss"))
    return journal


def numbers_of(events: Sequence[Event]) -> list[int]:
    return [event.number for event in events if isinstance(event, TrialFailed)]


def numbers(folder: Path) -> list[int]:
    return numbers_of(read_journal(folder))


@given(REPORTS)
def test_reports_come_back_to_the_last_bit(report: Report) -> None:
    event = Reported(3, report)
    line, entry = line_of(replace(event, time_ms=7), "")
    ((back, digest),), length = parse_lines(Path(JOURNAL_FILE), line)
    assert (digest, length) == (entry.digest, len(line))
    assert repr(back) == repr(entry.event)  # NaN is not equal to itself
    assert isinstance(back, Reported)
    assert isinstance(back.report.status, Status)


def test_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    summary = {"α_max": 0.1 + 0.2, "worst": -math.inf, "nan": math.nan, "large": 2**60}
    event = SessionEnded(
        "finished", summary, 2, math.inf, (2, 2**60), None, "interrupted",
        ("a\nb\r\u2028 \\ \" é",),
    )  # fmt: skip
    before = time.time_ns() // 1_000_000
    journal = Journal.open(tmp_path / "deep" / "lm-1")
    assert journal.events == []
    time_ms = journal.append(event)
    journal.close()
    (back,) = Journal.open(tmp_path / "deep" / "lm-1").events
    assert before <= time_ms <= time.time_ns() // 1_000_000
    assert repr(back) == repr(replace(event, time_ms=time_ms))


def test_events_of_a_block_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write waits for the disk. A block that fails has written what happened before."""
    syncs: list[int] = []
    with contextlib.closing(Journal.open(tmp_path)) as journal:
        monkeypatch.setattr(os, "fsync", syncs.append)
        with journal.together():
            journal.append(TrialFailed(1, "a"))
            with journal.together():
                journal.append(TrialFailed(2, "b"))
            assert read_journal(tmp_path) == []
        assert len(syncs) == 1
        with pytest.raises(ValueError, match="an accident"), journal.together():
            journal.append(TrialFailed(3, "c"))
            raise ValueError("an accident")
        journal.append(TrialFailed(4, "d"))
        assert len(syncs) == 3
    numbers = [event.number for event in read_journal(tmp_path) if isinstance(event, TrialFailed)]
    assert numbers == [1, 2, 3, 4]


def test_journal_is_strict_json_by_line(tmp_path: Path) -> None:
    """Another program can read it: one object per line, without NaN."""
    journal = Journal.open(tmp_path)
    journal.append(SessionEnded("finished", {"loss": math.nan}))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    (line,) = journal.path.read_text().splitlines()
    data = json.loads(line, parse_constant=refuse)
    assert [*data] == [
        "event", "status", "summary", "best", "first_turn", "kept", "limit", "halted", "advice",
        "weights", "time_ms", "format", "crc",
    ]  # fmt: skip


@pytest.mark.slow
def test_journal_survives_kills(tmp_path: Path) -> None:
    """Every line that was said to be written is there, in order, and none is there twice."""
    draw, said = random.Random(0), -1
    for _ in range(8):
        with writer(tmp_path) as process:
            assert process.stdout is not None
            first = int(process.stdout.readline())
            assert first in (said + 1, said + 2)  # the last one may have been written unsaid
            time.sleep(draw.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            said = max([first, *map(int, process.stdout.read().split())])
            assert process.wait() == -signal.SIGKILL
        found = numbers(tmp_path)
        assert found == list(range(len(found)))
        assert len(found) - 1 in (said, said + 1)
        said = len(found) - 1
    assert said > 15


def test_journal_cuts_a_torn_line_off(tmp_path: Path) -> None:
    """Whatever part of the last line was written; and what comes next stands on its own line."""
    filled(tmp_path).close()
    path = tmp_path / JOURNAL_FILE
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert numbers(tmp_path) == [0, 1, 2]
        journal = Journal.open(tmp_path)
        assert numbers_of(journal.events) == [0, 1, 2]
        assert path.stat().st_size == start
        journal.append(TrialFailed(9, ""))
        journal.close()
        assert numbers(tmp_path) == [0, 1, 2, 9]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_journal_cuts_zeros_of_a_power_failure_off(tmp_path: Path, end: bytes) -> None:
    journal = filled(tmp_path)
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"event":"test"' + b"\0" * 500 + end)
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_journal_notices_every_flipped_bit(tmp_path: Path) -> None:
    """But for the end of the last line, without which it is a torn one."""
    journal = filled(tmp_path, 3)
    whole = journal.path.read_bytes()
    for place in range(len(whole) - 1):
        for bit in range(8):
            flipped = whole[place] ^ 1 << bit
            if flipped:  # zeros are what a power failure leaves
                data = b"%s%c%s" % (whole[:place], flipped, whole[place + 1 :])
                with pytest.raises(JournalError, match="is damaged"):
                    parse_lines(journal.path, data)


@pytest.mark.parametrize("name", ["lock", JOURNAL_FILE])
def test_journal_follows_no_link(tmp_path: Path, name: str) -> None:
    """A home from somebody else may have links to files of this user."""
    folder, victim = tmp_path / "lm-1", tmp_path / "token"
    victim.write_text("secret", encoding="utf-8")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(JournalError, match=rf"{name} is a link"):
        Journal.open(folder)
    assert victim.read_text(encoding="utf-8") == "secret"
    (tmp_path / "lm-2").symlink_to(folder)
    with pytest.raises(JournalError, match="lm-2 is a link"):
        Journal.open(tmp_path / "lm-2")


def test_journal_cuts_only_a_journal(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    path.write_text("a token without newline", encoding="utf-8")
    for read in (read_journal, Journal.open):
        with pytest.raises(JournalError, match="is no journal of a search"):
            read(tmp_path)
    assert path.read_text(encoding="utf-8") == "a token without newline"
    for torn in (b'{"ev', b'{"event":"search","space', b"\0" * 100, b'{"event"' + b"\0" * 9):
        path.write_bytes(torn)
        Journal.open(tmp_path).close()
        assert path.read_bytes() == b""


def test_journal_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL_FILE)
    for read in (read_journal, Journal.open):
        with pytest.raises(JournalError, match="is no regular file"):
            read(tmp_path)


@pytest.mark.parametrize(
    "body", ["[1]", "[" * 9_000, '{"event":3,"format":1}', '{"event":["x"],"format":1}', "3"]
)
def test_journal_reports_lines_that_are_no_events(tmp_path: Path, body: str) -> None:
    """Their checksums fit, but no version of tuner wrote them."""
    text = body.removesuffix("}").encode()
    line = b'%s,"crc":"%08x"}\n' % (text, zlib.crc32(text))
    (tmp_path / JOURNAL_FILE).write_bytes(line)
    with pytest.raises(JournalError, match=r"is damaged|is no journal|by another version"):
        read_journal(tmp_path)


def _with_checksum(line: bytes) -> bytes:
    """Return an edited line with the checksum that fits it."""
    data = json.loads(line)
    del data["crc"]
    return raw_line(data)


def _edited(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _with_checksum(lines[1].replace(b"loss", b"gain")), *lines[2:]]


@pytest.mark.parametrize(
    ("forge", "noticed"),
    [
        (_edited, 3),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [lines[0], lines[2], lines[3]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines, lines[2]], 5),
    ],
    ids=["edited", "swapped", "removed", "beheaded", "repeated"],
)
def test_journal_notices_lines_that_do_not_follow_each_other(
    tmp_path: Path, forge: Callable[[list[bytes]], list[bytes]], noticed: int
) -> None:
    """Each line by itself fits its checksum."""
    journal = filled(tmp_path)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(forge(lines)))
    for read in (read_journal, Journal.open):
        with pytest.raises(JournalError, match=rf":{noticed} does not follow the lines before it"):
            read(tmp_path)


def test_journal_is_compared_with_its_recorded_digest(tmp_path: Path) -> None:
    """Lines may be added after the digest was recorded, but not cut."""
    journal = filled(tmp_path)
    journal.close()
    entries = read_entries(tmp_path)
    assert entries == journal.entries
    assert len(entries) == 4
    assert journal.digest == entries[-1].digest
    for recorded in (entries[-1].digest, entries[1].digest, None):
        module.check_digest("lm-1", entries, recorded)
    for fewer in (entries[:-1], []):
        with pytest.raises(JournalError, match=r"lm-1 is not the one that was recorded .* cut"):
            module.check_digest("lm-1", fewer, entries[-1].digest)
    assert re.fullmatch(r"(\w{4}-){3}\w{4}", module.short_digest(entries[-1].digest))


def test_feed_and_tail_give_what_is_on_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As objects in the process of the journal, and from its file in any other."""
    journal = filled(tmp_path, 2)
    feed, tail = journal.feed(), JournalTail(tmp_path)
    assert feed.read() == tail.read() == journal.entries
    assert feed.read() == tail.read() == []
    with failing("fsync", monkeypatch):
        journal.append(TrialFailed(2, ""))
        assert feed.read() == []
    assert tail.read() == []
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    journal._next_try = 0.0
    journal.retry()
    assert feed.read() == tail.read() == journal.entries[2:]
    with journal.path.open("ab") as file:
        file.write(b'{"event":"fai')
    assert tail.read() == []
    journal.append(TrialFailed(3, ""))
    assert tail.read() == journal.entries[3:]
    assert JournalTail(tmp_path / "nothing").read() == []
    journal.close()


def test_tail_reads_large_journals_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["short", "x" * 3000, *(40 * ["y"])]
    with contextlib.closing(Journal.open(tmp_path)) as journal:
        for number, text in enumerate(texts):
            journal.append(TrialFailed(number, text))
        entries = list(journal.entries)
    monkeypatch.setattr(module, "_PART_BYTES", 600)
    tail = JournalTail(tmp_path)
    parts = list(tail.parts())
    assert [entry for part in parts for entry in part] == entries
    assert len(parts) > 3
    data = (tmp_path / JOURNAL_FILE).read_bytes()
    assert len(tail.marks) > 3
    assert all(data[:end].count(b"\n") == count for count, end in tail.marks)


def test_feed_wakes_its_reader(tmp_path: Path) -> None:
    journal = filled(tmp_path, 0)
    feed, found = journal.feed(), []

    def read() -> None:
        feed.wait(30.0, CLOCK)
        found.extend(feed.read())

    reader = threading.Thread(target=read)
    reader.start()
    journal.append(TrialFailed(0, ""))
    reader.join(10.0)
    journal.close()
    assert found == journal.entries


def test_journal_names_the_damaged_line(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1].replace(b"1", b"7", 1) + b"".join(lines[2:]))
    for read in (read_journal, Journal.open):
        with pytest.raises(JournalError, match=rf"{JOURNAL_FILE}:2 is damaged.* delete this line"):
            read(tmp_path)
    journal.path.write_bytes(lines[0])  # as the message says
    assert numbers_of(Journal.open(tmp_path).events) == [0]


def test_journal_is_open_once(tmp_path: Path) -> None:
    journal = filled(tmp_path / "lm-1")
    with pytest.raises(JournalInUse, match=f"lm-1 is being run by process {os.getpid()}; wait"):
        Journal.open(tmp_path / "lm-1")
    assert numbers(tmp_path / "lm-1") == [0, 1, 2, 3]  # reading needs no lock
    journal.close()
    journal.close()
    Journal.open(tmp_path / "lm-1").close()


def test_search_is_running_while_its_journal_is_open(tmp_path: Path) -> None:
    assert not is_running(tmp_path / "lm-1")
    journal = filled(tmp_path / "lm-1")
    assert is_running(tmp_path / "lm-1")
    journal.close()
    assert not is_running(tmp_path / "lm-1")


def test_journal_opens_although_its_lock_was_looked_at(tmp_path: Path) -> None:
    """As `is_running` looks, for an instant."""
    filled(tmp_path).close()
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        timer = threading.Timer(0.02, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        Journal.open(tmp_path).close()
        timer.join()


@pytest.mark.slow
def test_journal_is_free_once_its_process_was_killed(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(JournalInUse, match=f"process {process.pid};"):
            Journal.open(tmp_path)
        process.send_signal(signal.SIGSTOP)  # frozen, it still has it
        with pytest.raises(JournalInUse):
            Journal.open(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        Journal.open(tmp_path).close()


def test_journal_names_file_that_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot open .*: Not a directory"):
        Journal.open(tmp_path / "file" / "lm-1")
    (tmp_path / JOURNAL_FILE).mkdir()
    with pytest.raises(JournalError, match=r"is no regular file|Is a directory"):
        read_journal(tmp_path)
    with pytest.raises(JournalError, match=r"is no regular file|Is a directory"):
        Journal.open(tmp_path)
    (tmp_path / JOURNAL_FILE).rmdir()
    Journal.open(tmp_path).close()  # the failure did not keep the lock
    assert read_journal(tmp_path / "nothing") == []


# a full disk --------------------------------------------------------------------------------


@contextmanager
def failing(call: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """No space; how often it was tried."""
    tries: list[None] = []

    def fail(*args: Any) -> int:
        tries.append(None)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        yield tries


@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate"])
def test_journal_keeps_events_on_full_disk(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    journal = filled(tmp_path)
    with failing(call, monkeypatch) as tries:
        for number in (4, 5, 6):
            journal.append(TrialFailed(number, ""))
            journal.retry()
        count = len(tries)
        assert count <= 2  # of one attempt
        clock[0] += 1.0
        journal.retry()
        assert len(tries) == 2 * count
    assert journal.problem is not None
    assert journal.problem.startswith(f"cannot write {journal.path}: No space left on device; 3 ev")
    journal.retry()
    assert journal.problem is not None  # too early to try
    clock[0] += 1.0
    journal.retry()
    assert journal.problem is None
    journal.append(TrialFailed(7, ""))
    journal.close()
    assert numbers(tmp_path) == list(range(8))


def test_journal_reports_lost_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(tmp_path)
    with failing("pwrite", monkeypatch):
        journal.append(TrialFailed(4, ""))
        with pytest.raises(JournalError, match=r"No space left on device; 1 event waits .* lost"):
            journal.close()
    assert numbers(tmp_path) == [0, 1, 2, 3]
    Journal.open(tmp_path).close()


@contextmanager
def small_files(folder: Path) -> Iterator[Callable[[], None]]:
    """No file may grow beyond a limit; a call that lifts it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A disk of 64 KiB that is nearly full; a call that makes room."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount nothing")
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(40_000))
        yield ballast.unlink
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("limit", [small_files, small_disk])
def test_journal_outlasts_a_disk_that_is_really_full(
    tmp_path: Path, limit: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that half fits is taken back, so that the file is whole all the time."""
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    with limit(tmp_path) as make_room:
        journal = Journal.open(tmp_path / "lm-1")
        written = 0
        for number in range(40):
            journal.append(TrialFailed(number, "x" * 777))
            written += journal.problem is None
            assert numbers(tmp_path / "lm-1") == list(range(written))
        assert 5 < written < 35
        assert journal.problem is not None
        make_room()
        journal.retry()
        assert journal.problem is None
        journal.append(TrialFailed(40, ""))
        journal.close()
        assert numbers(tmp_path / "lm-1") == list(range(41))


def test_journal_costs_a_driver_nothing_while_all_is_written(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    start = time.thread_time()
    for _ in range(10_000):
        journal.retry()
    assert time.thread_time() - start < 0.1
