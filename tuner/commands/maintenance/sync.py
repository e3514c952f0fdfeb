"""`tuner sync`: send what MLflow, the storage and receivers of messages missed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from tuner.commands.output import consoles, home_of, print_json, say
from tuner.driver.sync import sync
from tuner.errors import JournalInUse, StoreError, TunerError
from tuner.home.home import Home
from tuner.journal.journal import JOURNAL_FILE, JournalTail
from tuner.notify.projection import notified
from tuner.notify.receivers import receivers_of


def run_sync(options: argparse.Namespace) -> int:
    """Send what MLflow, the storage and receivers of messages missed."""
    results, _ = consoles(options)
    print_json(options, print_synced(results, home_of(options, create=False), options.search))
    return 0


def print_synced(console: Console, home: Home, name: str | None) -> dict[str, Any]:
    """Sync one search, or all searches of a home, and print what was uploaded.

    Args:
        console: output.
        home: the searches.
        name: of the search; None for all.

    Returns:
        The object of --json: the store, and the number of uploads by name of the search.

    Raises:
        TunerError: if a search cannot be synced. Of several searches, the others are synced first.
    """
    receivers = receivers_of(())
    uploads: dict[str, Any] = {}
    errors: list[str] = []
    for each in [name] if name else _names(home):
        try:
            done = sync(home, each)
        except TunerError as error:
            if name or isinstance(error, StoreError):
                raise
            if isinstance(error, JournalInUse):
                console.print(f"{each}: skipped; {error}", highlight=False, soft_wrap=True)
            else:
                errors.append(str(error))
            continue
        folder = home.search(each)
        with notified(folder, receivers, partial(JournalTail, folder), say):
            pass
        console.print(f"{each}: {done.description}", highlight=False, soft_wrap=True)
        uploads[each] = {"runs": done.runs, "metrics": done.metrics, "files": list(done.files)}
    if errors:
        raise TunerError("; ".join(errors))
    if not uploads and not name:
        console.print(f"no search in {home.root} has anything to upload", soft_wrap=True)
    return {"store": home.tracking_uri, "sent": uploads}


def _names(home: Home) -> Sequence[str]:
    return [folder.name for folder in home.searches() if os.access(folder / JOURNAL_FILE, os.R_OK)]
