"""Rows of the database: searches that were submitted, users, logins, their use, changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QueuedSearch:
    """A search that was submitted to the server.

    Attributes:
        name: name of the search.
        owner: name of the user who submitted it.
        visibility: who else sees it: `private` nobody, `team` the owner's team, `public` everybody.
        priority: number of its class.
        place: place among the searches of its class and owner.
        submitted: time at which it was submitted, in seconds since the epoch.
        space_hash: digest of its space.
        space_text: text of the file of its space; empty if it was begun without the server.
        wants: number of devices that it asks for.
        least: number of devices that are enough for it.
        expected_tokens: estimate of its training tokens.
        wanted: what its users want: `run`, `pause` or `stop`; empty after its end.
        asked: why its driver was asked to end: `pause`, `stop`, `yield` (to a higher class),
            `edit` (it begins again at once, with another space) or `keep N` (likewise, on N
            devices); empty if it was not.
        devices: numbers of the devices that it has, apart by commas; empty if it has none.
        started: time at which its newest driver was started; 0 if none was.
        epoch: epoch of the newest driver before that one.
        attempts: number of drivers that died without a new event of the journal.
        problem: why it failed; empty if it has not.
        tokens: training tokens that its owner was charged for.
        idempotency_key: key that the client gave to its request.
    """

    name: str
    owner: str
    space_hash: str = ""
    space_text: str = ""
    visibility: str = "team"
    priority: int = 1
    place: float = 0.0
    submitted: float = 0.0
    wants: int = 1
    least: int = 1
    expected_tokens: int = 0
    wanted: str = "run"
    asked: str = ""
    devices: str = ""
    started: float = 0.0
    epoch: int = 0
    attempts: int = 0
    problem: str = ""
    tokens: int = 0
    idempotency_key: str | None = None

    @property
    def device_numbers(self) -> tuple[int, ...]:
        """Numbers of the devices that it has."""
        return tuple(int(number) for number in self.devices.split(",") if number)


@dataclass(frozen=True)
class User:
    """A user of the server.

    Attributes:
        name: name of the user.
        role: `viewer`, `user` or `admin`.
        team: name of the team.
        token_id: first part of the token, by which the user is found.
        token_hash: SHA-256 of the token.
        weight: share of the machines, relative to those of the others.
        most_searches: most searches that run at one time; None for no limit.
        most_devices: most devices that they have together; None for no limit.
        most_tokens: most training tokens of a day; None for no limit.
    """

    name: str
    role: str
    token_id: str = ""
    token_hash: str = ""
    team: str = ""
    weight: float = 1.0
    most_searches: int | None = None
    most_devices: int | None = None
    most_tokens: int | None = None

    @property
    def is_disabled(self) -> bool:
        """True if the user has no token that works."""
        return not self.token_hash


@dataclass(frozen=True)
class Login:
    """A browser in which a user has logged in.

    Attributes:
        secret_hash: SHA-256 of the secret in the browser's cookie.
        token_id: first part of the token that was given; the login ends with the token.
        expires: when it ends, in seconds since the epoch.
    """

    secret_hash: str
    token_id: str
    expires: float


@dataclass(frozen=True)
class Use:
    """What a user has used.

    Attributes:
        user: name of the user.
        seconds: device-seconds of late, up to a time.
        at: the time.
        day: the day of the tokens, as 2026-11-25.
        tokens: training tokens of the day.
    """

    user: str
    seconds: float = 0.0
    at: float = 0.0
    day: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class AuditLine:
    """A change that somebody made.

    Attributes:
        at: the time, in seconds since the epoch.
        user: who made it.
        action: what was done.
        search: name of the search; empty if it was none.
        detail: what it was changed to.
    """

    at: float
    user: str
    action: str
    search: str
    detail: str
