"""What is in no journal: the queue, users, their tokens, logins and use, the audit log.

SQLite by default, on a local disk and in WAL mode, so that readers never wait; Postgres by URL.
Losing the database costs the queue, never a result. Every method is one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, SQLAlchemyError

from tuner.errors import TunerError
from tuner.home.formats import FORMAT, newer
from tuner.serve.records import AuditLine, Login, QueuedSearch, Use, User
from tuner.texts.secrets import masked

Kind = TypeVar("Kind")

_DAMAGED = ("malformed", "not a database")
_META = MetaData()
_FORMATS = Table("serve_format", _META, Column("format", Integer, primary_key=True))
_SEARCHES = Table(
    "serve_searches", _META,
    Column("name", String(200), primary_key=True),
    Column("owner", String(100), nullable=False, index=True),
    Column("visibility", String(10), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("place", Float, nullable=False),
    Column("submitted", Float, nullable=False),
    Column("space_hash", String(64), nullable=False, index=True),
    Column("space_text", Text, nullable=False),
    Column("wants", Integer, nullable=False),
    Column("least", Integer, nullable=False),
    Column("expected_tokens", BigInteger, nullable=False),
    Column("wanted", String(10), nullable=False, index=True),
    Column("asked", String(10), nullable=False),
    Column("devices", Text, nullable=False),
    Column("started", Float, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("idempotency_key", String(200), nullable=True),
    UniqueConstraint("owner", "idempotency_key"),
)  # fmt: skip
_USERS = Table(
    "serve_users", _META,
    Column("name", String(100), primary_key=True),
    Column("role", String(10), nullable=False),
    Column("team", String(100), nullable=False),
    Column("token_id", String(32), nullable=False, unique=True),
    Column("token_hash", String(64), nullable=False),
    Column("weight", Float, nullable=False),
    Column("most_searches", Integer),
    Column("most_devices", Integer),
    Column("most_tokens", BigInteger),
)  # fmt: skip
_LOGINS = Table(
    "serve_logins", _META,
    Column("secret_hash", String(64), primary_key=True),
    Column("token_id", String(32), nullable=False),
    Column("expires", Float, nullable=False),
)  # fmt: skip
_USE = Table(
    "serve_use", _META,
    Column("user", String(100), primary_key=True),
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("day", String(10), nullable=False),
    Column("tokens", BigInteger, nullable=False),
)  # fmt: skip
_AUDIT = Table(
    "serve_audit", _META,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("user", String(100), nullable=False),
    Column("action", String(40), nullable=False),
    Column("search", String(200), nullable=False),
    Column("detail", Text, nullable=False),
)  # fmt: skip


class Database:
    """The database of a server.

    Args:
        url: URL of SQLAlchemy.

    Attributes:
        was_damaged: path of a damaged database that was set aside; None if it was sound.
        num_changes: number of changes by this process, by which answers are known to be old.

    Raises:
        TunerError: if it cannot be used, or a newer version of tuner made it.
    """

    def __init__(self, url: str) -> None:
        self.was_damaged: Path | None = None
        self.num_changes = 0
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise TunerError(
                f"--database must be a URL such as postgresql://user@host/tuner, got {url}"
            ) from error
        self._shown = masked(self._url.render_as_string(hide_password=True))
        try:
            self._engine = self._opened()
        except DatabaseError as error:
            if not self._is_damaged(error):
                raise self._error(error) from error
            self.was_damaged = self._set_aside()
            self._engine = self._opened()
        except (SQLAlchemyError, ImportError) as error:
            raise self._error(error) from error

    @classmethod
    def in_folder(cls, folder: Path) -> Database:
        """Open the SQLite database of a server's folder, which is made if it is missing."""
        return cls(f"sqlite:///{folder / 'queue.db'}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # searches -----------------------------------------------------------------------------------

    def add(self, search: QueuedSearch) -> bool:
        """Add a search; return False if its name or its idempotency key is taken."""
        try:
            with self._changing() as connection:
                connection.execute(insert(_SEARCHES).values(_values(search)))
        except IntegrityError:
            return False
        return True

    def searches(self) -> list[QueuedSearch]:
        """Return all searches without their spaces, in the order in which they were submitted."""
        columns = [each for each in _SEARCHES.c if each is not _SEARCHES.c.space_text]
        order = (_SEARCHES.c.submitted, _SEARCHES.c.name)
        with self._begun() as connection:
            rows = connection.execute(select(*columns).order_by(*order)).all()
        return [QueuedSearch(**row._mapping) for row in rows]

    def names(self) -> list[str]:
        """Return the names of all searches."""
        with self._begun() as connection:
            return list(connection.execute(select(_SEARCHES.c.name)).scalars())

    def active(self) -> list[QueuedSearch]:
        """Return the searches that shall run, or have devices."""
        where = (_SEARCHES.c.wanted == "run") | (_SEARCHES.c.devices != "")
        with self._begun() as connection:
            rows = connection.execute(select(_SEARCHES).where(where)).all()
        return [_made(QueuedSearch, row) for row in rows]

    def search(self, name: str) -> QueuedSearch | None:
        """Return a search; None if nobody has submitted it."""
        with self._begun() as connection:
            row = connection.execute(select(_SEARCHES).where(_SEARCHES.c.name == name)).first()
        return None if row is None else _made(QueuedSearch, row)

    def equal(self, space_hash: str) -> list[QueuedSearch]:
        """Return the searches of a space, the newest first."""
        where = select(_SEARCHES).where(_SEARCHES.c.space_hash == space_hash)
        with self._begun() as connection:
            rows = connection.execute(where.order_by(_SEARCHES.c.submitted.desc())).all()
        return [_made(QueuedSearch, row) for row in rows]

    def of_key(self, owner: str, key: str) -> QueuedSearch | None:
        """Return the search that a user submitted with an idempotency key."""
        where = (_SEARCHES.c.owner == owner) & (_SEARCHES.c.idempotency_key == key)
        with self._begun() as connection:
            row = connection.execute(select(_SEARCHES).where(where)).first()
        return None if row is None else _made(QueuedSearch, row)

    def change(self, name: str, **values: Any) -> bool:
        """Change fields of a search; return False if there is none of this name."""
        with self._changing() as connection:
            changed = update(_SEARCHES).where(_SEARCHES.c.name == name).values(values)
            return connection.execute(changed).rowcount > 0

    def remove(self, name: str) -> None:
        """Forget a search."""
        with self._changing() as connection:
            connection.execute(delete(_SEARCHES).where(_SEARCHES.c.name == name))

    # users --------------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """Return all users, by name."""
        with self._begun() as connection:
            rows = connection.execute(select(_USERS).order_by(_USERS.c.name)).all()
        return [_made(User, row) for row in rows]

    def put_user(self, user: User) -> bool:
        """Add a user, or replace one; return True if it is new."""
        with self._changing() as connection:
            same = _USERS.c.name == user.name
            is_new = connection.execute(delete(_USERS).where(same)).rowcount == 0
            connection.execute(insert(_USERS).values(_values(user)))
        return is_new

    def remove_user(self, name: str) -> bool:
        """Remove a user; return False if there is none of this name."""
        with self._changing() as connection:
            return connection.execute(delete(_USERS).where(_USERS.c.name == name)).rowcount > 0

    def use(self) -> dict[str, Use]:
        """Return what each user has used."""
        with self._begun() as connection:
            return {row.user: _made(Use, row) for row in connection.execute(select(_USE))}

    def put_use(self, uses: Sequence[Use]) -> None:
        """Note what users have used."""
        with self._changing() as connection:
            for use in uses:
                connection.execute(delete(_USE).where(_USE.c.user == use.user))
                connection.execute(insert(_USE).values(_values(use)))

    # logins -------------------------------------------------------------------------------------

    def add_login(self, login: Login) -> None:
        """Add a login, and forget those that have expired."""
        with self._begun() as connection:
            connection.execute(delete(_LOGINS).where(_LOGINS.c.expires < time.time()))
            connection.execute(insert(_LOGINS).values(_values(login)))

    def login(self, secret_hash: str) -> Login | None:
        """Return a login that has not expired; None if there is none of this hash."""
        same = (_LOGINS.c.secret_hash == secret_hash) & (_LOGINS.c.expires >= time.time())
        with self._begun() as connection:
            row = connection.execute(select(_LOGINS).where(same)).first()
        return None if row is None else _made(Login, row)

    def remove_login(self, secret_hash: str) -> None:
        """Forget a login."""
        with self._begun() as connection:
            connection.execute(delete(_LOGINS).where(_LOGINS.c.secret_hash == secret_hash))

    # audit --------------------------------------------------------------------------------------

    def note(self, user: str, action: str, search: str = "", detail: str = "") -> None:
        """Add a line to the audit log."""
        line = AuditLine(time.time(), user, action, search, detail)
        with self._changing() as connection:
            connection.execute(insert(_AUDIT).values(_values(line)))

    def audit(self, most: int) -> list[AuditLine]:
        """Return the newest lines of the audit log, the newest first."""
        with self._begun() as connection:
            newest = select(_AUDIT).order_by(_AUDIT.c.number.desc()).limit(most)
            return [_made(AuditLine, row) for row in connection.execute(newest)]

    # ---------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """Begin a transaction that changes something."""
        with self._begun() as connection:
            yield connection
        self.num_changes += 1

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """Begin a transaction, and commit it at the end of the block."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise self._error(error) from error

    def _opened(self) -> Engine:
        engine = create_engine(self._url, pool_pre_ping=self._url.get_backend_name() != "sqlite")
        if self._url.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        _META.create_all(engine)
        with engine.begin() as connection:
            row = connection.execute(select(_FORMATS)).first()
            if row is None:
                connection.execute(insert(_FORMATS).values(format=FORMAT))
        if row is not None and (refusal := newer(f"the database {self._shown}", row.format)):
            raise TunerError(refusal)
        return engine

    def _is_damaged(self, error: DatabaseError) -> bool:
        is_sqlite = self._url.get_backend_name() == "sqlite"
        return is_sqlite and any(word in str(error.orig) for word in _DAMAGED)

    def _set_aside(self) -> Path:
        """Rename a damaged database; return its new path."""
        path = Path(str(self._url.database))
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return aside

    def _error(self, error: Exception) -> TunerError:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        return TunerError(f"the database {self._shown} cannot be used: {reason}")


def _prepare_sqlite(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _values(item: object) -> Mapping[str, Any]:
    return {each.name: getattr(item, each.name) for each in fields(item)}  # type: ignore[arg-type]


def _made(kind: type[Kind], row: Row[Any]) -> Kind:
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(row, name) for name in names})
