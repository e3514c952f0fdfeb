"""Who may do what: users with tokens and roles, and who sees which search.

A token is `tuner_ID_SECRET`. The database has its SHA-256, which is enough for 256 random bits; it
is found by its id and compared in constant time. A browser has a cookie instead, whose secret is
known likewise by its digest; as browsers send cookies unasked, each change needs a second secret,
which only pages of the server can read.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tuner.errors import RecordError, TunerError
from tuner.home.names import check_new_name
from tuner.serve.database import Database
from tuner.serve.records import Login, QueuedSearch, User
from tuner.texts.formatting import shown

ROLES = ("viewer", "user", "admin")
VISIBILITIES = ("private", "team", "public")
LOGIN_SECONDS = 7 * 86_400.0
_PREFIX = "tuner"
_SHORTEST_TOKEN = 32
_FRESH_SECONDS = 1.0  # for which users are known without asking the database
_MOST_BAD, _BAD_SECONDS = 20, 60.0  # bad tokens of one address
_MOST_ADDRESSES = 10_000


class Refused(TunerError):  # noqa: N818 - the name states the problem
    """A request that is refused.

    Args:
        status: status of HTTP.
        message: one sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """The users of a server.

    Args:
        database: database of the server.
        is_open: True if whoever reaches the server may use it while there are no users: it listens
            on loopback only.
        clock: seconds since any moment.
    """

    def __init__(
        self,
        database: Database,
        *,
        is_open: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._is_open, self._clock = database, is_open, clock
        self._users: dict[str, User] = {}
        self._read = -math.inf
        self._bad: dict[str, tuple[int, float]] = {}  # address → bad tokens, since

    def identify(self, authorization: str | None, address: str) -> User:
        """Return the user of a request.

        Args:
            authorization: header `Authorization`.
            address: address of the client.

        Raises:
            Refused: if the token is missing or bad, or too many bad ones came from the address.
        """
        if (local := self.local()) is not None:
            return local
        scheme, _, token = (authorization or "").partition(" ")
        if not authorization:
            raise Refused(401, "a token is missing in the header Authorization: Bearer TOKEN")
        return self._of_token(token if scheme.lower() == "bearer" else "", address)

    def local(self) -> User | None:
        """Return the user for whom the server is open; None if it asks for tokens."""
        return User(local_user(), "admin") if self._is_open and not self._fresh() else None

    def log_in(self, token: str, address: str) -> str:
        """Return a secret for the cookie of a browser, by which its user is known from now on.

        Raises:
            Refused: as `identify`.
        """
        user = self._of_token(token, address)
        secret = secrets.token_urlsafe(32)
        login = Login(_hash_of(secret), user.token_id, time.time() + LOGIN_SECONDS)
        self._database.add_login(login)
        return secret

    def logged_in(self, secret: str, pledge: str | None = None) -> User:
        """Return the user of a browser.

        Args:
            secret: secret of its cookie.
            pledge: what the request says to be `pledge_of`; None if it changes nothing.

        Raises:
            Refused: if it is not logged in, or its page did not ask for the change.
        """
        if (local := self.local()) is not None:
            return local
        login = self._database.login(_hash_of(secret))
        user = self._fresh().get(login.token_id) if login else None
        if user is None:
            raise Refused(401, "log in again")
        if pledge is not None and not hmac.compare_digest(pledge.encode(), pledge_of(secret)):
            raise Refused(403, "the page is too old for this; load it again")
        return user

    def log_out(self, secret: str) -> None:
        """End the login of a browser."""
        self._database.remove_login(_hash_of(secret))

    def _of_token(self, token: str, address: str) -> User:
        """Return the user of a token; raise Refused if it is none."""
        user = self._fresh().get(_id_of(token))
        if hmac.compare_digest(user.token_hash if user else "", _hash_of(token)) and user:
            return user
        self._count_bad(address)
        raise Refused(401, "the token is not valid")

    @property
    def is_fresh(self) -> bool:
        """True if `identify` will not ask the database."""
        return self._clock() - self._read < _FRESH_SECONDS

    def look_again(self) -> None:
        """Ask the database at the next request: this server has just changed the users."""
        self._read = -math.inf

    def has_users(self) -> bool:
        """Return True if there are users."""
        return bool(self._fresh())

    def _fresh(self) -> dict[str, User]:
        """Return the users by the ids of their tokens."""
        if not self.is_fresh:
            now = self._clock()
            self._users = {user.token_id: user for user in self._database.users()}
            self._read = now
        return self._users

    def _count_bad(self, address: str) -> None:
        now = self._clock()
        count, since = self._bad.get(address, (0, now))
        if now - since > _BAD_SECONDS:
            count, since = 0, now
        if len(self._bad) >= _MOST_ADDRESSES:
            self._bad.clear()
        self._bad[address] = count + 1, since
        if count >= _MOST_BAD:
            raise Refused(429, "too many bad tokens; wait a minute")


def new_user(
    database: Database,
    name: str,
    role: str,
    team: str = "",
    by: str = "operator",
    **limits: object,
) -> str:
    """Add a user, or give one a new token; return the token, which nobody can read again.

    Args:
        database: database of the server.
        name: name of the user.
        role: one of `ROLES`.
        team: team of the user.
        by: who adds the user.
        limits: `weight`, `most_searches`, `most_devices` and `most_tokens` of `User`.

    Raises:
        TunerError: if the name is none, there is no such role, or no admin would be left.
    """
    check_new_name(name)
    if role not in ROLES:
        raise TunerError(f"--role must be one of {', '.join(ROLES)}, got {role}")
    token, user = _with_token(User(name, role, team=team))
    user = replace(user, **limits)  # type: ignore[arg-type]
    _check_admin(database, user)
    is_new = database.put_user(user)
    database.note(by, "add user" if is_new else "new token", detail=f"{name}, {role}")
    return token


def put_users_of(database: Database, path: Path) -> int:
    """Let the users of a file come in, with its roles, teams and tokens; limits stay.

    The file is JSON: `{"users": [{"name": "alice", "role": "user", "team": "nlp", "token":
    "tuner_…"}]}`, as a secret of Docker or Kubernetes is mounted. Users who are not in it stay.

    Args:
        database: database of the server.
        path: path of the file.

    Returns:
        Number of users that are new or have changed.

    Raises:
        TunerError: if it cannot be read, or an entry is none.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["users"]
        wanted = [(e["name"], e["role"], e.get("team", ""), e["token"].strip()) for e in entries]
    except OSError as error:
        raise TunerError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TunerError(
            f'{path} must be {{"users": [{{"name": …, "role": …, "team": …, "token": …}}]}}'
        ) from error
    before, changed = {user.name: user for user in database.users()}, 0
    for name, role, team, token in wanted:
        check_new_name(name)
        if role not in ROLES:
            raise TunerError(f"{path}: the role of {name} must be one of {', '.join(ROLES)}")
        if len(token) < _SHORTEST_TOKEN or not _id_of(token):
            raise TunerError(f"{path}: the token of {name} must be tuner_ID_SECRET, of random text")
        own = {"role": role, "team": team, "token_id": _id_of(token), "token_hash": _hash_of(token)}
        user = replace(before.get(name, User(name, role)), **own)
        if user != before.get(name):
            changed += 1
            database.put_user(user)
            database.note("operator", "user of the file", detail=f"{name}, {role}")
    return changed


def new_token(database: Database, name: str, by: str) -> str:
    """Give a user another token, and return it; the old one ends, and a disabled user may come in.

    Raises:
        RecordError: if there is no such user.
    """
    token, user = _with_token(_user(database, name))
    database.put_user(user)
    database.note(by, "new token", detail=name)
    return token


def change_user(database: Database, name: str, by: str, **values: object) -> User:
    """Change role, team or limits of a user; return the user.

    Raises:
        RecordError: if there is no such user.
        Refused: if no admin would be left.
    """
    user = replace(_user(database, name), **values)  # type: ignore[arg-type]
    _check_admin(database, user)
    database.put_user(user)
    database.note(by, "change user", detail=f"{name}: {', '.join(values)}")
    return user


def disable_user(database: Database, name: str, by: str) -> User:
    """Let no token of a user work any more; searches and limits stay.

    Raises:
        RecordError, Refused: as `change_user`.
    """
    user = replace(_user(database, name), token_id=secrets.token_hex(8), token_hash="")
    _check_admin(database, user)
    database.put_user(user)
    database.note(by, "disable user", detail=name)
    return user


def remove_user(database: Database, name: str, by: str) -> None:
    """Remove a user; the searches stay.

    Raises:
        RecordError, Refused: as `change_user`.
    """
    _check_admin(database, replace(_user(database, name), role="viewer"))
    database.remove_user(name)
    database.note(by, "remove user", detail=name)


def _user(database: Database, name: str) -> User:
    found = next((user for user in database.users() if user.name == name), None)
    if found is None:
        raise RecordError(f"there is no user {shown(name)}")
    return found


def _with_token(user: User) -> tuple[str, User]:
    """Return a new token, and the user who has it."""
    token = f"{_PREFIX}_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    return token, replace(user, token_id=_id_of(token), token_hash=_hash_of(token))


def _check_admin(database: Database, changed: User) -> None:
    """Raise Refused if there was an admin, and none is left after a change of a user.

    Args:
        database: database of the server.
        changed: the user, as changed.
    """
    before = {user.name: user for user in database.users()}

    def has_admin(users: Mapping[str, User]) -> bool:
        return any(each.role == "admin" and not each.is_disabled for each in users.values())

    if has_admin(before) and not has_admin({**before, changed.name: changed}):
        raise Refused(409, f"{changed.name} is the last admin; make another user one before")


def pledge_of(secret: str) -> bytes:
    """Return what each change must repeat that a logged-in browser asks for (against CSRF)."""
    return (
        hmac.new(secret.encode("utf-8", "surrogateescape"), b"csrf", "sha256").hexdigest().encode()
    )


def may_read(user: User, search: QueuedSearch | None, owner: User | None) -> bool:
    """Return True if a user may look at a search; one of no owner was begun by a command.

    Args:
        user: who asks.
        search: the search, as submitted; None if it was not.
        owner: its owner, if that is a user still.
    """
    if user.role == "admin" or search is None or search.owner == user.name:
        return True
    is_team = search.visibility == "team" and owner is not None and owner.team == user.team
    return search.visibility == "public" or is_team


def may_change(user: User, search: QueuedSearch | None) -> bool:
    """Return True if a user may pause, stop, edit or delete a search."""
    if user.role == "admin":
        return True
    return user.role == "user" and search is not None and search.owner == user.name


def local_user() -> str:
    """Return the name of who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"


def _id_of(token: str) -> str:
    parts = token.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == _PREFIX else ""


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
