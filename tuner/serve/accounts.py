"""What users have used, charged while their searches run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tuner.jobs.status import SearchStatus
from tuner.serve.database import Database
from tuner.serve.queue import UserShare
from tuner.serve.records import QueuedSearch, Use

_WRITE_SECONDS = 15.0  # of use that a kill may lose
_LONGEST_SECONDS = 60.0  # between two ticks that count; the machine slept


class Accounts:
    """The use of all users.

    Args:
        database: database of the server.
        now: clock in seconds since the epoch.
    """

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, now
        self._uses = database.use()
        self._dirty: set[str] = set()
        self._ticked = self._written = time.monotonic()
        self._rate: float | None = None  # tokens per second of a device, of late

    def charge(
        self, holders: Sequence[QueuedSearch], statuses: Mapping[str, SearchStatus | None]
    ) -> None:
        """Charge the owners of searches for the time since the last call.

        Args:
            holders: searches that have devices.
            statuses: how far they are.
        """
        now, ticked = self._now(), time.monotonic()
        seconds, self._ticked = min(ticked - self._ticked, _LONGEST_SECONDS), ticked
        today = time.strftime("%Y-%m-%d", time.gmtime(now))
        for entry in holders:
            count, status = len(entry.device_numbers), statuses.get(entry.name)
            self._use(entry.owner, seconds * count, now, today)
            if status is not None and status.tokens_per_second:
                rate = status.tokens_per_second / count
                self._rate = rate if self._rate is None else 0.9 * self._rate + 0.1 * rate
            if status is not None and status.tokens > entry.tokens:
                # first the search: a kill in between charges too little, never twice
                self._database.change(entry.name, tokens=status.tokens)
                use = self._uses[entry.owner]
                tokens = use.tokens + status.tokens - entry.tokens
                self._uses[entry.owner] = replace(use, tokens=tokens)
        if self._dirty and ticked - self._written > _WRITE_SECONDS:
            self._database.put_use([self._uses[user] for user in sorted(self._dirty)])
            self._dirty.clear()
            self._written = ticked

    def shares(self) -> dict[str, UserShare]:
        """Return the shares of all users."""
        today = time.strftime("%Y-%m-%d", time.gmtime(self._now()))
        users = {user.name: user for user in self._database.users()}
        shares = {}
        for name in users.keys() | self._uses.keys():
            use, user = self._uses.get(name, Use(name)), users.get(name)
            if user is None:
                shares[name] = UserShare(used=use.seconds, at=use.at)
                continue
            spent = use.tokens if use.day == today else 0
            left = None if user.most_tokens is None else user.most_tokens - spent
            shares[name] = UserShare(
                user.weight, use.seconds, use.at, user.most_searches, user.most_devices, left
            )
        return shares

    def seconds_of(self, tokens: int, devices: int) -> float | None:
        """Return the estimated duration of some training; None before anything was trained."""
        return None if not self._rate else max(0, tokens) / (self._rate * devices)

    def _use(self, owner: str, seconds: float, now: float, today: str) -> None:
        use = self._uses.get(owner, Use(owner, at=now))
        charged = UserShare(used=use.seconds, at=use.at).charged(seconds, now)
        tokens = use.tokens if use.day == today else 0
        self._uses[owner] = Use(owner, charged.used, charged.at, today, tokens)
        self._dirty.add(owner)
