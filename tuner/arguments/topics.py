"""Groups of commands for `tuner --help` and `tuner help TOPIC`, and the step after each command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from tuner.commands.output import home_option


class Topic(NamedTuple):
    """A group of commands.

    Attributes:
        title: heading in the help.
        commands: their names, in the order in which they are wanted.
        about: what they are for, and how one begins.
    """

    title: str
    commands: tuple[str, ...]
    about: str


TOPICS: Mapping[str, Topic] = {
    "search": Topic(
        "search", ("init", "search", "validate", "suggest", "submit", "edit", "stop"),
        "Find the best hyperparameters. 'tuner init notes.txt' looks at your text and writes a "
        "space, 'tuner search --space FILE' searches it; '--space lm' takes a shipped study. "
        "'submit' searches without the terminal.",
    ),
    "look": Topic(
        "look", ("show", "list", "compare", "report", "ui", "status", "attach", "logs"),
        "See what was found. 'tuner show' lists the trials of the newest search, 'tuner show RUN' "
        "one of them; a RUN is a search and a number, lm-1/13. 'status' and 'attach' look at "
        "searches that run.",
    ),
    "model": Topic(
        "use the model", ("replay", "generate", "export", "transfer", "scaling"),
        "Prove, try and take away the best trial. 'tuner replay' retrains it and compares every "
        "number, 'tuner export -o DIR' writes it for Hugging Face, llama.cpp or torch, "
        "'tuner show --yaml' prints its settings. 'transfer' and 'scaling' go on to larger models.",
    ),
    "prepare": Topic(
        "prepare", ("data", "tokenizer", "symbols", "doctor"),
        "Before a search. 'tuner doctor' checks the machine, 'tuner data info --space FILE' says "
        "what the data of a space are, 'tuner symbols' lists what can be searched. A search "
        "prepares its data itself.",
    ),
    "service": Topic(
        "service", ("serve", "login"),
        "One machine for several people. 'tuner serve' has a queue, a page and an API; "
        "'tuner login URL' keeps a token, and '--server URL' makes 'submit', 'status', 'attach', "
        "'logs' and 'stop' work with it.",
    ),
    "maintenance": Topic(
        "maintenance", ("sync", "backup", "restore", "clean", "delete", "completion", "help"),
        "Keep the home in order. 'tuner sync' sends what MLflow missed, 'tuner backup' writes all "
        "to one file, and 'tuner clean --older-than 30d --yes' deletes daily what no search needs.",
    ),
}  # fmt: skip

# Command → what is usually done after it; those without an entry say it themselves, or end nothing.
# Names in braces are options, {home} is ` --home DIR` as given.
_NEXT: Mapping[str, str] = {
    "validate": "tuner search --space {space}{home}",
    "suggest": "tuner search --space {space}{home}",
    "symbols": "tuner init",
    "doctor": "tuner init notes.txt, for a text of yours; or tuner search --space lm",
    "data prepare": "tuner search --space {space}{home}",
    "data info": "tuner search --space {space}{home}",
    "data sample": "tuner search --space {space}{home}",
    "tokenizer train": "tuner tokenizer show {output}; in a space: tokenizer: {{file: {output}}}",
    "list": "tuner show --search NAME{home}",
    "show": "tuner show RUN{home}, for one trial; tuner replay{home}",
    "compare": "tuner report{home}",
    "report": "tuner export -o exported{home}",
    "status": "tuner attach NAME{home}",
    "logs": "tuner status{home}",
    "replay": "tuner export -o exported{home}",
    "generate": "tuner export -o exported{home}",
    "export": "{output}/README.md says how to load it",
    "sync": "tuner ui{home}",
    "backup": "tuner restore FILE --home DIR, anywhere",
    "restore": "tuner list{home}",
    "delete": "tuner clean{home}",
    "login": "tuner submit --space lm --server {url}",
}


def next_step(options: argparse.Namespace) -> str | None:
    """Return what is usually done after a command that has succeeded; None if it says so itself."""
    template = _NEXT.get(options.command)
    if template is None or getattr(options, "json", False) or getattr(options, "csv", False):
        return None
    if "{space}" in template and not options.space:
        return None
    if options.command == "show" and (options.run or options.take_away):
        return None
    given = {name: shlex.quote(str(value)) for name, value in vars(options).items() if value}
    given["home"] = home_option(options) if hasattr(options, "home") else ""
    return template.format(**given)
