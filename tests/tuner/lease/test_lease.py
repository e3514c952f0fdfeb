"""Leases: of two drivers one may write, also where locks do not work."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.manual_clock import ManualClock
from tuner.errors import JournalError, JournalInUse, Replaced
from tuner.journal.events import TrialFailed
from tuner.journal.journal import Journal, read_journal
from tuner.lease.folder import FolderLeases, claim_folder, is_running, locked, newest
from tuner.lease.holder import Holder, Life
from tuner.lease.lease import Lease, is_heard

NO_PROCESS = 2**22 + 1  # no process has such an id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "lm-1"
    folder.mkdir()
    return folder


def ignore(holder: Holder) -> None:
    """Wait, and nothing happens meanwhile."""


def replacing(folder: Path, on_wait: Callable[[Holder], Any] = ignore) -> Lease:
    """Claim a folder as a driver does, whose waits take no time."""
    return claim_folder(folder, on_wait, ManualClock())


def process(pid: int) -> dict[str, Any]:
    """What a record says of a process of this machine."""
    me = json.loads(Holder.me(1).record)
    where = {key: me[key] for key in ("boot", "namespace")}
    started = psutil.Process(pid).create_time() - psutil.boot_time()
    return {**where, "host": "here", "pid": pid, "started": started}


def driver_of(folder: Path, epoch: int = 1, beat: float = 0.0, **values: Any) -> Path:
    """Claim an epoch as another driver did, whose last heartbeat was so many seconds ago."""
    path = folder / "epochs" / f"{epoch:04d}"
    path.parent.mkdir(exist_ok=True)
    record = {"host": "gpu-7", "pid": 42, "boot": "another", "since": "2026-11-22 20:15:00"}
    path.write_text(json.dumps({**record, **values}))
    os.utime(path, (time.time() - beat,) * 2)
    return path


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def _race(folder: Path, rounds: int, start: Barrier, wins: Any) -> None:
    for _ in range(rounds):
        store = FolderLeases(folder)
        epoch = max(store.epochs(), default=0) + 1
        start.wait()
        with suppress(FileExistsError):
            store.create(Holder.me(epoch))
            wins.put(epoch)
        start.wait()


@pytest.mark.slow
def test_lease_is_claimed_by_one_of_two_processes(folder: Path) -> None:
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
    second = Journal.open(folder, ignore, ManualClock())
    second.append(TrialFailed(1, "second"))
    monkeypatch.setattr(first._lease, "check", lambda: None)
    first.append(TrialFailed(1, "first"))
    second.append(TrialFailed(2, "second"))
    events = read_journal(folder)
    assert [getattr(event, "reason", None) for event in events] == ["", "second", "second"]
    first.close()
    assert is_running(folder)  # the end of the first does not free it
    with pytest.raises(JournalInUse):
        Journal.open(folder, ignore)
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
def test_driver_elsewhere_counts_while_it_is_heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool
) -> None:
    if not has_locks:
        without_locks(monkeypatch)
    path, waits = driver_of(folder), []
    assert is_running(folder)

    def beat(holder: Holder) -> None:
        waits.append(holder.text)
        os.utime(path, (len(waits), len(waits)))

    for refuse in (
        lambda: claim_folder(folder),
        lambda: replacing(folder, beat),
        locked(folder).__enter__,
    ):
        os.utime(path)
        with pytest.raises(JournalInUse, match=r"lm-1 is being run by process 42 on gpu-7, since"):
            refuse()
    assert waits == ["process 42 on gpu-7, since 2026-11-22 20:15:00"]
    lease = replacing(folder)  # no heartbeat comes
    assert (lease.epoch, lease.follows_a_kill) == (2, True)
    lease.release()


def granted_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)


@pytest.mark.parametrize("locks", [granted_to_everybody, without_locks])
def test_driver_of_this_machine_that_lives_counts_without_its_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, locks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    locks(monkeypatch)
    path = driver_of(folder, **process(os.getppid()))

    def beat(holder: Holder) -> None:
        os.utime(path, (1, 1))

    assert is_running(folder)
    for refuse in (lambda: claim_folder(folder), locked(folder).__enter__):
        with pytest.raises(JournalInUse, match=f"is being run by process {os.getppid()} on here"):
            refuse()
    with pytest.raises(JournalInUse):
        replacing(folder, beat)
    replacing(folder).release()  # it was stopped, and is not heard


ELSEWHERE: Mapping[str, dict[str, Any]] = {
    "another machine, or this one before a restart": {"boot": "another"},
    "another container": {"namespace": 1},
}


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("values", [{}, {"pid": NO_PROCESS}])
def test_process_elsewhere_is_neither_alive_nor_dead(
    folder: Path, where: str, values: dict[str, Any]
) -> None:
    """Whatever this machine or container has under its process id."""
    path = driver_of(folder, **{**process(os.getppid()), **values, **ELSEWHERE[where]})
    holder = newest(folder)
    assert holder is not None
    assert (holder.life, holder.runs) == (Life.UNKNOWN, True)
    with pytest.raises(JournalInUse):
        replacing(folder, lambda holder: os.utime(path, (1, 1)))
    os.utime(path, (0, 0))
    assert not is_running(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"pid": NO_PROCESS},
        {"started": 0.0},  # the id was given again
        {"pid": 0}, {"pid": -7}, {"pid": 10**30},
        {"has_ended": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("locks", [lambda patch: None, granted_to_everybody, without_locks])
def test_driver_of_this_machine_that_is_dead_is_followed_at_once(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    locks: Callable[..., None],
) -> None:
    locks(monkeypatch)
    driver_of(folder, **{**process(os.getppid()), **values})
    assert not is_running(folder)
    for claim in (lambda: claim_folder(folder), lambda: replacing(folder, pytest.fail)):
        claim().release()


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
IN_CONTAINER = """
import sys
from pathlib import Path
from tuner.lease.folder import claim_folder
lease = claim_folder(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
lease.release()
"""


@pytest.mark.slow
def test_driver_in_another_container_that_shares_the_home_is_not_dead(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process id is 1, which this container gave to another process."""
    if subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a namespace of process ids")
    granted_to_everybody(monkeypatch)
    with subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", IN_CONTAINER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        assert driver.stdout is not None
        assert driver.stdout.readline() == "claimed\n"
        holder = newest(folder)
        assert holder is not None
        assert (holder.pid, holder.life) == (1, Life.UNKNOWN)
        assert is_running(folder)
        with pytest.raises(JournalInUse, match="is being run by process 1 on"):
            claim_folder(folder)
        driver.communicate("")
    assert not is_running(folder)
    claim_folder(folder).release()


def test_driver_that_was_killed_is_dead(folder: Path) -> None:
    """Also before its parent takes note of it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        driver_of(folder, **process(child.pid))
        holder = newest(folder)
        assert holder is not None
        assert holder.life is Life.ALIVE
        child.kill()
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert holder.life is Life.DEAD
    assert holder.life is Life.DEAD


def test_driver_elsewhere_that_ends_meanwhile_is_followed(folder: Path) -> None:
    path, waits = driver_of(folder), []

    def end(holder: Holder) -> None:
        waits.append(holder)
        path.write_text('{"has_ended": true}')

    replacing(folder, end).release()
    assert len(waits) == 1


def test_driver_that_holds_the_lock_is_replaced_when_it_is_not_heard(folder: Path) -> None:
    """As one that was stopped (SIGSTOP, Ctrl-Z), which keeps its lock."""
    first = claim_folder(folder)
    path = folder / "epochs" / "0001"
    with pytest.raises(JournalInUse, match=f"by process {os.getpid()};"):
        replacing(folder, pytest.fail)  # heard a moment ago
    os.utime(path, (0, 0))
    with pytest.raises(JournalInUse):
        claim_folder(folder)  # `tuner sync` does not replace a driver
    with pytest.raises(JournalInUse):
        replacing(folder, lambda holder: os.utime(path, (1, 1)))
    os.utime(path, (0, 0))
    second = replacing(folder)
    with pytest.raises(Replaced):
        first.check()
    first.release()
    assert is_running(folder)
    second.release()


def test_command_that_holds_the_lock_is_not_replaced(folder: Path) -> None:
    driver_of(folder, beat=1000.0, **{**process(os.getppid()), "pid": NO_PROCESS})
    with locked(folder), pytest.raises(JournalInUse, match=f"by process {os.getpid()};"):
        replacing(folder, pytest.fail)


def test_two_drivers_that_come_at_one_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have seen that the folder is free; one claims it."""
    without_locks(monkeypatch)
    create = FolderLeases.create

    def late(store: FolderLeases, holder: Holder) -> None:
        driver_of(folder)
        create(store, holder)

    monkeypatch.setattr(FolderLeases, "create", late)
    with pytest.raises(JournalInUse, match="by process 42 on gpu-7"):
        claim_folder(folder)


def test_heartbeat_is_heard(folder: Path) -> None:
    clock = ManualClock()
    lease = claim_folder(folder, clock=clock)
    holder = newest(folder)
    assert holder is not None
    assert (holder.pid, holder.life, holder.runs) == (os.getpid(), Life.ALIVE, True)
    store, path = FolderLeases(folder), folder / "epochs" / "0001"
    os.utime(path, (0, 0))
    stopped = newest(folder)
    assert stopped is not None
    clock.sleep(5.1)  # a thread sends one each 5 seconds
    while path.stat().st_mtime == 0:
        time.sleep(0.001)
    assert is_heard(store, stopped, ignore, ManualClock())
    lease.release()
    assert not is_heard(store, stopped, ignore, ManualClock())
    ended = newest(folder)
    assert ended is not None
    assert ended.life is Life.DEAD
    assert not ended.runs


def test_heartbeat_under_way_does_not_follow_the_end(folder: Path) -> None:
    """Else the next driver would wait for one that has ended."""
    lease = claim_folder(folder)
    lease.release()
    lease.refresh()
    ended = newest(folder)
    assert ended is not None
    assert ended.has_ended


@pytest.mark.parametrize(
    "text",
    [
        "", "[" * 9000, "{", "[1]", "null", '{"pid": "1", "host": 7, "since": "\\u001b[31m"}',
        '{"namespace": NaN, "started": -Infinity, "pid": true}',
    ],
)  # fmt: skip
def test_record_that_says_nothing_is_another_driver(folder: Path, text: str) -> None:
    """Its driver was killed as it began, or somebody wrote it."""
    driver_of(folder).write_text(text)
    with pytest.raises(JournalInUse, match="lm-1 is being run by another driver; wait"):
        claim_folder(folder)
    replacing(folder).release()


def test_record_may_be_no_link_and_no_pipe(folder: Path, tmp_path: Path) -> None:
    (folder / "epochs").mkdir()
    os.mkfifo(folder / "epochs" / "0001")
    (folder / "epochs" / "0002").symlink_to(tmp_path / "secret")
    replacing(folder).release()
    assert not (tmp_path / "secret").exists()
    (folder / "epochs").rename(folder / "real")
    (folder / "epochs").symlink_to("real")
    with pytest.raises(JournalError, match="cannot open"):
        Journal.open(folder)


def test_journal_waits_while_the_lease_cannot_be_checked(folder: Path) -> None:
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
