"""Carries the queue out: starts drivers as `tuner submit` does, pauses them, finds them again.

The journals and leases say what runs; the database says what is wanted. Each tick compares both, so
a server that was killed at any moment goes on: what is wanted is written before it is done, and a
driver that was started twice is refused by the lease of its search.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from model.files import replacing
from tuner.errors import JournalInUse, TunerError
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus
from tuner.jobs.submit import submit
from tuner.journal.edit_request import edit_requests
from tuner.lease.folder import claim_folder, is_running, newest
from tuner.lease.lease import Lease
from tuner.lease.stop_request import StopRequest, request_stop, stop_request
from tuner.serve.accounts import Accounts
from tuner.serve.database import Database
from tuner.serve.machine import Machine
from tuner.serve.queue import Priority, QueueItem, Wait, plan
from tuner.serve.records import QueuedSearch
from tuner.serve.searches import HomeSearches
from tuner.serve.spaces import naming

FOLDER = "serve"  # of the server, in the home
_PERIOD_SECONDS = 1.0
_WARM_SECONDS = 0.2  # of a tick, so that the first lists of a large home wait for no journals
_SCAN_SECONDS = 10.0  # between two looks at all searches: 0.2 ms for each
_STARTING_SECONDS = 60.0  # in which a driver that another server started takes its lease
_MOST_ATTEMPTS = 3  # drivers that die one after the other without an event of the journal
_BAD_INPUT = TunerError.exit_status
_KEEP = "keep "  # and the number of devices on which a driver that is asked to end begins again
_LOG_BYTES = 4096


class DriverProcess(Protocol):
    """A process that was started for a search."""

    @property
    def exit_status(self) -> int | None:
        """Exit status; None while it runs."""


Start = Callable[[str, Home, Sequence[str], Mapping[str, str]], DriverProcess]


def start_driver(
    name: str, home: Home, arguments: Sequence[str], environment: Mapping[str, str]
) -> DriverProcess:
    """Start a driver as `tuner submit` does."""
    return submit(name, home, arguments, (), environment)


class Dispatcher:
    """Runs the queue of a home; of several servers, the one that has the lease of the folder.

    Args:
        home: home of the searches.
        database: database of the server.
        searches: the searches by their journals.
        machine: devices.
        start: function that starts a driver.
        now: clock in seconds since the epoch.

    Attributes:
        waits: why searches wait, as of the newest tick.
        problem: why the newest tick failed; None if it did not.
        ticked: time of the newest tick that did not fail, by `time.monotonic`.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        searches: HomeSearches,
        machine: Machine,
        start: Start = start_driver,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.waits: Mapping[str, Wait] = {}
        self.problem: str | None = None
        self.ticked = 0.0
        self._home, self._database, self._searches = home, database, searches
        self._machine, self._start, self._now = machine, start, now
        self._accounts = Accounts(database, now)
        self._by_command: list[str] = []  # searches that commands run
        self._scanned = 0.0  # when all searches were last asked
        self._drivers: dict[str, DriverProcess] = {}
        self._lease: Lease | None = None
        self._wakes, self._is_over = threading.Event(), threading.Event()
        self._num_begun = self._num_ended = 0  # ticks
        self._ticks = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def begin(self) -> None:
        """Tick once a second, and whenever something has changed, in a thread."""
        self._thread.start()

    def wake(self, patience_seconds: float = 0.0) -> None:
        """Tick soon, and wait some time for the end of a tick that begins after this call."""
        ticket = self._num_begun
        self._wakes.set()
        if patience_seconds and self._thread.is_alive():
            with self._ticks:
                self._ticks.wait_for(lambda: self._num_ended > ticket, patience_seconds)

    def close(self) -> None:
        """End; the drivers go on."""
        self._is_over.set()
        self._wakes.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._lease is not None:
            self._lease.release()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._num_begun += 1
            try:
                self.tick()
                self.problem, self.ticked = None, time.monotonic()
                self._searches.warm(_WARM_SECONDS, self._wakes.is_set)
            except (TunerError, OSError) as error:  # a full disk: what runs goes on
                self.problem = str(error)
            with self._ticks:
                self._num_ended = self._num_begun
                self._ticks.notify_all()
            self._wakes.wait(_PERIOD_SECONDS)
            self._wakes.clear()

    def tick(self) -> None:
        """Compare what is wanted with what is, and change the latter."""
        if not self._has_lease():
            self.waits = {}
            return
        entries = {entry.name: entry for entry in map(self._settled, self._database.active())}
        outside = self._outside(entries)
        active = [
            entry for entry in entries.values()
            if entry.devices or (entry.wanted == "run" and entry.name not in outside)
        ]  # fmt: skip
        jobs = [self._job(entry) for entry in active]
        jobs += [QueueItem(name, "", holds=self._searches.num_workers(name)) for name in outside]
        holders = [entry for entry in active if entry.devices]
        statuses = {entry.name: self._searches.status(entry.name, fresh=True) for entry in holders}
        self._accounts.charge(holders, statuses)
        made = plan(jobs, self._accounts.shares(), self._machine.number, self._now())
        for name in made.pauses:
            self._ask(entries[name], "yield")
        free = self._free_numbers(holders)
        for name, count in made.resizes.items():
            held = entries[name].device_numbers
            more = [free.pop(0) for _ in range(count - len(held))]
            reason, numbers = f"{_KEEP}{count}", _text_of((*held, *more))
            self._ask(self._change(entries[name], devices=numbers, asked=reason), reason)
        problems: dict[str, Wait] = {}
        for name, count in made.starts.items():
            try:
                self._begin(entries[name], [free.pop(0) for _ in range(count)])
            except JournalInUse:  # somebody began it by hand a moment ago
                self._database.change(name, devices="")
            except TunerError as error:
                self._database.change(name, devices="")
                problems[name] = Wait(0, str(error))
        self.waits = {**problems, **made.waits}

    @property
    def by_command(self) -> list[str]:
        """Names of the searches that commands run without the queue, as of the newest tick."""
        return list(self._by_command)

    def forecast(self, new: QueueItem) -> Wait:
        """Return when a search would begin if it were submitted now, and what it would wait for.

        Args:
            new: the search, whose name no other has.
        """
        active = self._database.active()
        jobs = [self._job(each) for each in active if each.devices or each.wanted == "run"]
        jobs += [
            QueueItem(name, "", holds=self._searches.num_workers(name)) for name in self._by_command
        ]
        made = plan([*jobs, new], self._accounts.shares(), self._machine.number, self._now())
        free = Wait(0, "devices are free for it", self._now())
        return free if new.name in made.starts else made.waits[new.name]

    def seconds_of(self, tokens: int, devices: int) -> float | None:
        """Return the estimated duration of some training; None before anything was trained."""
        return self._accounts.seconds_of(tokens, devices)

    def is_driven(self, entry: QueuedSearch) -> bool:
        """Return True if a driver has a search, or was started for it."""
        return bool(entry.devices) or is_running(self._home.search(entry.name))

    # what is --------------------------------------------------------------------------------------

    def _has_lease(self) -> bool:
        """Return True if this is the server that runs the queue of the home."""
        if self._lease is not None and self._lease.is_lost:
            self._lease = None
        if self._lease is None:
            try:
                self._lease = claim_folder(self._home.root / FOLDER)
            except JournalInUse:
                return False
        return True

    def _settled(self, entry: QueuedSearch) -> QueuedSearch:
        """Return a search after its driver has ended, or was asked to end."""
        if is_running(self._home.search(entry.name)):
            reason = entry.asked or self._reason(entry)
            if entry.devices and reason:
                self._ask(entry, reason)
                return replace(entry, asked=reason)
            return entry
        if not entry.devices:
            status = self._searches.status(entry.name, fresh=True)
            has_finished = self._has_finished(entry.name, status)  # by hand
            return self._change(entry, wanted="") if has_finished else entry
        if self._may_begin(entry):
            return entry
        status = self._searches.status(entry.name, fresh=True)
        keeps = _kept(entry)
        if keeps and entry.wanted == "run" and not self._has_finished(entry.name, status):
            return self._begin(entry, entry.device_numbers[:keeps])  # before others get them
        return self._change(entry, **self._ended(entry, status))

    def _reason(self, entry: QueuedSearch) -> str:
        return entry.wanted if entry.wanted in ("pause", "stop") else ""

    def _may_begin(self, entry: QueuedSearch) -> bool:
        """Return True if the driver of a search may be about to take its lease."""
        driver = self._drivers.get(entry.name)
        if driver is not None:
            return driver.exit_status is None
        age = self._now() - entry.started
        return self._epoch(entry.name) == entry.epoch and 0 <= age < _STARTING_SECONDS

    def _has_finished(self, name: str, status: SearchStatus | None) -> bool:
        """Return True if a search has finished, and no edit waits for its next driver."""
        is_over = status is not None and status.state == "finished"
        return is_over and not edit_requests(self._home.search(name))

    def _has_begun(self, name: str) -> bool:
        """Return True if the journal of a search has its space: then nothing else is its space."""
        try:
            return self._searches.read(name, lambda search: True) is not None
        except TunerError:  # its driver says what is wrong
            return True

    def _epoch(self, name: str) -> int:
        """Return the epoch of the newest driver of a search; 0 without one."""
        holder = newest(self._home.search(name))
        return 0 if holder is None else holder.epoch

    def _ended(self, entry: QueuedSearch, status: SearchStatus | None) -> dict[str, object]:
        """Return what changes as a driver has ended."""
        driver = self._drivers.pop(entry.name, None)
        exit_status = driver.exit_status if driver else None
        changes: dict[str, object] = {"devices": "", "asked": ""}
        if self._has_finished(entry.name, status):
            return {**changes, "wanted": ""}
        if entry.wanted != "run" or entry.asked == "yield":
            return changes
        epoch = self._epoch(entry.name)
        was_asked = stop_request(self._home.search(entry.name), epoch) is not None
        if epoch > entry.epoch and not entry.asked and was_asked:
            return {**changes, "wanted": "stop"}  # by 'tuner stop'
        has_news = status is not None and (status.newest or 0.0) > entry.started
        attempts = 0 if has_news else entry.attempts + 1
        if exit_status == _BAD_INPUT or attempts >= _MOST_ATTEMPTS:
            return {**changes, "wanted": "", "problem": self._last_words(entry.name)}
        return {**changes, "attempts": attempts}

    def _last_words(self, name: str) -> str:
        """Return the last line that the driver of a search has printed."""
        try:
            with open(self._home.open_log(name), "rb") as file:  # noqa: PTH123 - a descriptor
                file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except (OSError, TunerError):
            lines = []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else "its driver died without a word"

    def _outside(self, entries: Mapping[str, QueuedSearch]) -> list[str]:
        """Return the searches that commands run without the queue."""
        if not self._scanned or time.monotonic() - self._scanned > _SCAN_SECONDS:
            self._by_command, self._scanned = self._searches.names(), time.monotonic()
        self._by_command = [
            name for name in self._by_command
            if (name not in entries or not entries[name].devices)
            and is_running(self._home.search(name))
        ]  # fmt: skip
        return self._by_command

    def _job(self, entry: QueuedSearch) -> QueueItem:
        holds = len(entry.device_numbers)
        status = self._searches.status(entry.name, fresh=True)
        left = status.seconds_left if status is not None and holds else None
        if left is None:
            trained = status.tokens if status is not None else 0
            left = self._accounts.seconds_of(entry.expected_tokens - trained, entry.wants)
        return QueueItem(
            entry.name, entry.owner, Priority(entry.priority), entry.place,
            min(entry.wants, max(entry.least, self._machine.number)), entry.least, holds,
            entry.started, left, bool(entry.asked), _kept(entry),
        )  # fmt: skip

    def _free_numbers(self, holders: Sequence[QueuedSearch]) -> list[int]:
        used = {number for entry in holders for number in entry.device_numbers}
        return [number for number in range(self._machine.number) if number not in used]

    # what is done ---------------------------------------------------------------------------------

    def _change(self, entry: QueuedSearch, **values: object) -> QueuedSearch:
        self._database.change(entry.name, **values)
        return replace(entry, **values)  # type: ignore[arg-type]

    def _ask(self, entry: QueuedSearch, reason: str) -> None:
        """Ask the driver of a search to end after the reports under way."""
        if entry.asked != reason:
            self._database.change(entry.name, asked=reason)
        folder = self._home.search(entry.name)
        if (holder := newest(folder)) is not None:
            request_stop(folder, holder, StopRequest.SOON)

    def _begin(self, entry: QueuedSearch, numbers: Sequence[int]) -> QueuedSearch:
        """Start the driver of a search; return the search with its devices."""
        name, arguments = entry.name, ["--resume", entry.name]
        file, has_begun = space_file(self._home, entry.name), self._has_begun(entry.name)
        if entry.space_text and not (has_begun and _has(file, entry.space_text)):
            keep_space(self._home, name, entry.space_text)
            arguments = ["--name", name, "--space", str(file), *naming(file, entry.space_text)]
        entry = self._change(
            entry, devices=_text_of(numbers), asked="", started=self._now(),
            epoch=self._epoch(name),
        )  # fmt: skip
        self._drivers[name] = self._start(
            name, self._home, [*arguments, *self._machine.arguments(numbers)],
            self._machine.environment(numbers),
        )  # fmt: skip
        return entry


def _text_of(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _kept(entry: QueuedSearch) -> int:
    """Return the number of devices on which a search begins again when its driver has ended."""
    if entry.asked == "edit":
        return len(entry.device_numbers)
    return int(entry.asked.removeprefix(_KEEP)) if entry.asked.startswith(_KEEP) else 0


def _has(file: Path, text: str) -> bool:
    """Return True if a file has a text: a driver was started with it."""
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def keep_space(home: Home, name: str, text: str) -> None:
    """Write the text of the space that a search was told last."""
    with replacing(space_file(home, name), durable=True) as file:
        file.write(text.encode())


def space_file(home: Home, name: str) -> Path:
    """Return the path of the space of a submitted search."""
    return home.root / FOLDER / f"{name}.yaml"
