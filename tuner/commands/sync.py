"""The command that sends to MLflow what it did not take while searches ran."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tuner.commands.output import consoles, home_of, print_json
from tuner.driver.sync import sync as sync_search
from tuner.errors import JournalInUse, StoreError, TunerError
from tuner.home import Home
from tuner.tracking.tags import JOURNAL_FILE


def sync(options: argparse.Namespace) -> int:
    """Send to MLflow what it did not take."""
    results, _ = consoles(options)
    print_json(options, print_synced(results, home_of(options), options.search))
    return 0


def print_synced(console: Console, home: Home, name: str | None) -> dict[str, Any]:
    """Sync one search, or all of a home, and say what was sent; for --json, the same by name.

    Raises:
        TunerError: if the search, or any of them, cannot be synced.
    """
    sent: dict[str, Any] = {}
    errors: list[str] = []
    for each in [name] if name else _names(home):
        try:
            done = sync_search(home, each)
        except TunerError as error:
            if name or isinstance(error, StoreError):
                raise
            if isinstance(error, JournalInUse):
                console.print(f"{each}: skipped; {error}", highlight=False, soft_wrap=True)
            else:
                errors.append(str(error))
            continue
        console.print(f"{each}: {done.description}", highlight=False, soft_wrap=True)
        sent[each] = {"runs": done.runs, "metrics": done.metrics, "files": list(done.files)}
    if errors:
        raise TunerError("; ".join(errors))
    if not sent and not name:
        console.print(f"no search in {home.root} has anything to send", soft_wrap=True)
    return {"store": home.tracking_uri, "sent": sent}


def _names(home: Home) -> Sequence[str]:
    return sorted(path.parent.name for path in home.root.glob(f"searches/*/{JOURNAL_FILE}"))
