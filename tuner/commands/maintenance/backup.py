"""`tuner backup` and `tuner restore`: a home as one file, and a home from it."""

from __future__ import annotations

import argparse
from pathlib import Path

from tuner.commands.output import consoles, print_json, say
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.housekeeping.backup import Backup, back_up, restore
from tuner.texts.formatting import counted, size_text


def _searches(found: Backup) -> str:
    count = len(found.searches)
    return f"{count} search{'' if count == 1 else 'es'}"


def run_backup(options: argparse.Namespace) -> int:
    """Write the home to a file."""
    home = Home.recorded(options.home, say)
    path = Path(options.file).absolute()
    if path.exists() and not options.force:
        raise StoreError(f"{path} exists; give --force to replace it")
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder {path.parent} to write the backup to")
    if path.is_relative_to(home.root):
        raise StoreError(f"{path} is in the home itself; write the backup elsewhere")
    if not home.is_local and not home.is_copy:
        say("tuner backup: the tracking server has the runs, and is not part of the backup")
    found = back_up(home, path)
    results, _ = consoles(options)
    results.write_line(
        f"{path}: {_searches(found)}, {counted(found.files, 'file')}, {size_text(found.bytes)}"
    )
    facts = {"searches": found.searches, "files": found.files, "bytes": found.bytes}
    print_json(options, {"file": path, **facts})
    return 0


def run_restore(options: argparse.Namespace) -> int:
    """Make a home from a backup."""
    home = Home.of(options.home)
    found = restore(Path(options.file).absolute(), home.root)
    Home.at(options.home, say)  # corrects the paths in its store
    results, _ = consoles(options)
    results.write_line(f"{home.root}: {_searches(found)} of {found.home} as of {found.date}")
    origin = {"from": found.home, "date": found.date, "searches": found.searches}
    print_json(options, {"home": home.root, **origin})
    return 0
