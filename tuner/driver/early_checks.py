"""Checks before a search starts, so that what cannot work is refused within seconds."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from model.corpus.corpus import Corpus
from tuner.errors import StoreError, TunerError
from tuner.home.home import Home
from tuner.space.conflicts import check_contexts, conflicts
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.storage.storage import Storage
from tuner.tracking.record import Record
from tuner.tracking.store import check_write
from tuner.trained.warm_start import facts_of
from tuner.workers.devices import check_devices

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart

_SQLITE = "sqlite:///"


def check_early(space: SearchSpace, home: Home, *, is_cluster: bool = False) -> Record | None:
    """Check tracking store, storage and devices of a search, without Ray.

    Args:
        space: search space.
        home: home of the search.
        is_cluster: True if a Ray cluster trains, whose devices only Ray knows.

    Returns:
        The tracking store, if it is on a server. A local file is opened while Ray starts, because
        MLflow takes seconds to load and little can be wrong with the file.

    Raises:
        TunerError: if this machine lacks the devices.
        StoreError: if the store cannot be used or written.
        StorageError: if `engine.storage` cannot be used.
    """
    if space.engine.storage is not None:
        Storage(space.engine.storage).check()
    if not is_cluster:
        check_devices(space)
    if home.tracking_uri.startswith(_SQLITE):
        return None
    record = Record(home.tracking_uri)
    check_write(record.client, home.tracking_uri, space.name)
    return record


def check_facts(space: SearchSpace, corpus: Corpus, start: WarmStart | None) -> DataFacts:
    """Return the facts of the data, after checking that the complete space fits them."""
    facts = facts_of(space, corpus, start)
    if start is not None:
        facts = replace(facts, init_from=start.init_from)
    check_contexts(space, facts)
    # Reading the file has reported all conflicts but those that depend on the number of tokens.
    for _, message in conflicts(space, facts.train_size):
        raise TunerError(f"the space {space.name} does not fit its data: {message}")
    return facts


def check_home(home: Home) -> None:
    """Check that what is in a home, perhaps another user's, can be written.

    Raises:
        StoreError: if it cannot, or its tracking store cannot be used.
    """
    for path in (home.search(""), home.corpora, home.starts, home.artifacts):
        if path.exists() and not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
            raise StoreError(
                f"cannot write to {path}; make it a folder that you can write, or choose another "
                f"home with --home"
            )
    if home.tracking_uri.startswith(_SQLITE):
        _check_database(Path(home.tracking_uri.removeprefix(_SQLITE)), home.tracking_uri)


def _check_database(path: Path, uri: str) -> None:
    """Check that a file is a database that can be written, if it exists."""
    if not path.exists():
        return
    reason = None if os.access(path, os.W_OK) else "it cannot be written"
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        ) as db:
            db.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):  # such as a lock of another process
            reason = str(error)
    if reason is not None:
        raise StoreError(f"the tracking store {uri} cannot be used: {reason}")
