"""`tuner delete`: delete a search, its runs and its files."""

from __future__ import annotations

import argparse

from tuner.commands.output import confirmed, consoles, home_of, print_json
from tuner.housekeeping.deletion import Deletion, carry_out, plan_deletion, version_text
from tuner.texts.formatting import listed, size_text


def run_delete(options: argparse.Namespace) -> int:
    """Delete a search after asking."""
    home = home_of(options, create=False)
    deletion = plan_deletion(options.search, home, force=options.force, models=options.models)
    results, progress = consoles(options)
    if not options.yes:
        for line in _lines(deletion):
            progress.print(line, highlight=False, soft_wrap=True)
    if not confirmed(options, f"Delete {deletion.search} for good?"):
        results.print("nothing was deleted")
        return 0
    carry_out(deletion, home)
    results.print(f"deleted {_what(deletion)}", highlight=False, soft_wrap=True)
    for line in _lines(deletion)[1:]:
        results.print(line, highlight=False, soft_wrap=True)
    print_json(options, deletion.as_json)
    return 0


def _what(deletion: Deletion) -> str:
    return f"{deletion.description}, {size_text(deletion.bytes)}"


def _lines(deletion: Deletion) -> list[str]:
    """Return what will be deleted and what remains."""
    lines = [f"This deletes {_what(deletion)}."]
    if deletion.kept_versions:
        versions = listed(map(version_text, deletion.kept_versions), "and")
        lines.append(f"In the model registry, {versions} will remain; --models deletes them too.")
    if deletion.is_remote and deletion.runs:
        lines.append("The server keeps the files of deleted runs until 'mlflow gc' runs there.")
    return lines
