"""Reference pages, made from the parser, the models of a space, and the docstrings.

`hooks.py` inserts them into their pages; no copy is kept, so they are always those of the code.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from html import escape
from typing import Any, get_args

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tables import code, prose, table

import model
import tuner
from tuner.arguments.parser import parse
from tuner.arguments.topics import TOPICS
from tuner.space.space import SearchSpace

# Command → page that says more.
_PAGES = {
    "init": "guides/text.md", "suggest": "suggest.md", "validate": "spaces.md",
    "search": "getting_started.md", "submit": "jobs.md", "edit": "jobs.md", "stop": "jobs.md",
    "symbols": "symbols.md", "data": "data.md", "tokenizer": "data.md#tokenizers-without-a-search",
    "doctor": "cluster.md", "status": "jobs.md", "attach": "jobs.md", "logs": "jobs.md",
    "list": "getting_started.md#inspect-the-results", "show": "export.md#the-settings-alone",
    "compare": "schedulers.md#fair-comparison", "report": "reports.md", "ui": "recording.md",
    "serve": "serve.md", "login": "serve.md#from-the-command-line-and-python",
    "replay": "replay.md",
    "generate": "export.md#generate", "export": "export.md", "transfer": "transfer.md",
    "scaling": "scaling.md", "sync": "faults.md#sync", "backup": "faults.md#backups",
    "restore": "faults.md#backups", "clean": "getting_started.md#delete-and-clean-up",
    "delete": "getting_started.md#delete-and-clean-up",
    "completion": "getting_started.md#completion-in-the-shell",
}  # fmt: skip
# Section of a space → page that says more.
_SECTION_PAGES = {
    "data": "data.md", "tokenizer": "data.md#tokenizer-of-a-space", "init_from": "fine_tuning.md",
    "budget": "spaces.md#several-budgets", "proxy": "transfer.md", "engine": "cluster.md",
    "search": "schedulers.md", "compare": "schedulers.md#fair-comparison",
    "confirm": "schedulers.md", "objective": "spaces.md#objectives",
}  # fmt: skip
_COMMON = ("--help", "--debug", "--json", "--home")


# commands ----------------------------------------------------------------------------------------


def commands() -> str:
    """Return all commands with their options, by topic."""
    parser = parse(["help"]).parser
    parts = []
    for topic in TOPICS.values():
        parts += [f"## {topic.title[0].upper()}{topic.title[1:]}", _quoted(topic.about)]
        parts += [_command(f"tuner {name}", _subparsers(parser)[name]) for name in topic.commands]
    return "\n\n".join(parts)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    """Return heading, meaning and options of a command, or of the actions of a group."""
    page = _PAGES.get(name.split()[1])
    more = f" [More]({page})." if page and name.count(" ") == 1 else ""
    text = f"### {name}\n\n{_sentence(parser.description or '')}{more}"
    inner = _subparsers(parser)
    if inner:
        return "\n\n".join([text, *(_command(f"{name} {n}", p) for n, p in inner.items())])
    rows = [row for action in parser._actions for row in _option(action)]
    return f"{text}\n\n{table(('argument', 'meaning'), rows)}" if rows else text


def _option(action: argparse.Action) -> Iterator[tuple[str, str]]:
    if action.help == argparse.SUPPRESS or set(action.option_strings) & set(_COMMON):
        return
    metavar = action.metavar if isinstance(action.metavar, str) else None
    if metavar is None and action.choices:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    takes_value = action.nargs != 0
    value = metavar or (action.dest.upper() if takes_value and action.option_strings else "")
    names = ", ".join(action.option_strings) or (metavar or action.dest)
    spelled = f"{names} {value}" if action.option_strings and takes_value else names
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    yield code(spelled.strip()), prose(text)


# sections of a space -----------------------------------------------------------------------------


def sections() -> str:
    """Return the entries of the sections of a search space."""
    return "\n\n".join(
        f"## {name}\n\n{_paragraph(kind)} [More]({_SECTION_PAGES[name]}).\n\n"
        + table(("entry", "default", "values", "meaning"), _entries(kind))
        for name, kind in section_models().items()
    )


def section_models() -> dict[str, type[BaseModel]]:
    """Return the models of the sections of a space, by name."""
    leaves = {name: list(_flat(f.annotation)) for name, f in SearchSpace.model_fields.items()}
    return {
        name: kinds[0] for name, kinds in leaves.items()
        if name in _SECTION_PAGES and issubclass(kinds[0], BaseModel)
    }  # fmt: skip


def _entries(kind: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    meanings = attributes(kind)
    for name, field in kind.model_fields.items():
        default = "" if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        meaning = meanings.get(name, "").rstrip(".")
        yield code(name), code(default), escape(_values(field)), prose(meaning)


def attributes(kind: type) -> dict[str, str]:
    """Return the meanings under `Attributes:` in a docstring, by name."""
    block = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].split("\n\n")[0]
    items = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", block, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _values(field: FieldInfo) -> str:
    """Return the values that an entry may have: choices, or the limits of a number."""
    choices = [c for c in _flat(field.annotation) if isinstance(c, str | bool | int)]
    if choices:
        return ", ".join(map(_yaml, choices))
    signs = {
        annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤",
        annotated_types.Lt: "<",
    }  # fmt: skip
    limits = [
        f"{sign} {getattr(each, kind.__name__.lower()):,}"
        for each in field.metadata
        for kind, sign in signs.items()
        if isinstance(each, kind)
    ]
    return ", ".join(limits)


def _flat(annotation: Any) -> Iterator[Any]:
    """Yield the leaves of an annotation: types, and the values of a Literal."""
    inner = get_args(annotation)
    for each in inner:
        yield from _flat(each)
    if not inner and annotation is not type(None):
        yield annotation


def _yaml(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


# Python ------------------------------------------------------------------------------------------


def python() -> str:
    """Return the public names of both packages."""
    parts = []
    for package in (tuner, model):
        values = {name: getattr(package, name) for name in package.__all__}
        rows = [(code(name), _about(value)) for name, value in values.items()]
        parts.append(
            f"## from {package.__name__} import …\n\n{table(('name', 'what it is'), rows)}"
        )
    return "\n\n".join(parts)


def _about(value: Any) -> str:
    """Return the arguments of a function without their types, and what it does."""
    text = prose(_paragraph(value))
    if not inspect.isfunction(value):
        return text
    empty = inspect.Parameter.empty
    signature = inspect.signature(value)
    plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
    bare = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
    return f"{code(re.sub('<[^>]+>', '…', str(bare)))}<br>{text}"


def _paragraph(value: Any) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def _quoted(text: str) -> str:
    """Return a text in which commands between quotation marks are code."""
    return re.sub(r"'((?:tuner |--)?[^']+)'", r"`\1`", text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
