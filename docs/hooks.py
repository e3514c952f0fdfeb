"""Hooks of MkDocs: insert what is generated from the code into its pages.

MkDocs calls `on_page_markdown` for every page (its "native hooks"). No copy is kept: a page always
shows the rows that `tuner symbols` prints, the options of the parser, and the docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import reference
from tables import code, table

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import Symbol
from tuner.space.parameter import SIZES
from tuner.space_file.symbols import default_of, range_of
from tuner.texts.formatting import shown


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the markers of a page, such as `<!-- rows -->`, by what is generated."""
    for name, generated in PAGES.get(page.file.src_uri, {}).items():
        marker = f"<!-- {name} -->"
        if markdown.count(marker) != 1:
            raise ValueError(f"docs/{page.file.src_uri} must have one {marker}")
        markdown = markdown.replace(marker, generated())
    return markdown


def rows() -> str:
    """Return the symbol table."""
    cells = [
        [code(r.symbol), _names(r), _values(default_of(r), r.range), _about(r)]
        for r in SYMBOL_TABLE.values()
    ]
    return table(["symbol", "name", "default, range", "what it is"], cells)


def choices() -> str:
    """Return a table of values and meanings for each choice."""
    return "\n".join(
        f'<h3 id="{row.name}">{row.name}</h3>\n\n'
        + table(
            ["value", "what it is"],
            [[code(choice), escape(meaning)] for choice, meaning in row.choice_meanings.items()],
        )
        for row in SYMBOL_TABLE.values()
        if row.choice_meanings
    )


def entries() -> str:
    """Return the table of the entries of `model:`."""
    fields = {name: Architecture.model_fields[name] for name in SIZES}
    cells = [
        [code(name), _values(shown(e.default), range_of(e)), escape(e.description or "")]
        for name, e in fields.items()
    ]
    return table(["entry", "default, range", "what it is"], cells)


def _names(row: Symbol) -> str:
    others = ", ".join(map(code, row.spellings))
    return code(row.name) + (f"<br>also {others}" if others else "")


def _about(row: Symbol) -> str:
    """Return meaning, formula, and condition of a row."""
    lines = [escape(row.meaning), code(row.formula)]
    lines += [f"with {k} {', '.join(map(code, v))}" for k, v in row.used_when.items()]
    return "<br>".join(lines)


def _values(default: str, range_: str) -> str:
    """Return default and range, with possible line breaks between the values of a choice."""
    return f"{code(default)}<br>{', '.join(map(code, range_.split(' | ')))}"


# Page → marker → function that returns what replaces it.
PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "symbols.md": {"rows": rows, "choices": choices, "entries": entries},
    "commands.md": {"commands": reference.commands},
    "sections.md": {"sections": reference.sections},
    "python.md": {"python": reference.python},
}
