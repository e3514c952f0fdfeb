"""Places of the artifacts of a local store, as MLflow's SQLite database records them.

MLflow records absolute paths. After a home was moved, or copied, they name its former place. MLflow
has no function that changes them, so this module changes the tables. It reads and writes nothing
but these columns:

    experiments.artifact_location       HOME/artifacts
    runs.artifact_uri                   HOME/artifacts/RUN/artifacts
    logged_models.artifact_location     HOME/artifacts/models/MODEL/artifacts
    model_versions.source, storage_location     the same
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuner.errors import StoreError

_TIMEOUT_SECONDS = 30.0  # for a lock of the database

# Columns with locations, all in tables with a rowid.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# Locations that tuner itself made: those of its runs, and of their experiments and models.
_OWN_RUNS = "SELECT run_uuid FROM tags WHERE key = 'tuner.kind'"
_OWN = (
    f"SELECT DISTINCT artifact_uri FROM runs WHERE run_uuid IN ({_OWN_RUNS})",
    f"SELECT DISTINCT artifact_location FROM experiments WHERE experiment_id IN "
    f"(SELECT experiment_id FROM runs WHERE run_uuid IN ({_OWN_RUNS}))",
    f"SELECT DISTINCT artifact_location FROM logged_models WHERE source_run_id IN ({_OWN_RUNS})",
)
# Path of a location of our own, from which the home follows.
_HOME_OF = re.compile(r"(?P<home>.+?)/artifacts(?:/(?:models/)?[\w-]+/artifacts)?", re.DOTALL)


def former_homes(database: Path, home: Path) -> list[Path]:
    """Return the places where a home was when its artifacts were recorded, apart from its present.

    Raises:
        StoreError: if the database cannot be read.
    """
    with _opened(database) as connection:
        return sorted(_former_homes(connection, home))


def correct_locations(database: Path, home: Path) -> int:
    """Correct all locations below former places of a home, in one transaction.

    A file that is still at the former place and not at the present one did not move: its location
    is not changed.

    Args:
        database: SQLite database of MLflow.
        home: present place of the home.

    Returns:
        Number of corrected locations; 0 if another process was faster.

    Raises:
        StoreError: if the database cannot be written, or its tables are not those of MLflow 3.
    """
    count = 0
    with _opened(database) as connection:
        connection.execute("BEGIN IMMEDIATE")  # waits for other processes that write
        formers = sorted(_former_homes(connection, home), key=lambda p: len(p.parts), reverse=True)
        if formers:
            _check_columns(connection, database, formers[0])
        for table, column in _COLUMNS if formers else ():
            changes = []
            for row, location in connection.execute(f"SELECT rowid, {column} FROM {table}"):
                corrected = _corrected(location, formers, home)
                if corrected is not None:
                    changes.append((corrected, row))
            connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
            count += len(changes)
        connection.execute("COMMIT")
    return count


def check_locations(database: Path, home: Path) -> None:
    """Check that the artifacts of all searches of a local store lie in its home.

    Raises:
        StoreError: if a location is elsewhere, where tuner must not read or write.
    """
    with _opened(database) as connection:
        for location in _other_locations(connection, home):
            if not is_inside(location, home):
                raise StoreError(
                    f"{database} names {location} as a place of artifacts, outside of its home "
                    f"{home}, where nothing is read or written; move the files to "
                    f"{home / 'artifacts'}, or use the home that they belong to"
                )


def is_inside(location: str, home: Path) -> bool:
    """Return True if a location of artifacts lies in a home; links in its path are followed."""
    path = _path(location)
    if path is None:
        return False
    if ".." not in path.parts and path.is_relative_to(home):
        return True  # also where a link in the home leads elsewhere: its owner made the link
    match = _HOME_OF.fullmatch(str(path))
    return (match is not None and _is_same(Path(match["home"]), home)) or (
        path.resolve().is_relative_to(home.resolve())
    )


def copy_database(database: Path, copy: Path) -> None:
    """Copy a database as it was at one moment.

    Raises:
        StoreError: if it cannot be read.
    """
    with _opened(database) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database, and roll back what is not committed."""
    # also to read: after a kill, SQLite first repairs the database
    is_writable = os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)
    try:
        connection = sqlite3.connect(
            f"{database.absolute().as_uri()}?mode={'rw' if is_writable else 'ro'}",
            uri=True,
            timeout=_TIMEOUT_SECONDS,
            isolation_level=None,
        )
        with closing(connection):
            yield connection
    except sqlite3.Error as error:
        raise StoreError(
            f"the tracking store {database} cannot be used: {error}; check it with 'tuner doctor'"
        ) from error


def _check_columns(connection: sqlite3.Connection, database: Path, former: Path) -> None:
    """Raise StoreError if the database lacks a column that is to be corrected."""
    for table, column in _COLUMNS:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if column not in columns:
            raise StoreError(
                f"the home was at {former} before, and its {database.name} has no {table}."
                f"{column}: another version of MLflow made it, and its paths cannot be corrected; "
                f"move the home back to {former}"
            )


def _other_locations(connection: sqlite3.Connection, home: Path) -> Iterator[str]:
    """Yield the locations of our own that do not begin with the path of the home."""
    inside = (f"{home.as_uri()}/", f"{home}/")  # compared as text: there may be many runs
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"runs", "tags", "experiments", "logged_models"} <= names:
        return  # MLflow explains what is wrong with the database
    for query in _OWN:
        for (location,) in connection.execute(query):
            if location and (not location.startswith(inside) or ".." in location):
                yield location


def _former_homes(connection: sqlite3.Connection, home: Path) -> set[Path]:
    paths = map(_path, _other_locations(connection, home))
    matches = [_HOME_OF.fullmatch(str(path)) for path in paths if path is not None]
    places = {Path(match["home"]) for match in matches if match is not None}
    return {place for place in places if not _is_same(place, home)}


def _is_same(place: Path, home: Path) -> bool:
    """Return True if two paths lead to the same folder, over links and mounts too."""
    if place == home:
        return True
    try:
        return place.samefile(home)
    except OSError:  # there is nothing any more
        return place.resolve() == home.resolve()


def _corrected(location: str | None, formers: list[Path], home: Path) -> str | None:
    """Return the present location of what moved along with the home; else None."""
    path = _path(location) if location else None
    former = next((f for f in formers if path is not None and path.is_relative_to(f)), None)
    if path is None or former is None or ".." in path.relative_to(former).parts:
        return None
    moved = home / path.relative_to(former)
    if path.exists() and not moved.exists():
        return None
    return moved.as_uri() if str(location).startswith("file:") else str(moved)


def _path(location: str) -> Path | None:
    """Return the absolute path of a location on this machine; None if it is elsewhere."""
    if location.startswith("/"):
        return Path(location)
    parts = urlsplit(location)
    is_local = parts.scheme == "file" and parts.netloc in {"", "localhost"}
    return Path(unquote(parts.path)) if is_local and parts.path.startswith("/") else None
