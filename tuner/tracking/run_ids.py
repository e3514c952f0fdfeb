"""Reads names of searches, and which trials have runs, from the SQLite file of a local store.

MLflow has no function that reads some columns of a run, and takes seconds to load. Of the tables
this uses what a search by MLflow would use: `runs` that are active, and their `tags`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tuner.tracking.tags import Tag

_SQLITE = "sqlite:///"
_TIMEOUT_SECONDS = 30.0  # for a lock of the database
# newest first, so that of two runs of a trial the older one is kept, as among the records of MLflow
_QUERY = """
SELECT number.value, runs.run_uuid FROM runs
JOIN tags AS parent ON parent.run_uuid = runs.run_uuid AND parent.key = ? AND parent.value = ?
JOIN tags AS number ON number.run_uuid = runs.run_uuid AND number.key = ?
WHERE runs.lifecycle_stage = 'active' ORDER BY runs.start_time DESC
"""
_NAMES = """
SELECT DISTINCT name.value FROM runs
JOIN tags AS name ON name.run_uuid = runs.run_uuid AND name.key = ?
WHERE runs.lifecycle_stage = 'active'
"""

_FINISHED = """
SELECT 1 FROM tags AS spec
JOIN tags AS status ON status.run_uuid = spec.run_uuid AND status.key = ? AND status.value = ?
JOIN tags AS search ON search.run_uuid = spec.run_uuid AND search.key = ? AND search.value != ?
WHERE spec.key = ? AND spec.value = ? LIMIT 1
"""


class NotReadable(Exception):  # noqa: N818 - the name states the problem
    """The store is no SQLite file with the tables of MLflow; ask MLflow."""


def read_run_ids(uri: str, parent_run: str) -> dict[int, str]:
    """Return the runs of the trials of a search: number → run id.

    Args:
        uri: URI of the store.
        parent_run: run id of the search.

    Raises:
        NotReadable: if the store cannot be read so.
    """
    rows = _rows(uri, _QUERY, (Tag.PARENT, parent_run, Tag.TRIAL))
    try:
        if not all(str(run).isalnum() for _, run in rows):  # an id becomes a part of commands
            raise NotReadable
        return {int(number): str(run) for number, run in rows}
    except (ValueError, TypeError) as error:
        raise NotReadable from error


def read_names(uri: str) -> set[str]:
    """Return the names of the searches of a store; none if its file does not exist yet.

    Raises:
        NotReadable: if the store cannot be read so.
    """
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
        return set()
    return {str(name) for (name,) in _rows(uri, _NAMES, (Tag.SEARCH,))}


def has_finished(uri: str, spec_hash: str, search: str) -> bool:
    """Return whether another search than `search` has a finished trial of a specification.

    A run that was deleted counts as well.

    Raises:
        NotReadable: if the store cannot be read so.
    """
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
        return False
    values = Tag.STATUS, "finished", Tag.SEARCH, search, Tag.SPEC_HASH, spec_hash
    return bool(_rows(uri, _FINISHED, values))


def _rows(uri: str, query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]]:
    path = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or not path.is_file():
        raise NotReadable
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute(f"PRAGMA busy_timeout = {round(1000 * _TIMEOUT_SECONDS)}")
            return database.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise NotReadable from error
