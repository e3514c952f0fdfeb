"""Epochs: of two drivers one may write, also where locks do not work."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner.errors import JournalError, JournalInUse, Replaced
from tuner.journal import epoch as module
from tuner.journal.claim import Claim, is_running, locked
from tuner.journal.epoch import Epoch, newest
from tuner.journal.events import TrialFailed
from tuner.journal.journal import Journal, read_journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "lm-1"
    folder.mkdir()
    return folder


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was waited for; waiting takes no time, and nothing is heard."""
    waits: list[str] = []
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    return waits


def driver_of(folder: Path, epoch: int = 1, beat: float = 0.0, **values: Any) -> Path:
    """Claim an epoch as another driver did, whose last heartbeat was so many seconds ago."""
    path = folder / "epochs" / f"{epoch:04d}"
    path.parent.mkdir(exist_ok=True)
    told = {"host": "gpu-7", "pid": 42, "boot": "another", "since": "2026-11-22 20:15:00"}
    path.write_text(json.dumps({**told, "ended": False, **values}))
    os.utime(path, (time.time() - beat,) * 2)
    return path


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def _race(folder: Path, rounds: int, start: Barrier, wins: Any) -> None:
    for _ in range(rounds):
        before = newest(folder)
        start.wait()
        try:
            epoch = Epoch.claim(folder, before)
        except FileExistsError:
            pass
        else:
            wins.put(epoch.number)
            epoch.end()
        start.wait()


@pytest.mark.slow
def test_epoch_is_claimed_by_one_of_two_processes(folder: Path) -> None:
    context, rounds = multiprocessing.get_context("fork"), 200
    start, wins = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(folder, rounds, start, wins)) for _ in range(2)]
    for racer in racers:
        racer.start()
    numbers = [wins.get(timeout=60) for _ in range(rounds)]
    for racer in racers:
        racer.join(60)
    assert (sorted(numbers), wins.empty()) == (list(range(1, rounds + 1)), True)


def test_driver_that_was_replaced_writes_nothing(folder: Path) -> None:
    journal = Journal.open(folder)
    journal.append(TrialFailed(0, ""))
    data = journal.path.read_bytes()
    assert journal.may_write()
    driver_of(folder, epoch=2)
    for write in (lambda: journal.append(TrialFailed(1, "")), journal.check_epoch):
        with pytest.raises(Replaced, match="process 42 on gpu-7, since 2026-11-22 20:15:00, has"):
            write()
    assert not journal.may_write()
    with pytest.raises(Replaced):
        journal.close()  # an event waits
    assert journal.path.read_bytes() == data


def test_driver_that_wakes_in_a_write_does_not_reach_the_journal_of_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has checked, sleeps, and writes after the next one has written."""
    first = Journal.open(folder)
    first.append(TrialFailed(0, ""))
    os.utime(folder / "epochs" / "0001", (0, 0))  # not heard for years
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    second = Journal.open(folder, lambda holder: None)
    second.append(TrialFailed(1, "second"))
    monkeypatch.setattr(first._claim.epoch, "check", lambda: None)
    first.append(TrialFailed(1, "first"))
    second.append(TrialFailed(2, "second"))
    events = read_journal(folder)
    assert [getattr(event, "reason", None) for event in events] == ["", "second", "second"]
    first.close()
    assert is_running(folder)  # the end of the first does not free it
    with pytest.raises(JournalInUse):
        Journal.open(folder, lambda holder: None)
    second.close()
    assert not is_running(folder)


def test_driver_that_has_ended_is_followed_at_once(folder: Path) -> None:
    for number in (1, 2, 3):
        journal = Journal.open(folder)
        assert journal.epoch == number
        inode = journal.path.stat().st_ino
        journal.close()
    assert newest(folder).has_ended  # type: ignore[union-attr]
    Journal.open(folder).close()
    assert journal.path.stat().st_ino == inode  # nobody can have it open: it need not be copied


@pytest.mark.parametrize("has_locks", [True, False])
@pytest.mark.parametrize("boot", ["another", None])
def test_driver_elsewhere_or_without_locks_counts_while_it_is_heard(
    folder: Path, waits: list[str], monkeypatch: pytest.MonkeyPatch, boot: str | None,
    has_locks: bool,
) -> None:  # fmt: skip
    """With locks that count, a driver of this machine that has no lock is dead."""
    if not has_locks:
        without_locks(monkeypatch)
    path = driver_of(folder, boot=boot or module.boot_id())
    is_dead = boot is None and has_locks
    assert is_running(folder) == (boot is not None)

    def beat(holder: Any) -> None:
        waits.append(holder.text)
        os.utime(path, (len(waits), len(waits)))

    if is_dead:
        Claim.of(folder).end()
        return
    for refuse in (
        lambda: Claim.of(folder),
        lambda: Claim.of(folder, beat),
        locked(folder).__enter__,
    ):
        os.utime(path)
        with pytest.raises(JournalInUse, match=r"lm-1 is being run by process 42 on gpu-7, since"):
            refuse()
    assert waits == ["process 42 on gpu-7, since 2026-11-22 20:15:00"]
    claim = Claim.of(folder, lambda holder: None)  # no heartbeat comes
    assert (claim.epoch.number, claim.follows_a_kill) == (2, True)
    claim.end()


@pytest.mark.parametrize("is_there", [True, False])
def test_driver_of_this_machine_that_lives_counts_where_locks_are_granted_to_everybody(
    folder: Path, waits: list[str], monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Its process id may be that of another process by now, which began at another time."""
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    started = psutil.Process(os.getppid()).create_time() - (0.0 if is_there else 60.0)
    values = {"boot": module.boot_id(), "pid": os.getppid(), "host": "here", "started": started}
    path = driver_of(folder, **values)
    assert is_running(folder) == is_there
    if not is_there:
        Claim.of(folder).end()
        return

    def beat(holder: Any) -> None:
        os.utime(path, (1, 1))

    for refuse in (lambda: Claim.of(folder), lambda: Claim.of(folder, beat)):
        os.utime(path)
        with pytest.raises(JournalInUse, match=f"is being run by process {os.getppid()} on here"):
            refuse()
    Claim.of(folder, lambda holder: None).end()  # it was stopped, and is not heard


def test_driver_that_was_killed_has_died(folder: Path) -> None:
    """Also before its parent takes note of it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        started = psutil.Process(process.pid).create_time()
        driver_of(folder, boot=module.boot_id(), pid=process.pid, started=started)
        before = newest(folder)
        assert before is not None
        assert not before.has_died
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert before.has_died
    assert before.has_died


def test_driver_elsewhere_that_ends_meanwhile_is_followed(folder: Path, waits: list[str]) -> None:
    path = driver_of(folder)
    Claim.of(folder, lambda holder: path.write_text('{"ended": true}') and None).end()


def test_driver_that_holds_the_lock_is_replaced_when_it_is_not_heard(
    folder: Path, waits: list[str]
) -> None:
    """As one that was stopped (SIGSTOP, Ctrl-Z), which keeps its lock."""
    first = Claim.of(folder)
    path = folder / "epochs" / "0001"
    with pytest.raises(JournalInUse, match=f"by process {os.getpid()};"):
        Claim.of(folder, waits.append)  # type: ignore[arg-type]
    assert waits == []  # heard a moment ago
    os.utime(path, (0, 0))
    with pytest.raises(JournalInUse):
        Claim.of(folder)  # `tuner sync` does not replace a driver

    def beat(holder: Any) -> None:
        os.utime(path, (1, 1))

    with pytest.raises(JournalInUse):
        Claim.of(folder, beat)
    os.utime(path, (0, 0))
    second = Claim.of(folder, lambda holder: None)
    with pytest.raises(Replaced):
        first.epoch.check()
    first.end()
    assert is_running(folder)
    second.end()


def test_command_that_holds_the_lock_is_not_replaced(folder: Path, waits: list[str]) -> None:
    driver_of(folder, beat=1000.0, boot=module.boot_id())
    with locked(folder), pytest.raises(JournalInUse, match=f"by process {os.getpid()};"):
        Claim.of(folder, lambda holder: None)


def test_two_drivers_that_come_at_one_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have seen that the folder is free; one claims it."""
    without_locks(monkeypatch)
    claim: Callable[..., Epoch] = Epoch.claim

    def late(folder: Path, before: Any) -> Epoch:
        driver_of(folder)
        return claim(folder, before)

    monkeypatch.setattr(Epoch, "claim", late)
    with pytest.raises(JournalInUse, match="by process 42 on gpu-7"):
        Claim.of(folder)


def test_heartbeat_is_heard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.01)
    claim = Claim.of(folder)
    holder = newest(folder)
    assert holder is not None
    assert (holder.pid, holder.is_here, holder.may_live) == (os.getpid(), True, True)
    assert module.is_heard(folder, holder, lambda holder: None)
    claim.end()
    ended = newest(folder)
    assert ended is not None
    assert ended.has_ended
    assert not ended.may_live


@pytest.mark.parametrize(
    "text", ["", "[" * 9000, "{", "[1]", '{"pid": "1", "host": 7, "since": "\\u001b[31m"}', "null"]
)
def test_epoch_that_says_nothing_is_another_driver(
    folder: Path, waits: list[str], text: str
) -> None:
    """Its driver was killed as it began, or somebody wrote it."""
    driver_of(folder).write_text(text)
    with pytest.raises(JournalInUse, match="lm-1 is being run by another driver; wait"):
        Claim.of(folder)
    Claim.of(folder, lambda holder: None).end()


def test_epoch_may_be_no_link_and_no_pipe(folder: Path, waits: list[str], tmp_path: Path) -> None:
    (folder / "epochs").mkdir()
    os.mkfifo(folder / "epochs" / "0001")
    (folder / "epochs" / "0002").symlink_to(tmp_path / "secret")
    Claim.of(folder, lambda holder: None).end()
    assert not (tmp_path / "secret").exists()
    (folder / "epochs").rename(folder / "real")
    (folder / "epochs").symlink_to("real")
    with pytest.raises(JournalError, match="cannot open"):
        Journal.open(folder)


def test_journal_waits_while_the_epoch_cannot_be_checked(folder: Path) -> None:
    """As on a network file system whose server does not answer."""
    journal = Journal.open(folder)
    (folder / "epochs").rename(folder / "gone")
    journal.append(TrialFailed(0, ""))
    assert journal.problem is not None
    assert journal.may_write()
    assert read_journal(folder) == []
    (folder / "gone").rename(folder / "epochs")
    journal.close()
    assert len(read_journal(folder)) == 1
