"""Hooks of MkDocs: insert the symbol table into its page.

MkDocs calls `on_page_markdown` for every page (its "native hooks"). No copy of the table is kept:
the page always shows the rows that `tuner symbols` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import Symbol
from tuner.space.parameter import SIZES
from tuner.space_file.symbols import default_of, range_of
from tuner.texts.formatting import shown

ROWS, CHOICES, ENTRIES = (f"<!-- {name} -->" for name in ("rows", "choices", "entries"))


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the markers of a page by tables."""
    if page.file.src_uri != "symbols.md":
        return markdown
    for marker, tables in ((ROWS, rows()), (CHOICES, choices()), (ENTRIES, entries())):
        if markdown.count(marker) != 1:
            raise ValueError(f"docs/symbols.md must have one {marker}")
        markdown = markdown.replace(marker, tables)
    return markdown


def rows() -> str:
    """Return the symbol table."""
    cells = [
        [_code(r.symbol), _names(r), _values(default_of(r), r.range), _about(r)]
        for r in SYMBOL_TABLE.values()
    ]
    return _table(["symbol", "name", "default, range", "what it is"], cells)


def choices() -> str:
    """Return a table of values and meanings for each choice."""
    return "\n".join(
        f'<h3 id="{row.name}">{row.name}</h3>\n\n'
        + _table(
            ["value", "what it is"],
            [[_code(choice), escape(meaning)] for choice, meaning in row.choice_meanings.items()],
        )
        for row in SYMBOL_TABLE.values()
        if row.choice_meanings
    )


def entries() -> str:
    """Return the table of the entries of `model:`."""
    fields = {name: Architecture.model_fields[name] for name in SIZES}
    cells = [
        [_code(name), _values(shown(e.default), range_of(e)), escape(e.description or "")]
        for name, e in fields.items()
    ]
    return _table(["entry", "default, range", "what it is"], cells)


def _names(row: Symbol) -> str:
    others = ", ".join(map(_code, row.spellings))
    return _code(row.name) + (f"<br>also {others}" if others else "")


def _about(row: Symbol) -> str:
    """Return meaning, formula, and condition of a row."""
    lines = [escape(row.meaning), _code(row.formula)]
    lines += [f"with {k} {', '.join(map(_code, v))}" for k, v in row.used_when.items()]
    return "<br>".join(lines)


def _values(default: str, range_: str) -> str:
    """Return default and range, with possible line breaks between the values of a choice."""
    return f"{_code(default)}<br>{', '.join(map(_code, range_.split(' | ')))}"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table; in Markdown, stars and bars of formulas would need escapes."""
    lines = [
        '<div class="symbols">',
        "<table>",
        "<thead>",
        _line("th", head),
        "</thead>",
        "<tbody>",
    ]
    return "\n".join(
        [*lines, *(_line("td", row) for row in rows), "</tbody>", "</table>", "</div>"]
    )


def _line(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
