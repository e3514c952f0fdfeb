"""`tuner clean`: delete files that no search needs."""

from __future__ import annotations

import argparse
from pathlib import Path

from tuner.commands.output import can_ask, confirmed, consoles, home_of, print_json, say
from tuner.housekeeping.leftovers import delete_leftovers, find_leftovers
from tuner.terminal.tables import table
from tuner.texts.formatting import counted, size_text


def run_clean(options: argparse.Namespace) -> int:
    """Say what no search needs, and delete it after asking."""
    home = home_of(options, create=False)
    leftovers = find_leftovers(home, options.older_than)
    results, _ = consoles(options)
    for note in leftovers.notes:
        say(note)
    items = leftovers.items
    summary = f"{counted(len(items), 'leftover')}, {size_text(leftovers.bytes)}"
    kinds = "; ".join(
        f"{kind}: {count}, {size_text(size)}" for kind, (count, size) in leftovers.kinds.items()
    )
    is_deleted = False
    if not items:
        results.print(f"{home.root} has no files that no search needs", soft_wrap=True)
    else:
        rows = [[size_text(i.bytes), _place(i.path, home.root), i.reason] for i in items]
        results.print(table(None, ["size", f"in {home.root}", "not needed"], rows))
        results.print(kinds, highlight=False, soft_wrap=True)
        if options.dry_run or not (options.yes or can_ask(options)):
            hint = "" if options.dry_run else "; give --yes to delete"
            results.print(f"would delete {summary}{hint}", highlight=False)
        elif confirmed(options, f"Delete {summary}?"):
            delete_leftovers(leftovers)
            is_deleted = True
            results.print(f"deleted {summary}", highlight=False)
        else:
            results.print("nothing was deleted")
    print_json(
        options,
        {
            "deleted": is_deleted,
            "bytes": leftovers.bytes,
            "kinds": {
                kind: {"count": count, "bytes": size}
                for kind, (count, size) in leftovers.kinds.items()
            },
            "files": items,
            "notes": leftovers.notes,
        },
    )
    return 0


def _place(path: Path, root: Path) -> Path:
    """Return a path as it is in the home, or as it is elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path
