"""`tuner completion`: a script with which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import shtab

# The searches of the default home, without starting Python: TAB must answer at once. Shells expand
# the words that they complete, and whoever may write to ./runs names folders: plain names only.
_PLAIN = "2>/dev/null | command grep -xE '[[:alnum:]][[:alnum:]._-]*'"
_SEARCHES = {
    **shtab.cmd(f'command ls "${{TUNER_HOME:-runs}}/searches" {_PLAIN}'),
    "fish": (
        f"(command ls (set -q TUNER_HOME; and echo $TUNER_HOME; or echo runs)/searches {_PLAIN})"
    ),
}
_BY_METAVAR = {"FILE": shtab.FILE, "FILE.html": shtab.FILE, "DIR": shtab.DIRECTORY}
_OF_SEARCHES = {"search", "resume"}  # destinations of options


def run_completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    for action in _actions(options.parser):
        if action.dest in _OF_SEARCHES:
            action.complete = _SEARCHES  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and action.metavar in _BY_METAVAR:
            action.complete = _BY_METAVAR[action.metavar]  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(options.parser, options.shell) + "\n")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of the parsers of its commands."""
    for action in parser._actions:  # argparse has no public list of them
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _actions(command)
