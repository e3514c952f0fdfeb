"""HTML tables of generated pages; in Markdown, stars and bars of formulas would need escapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def code(text: str) -> str:
    """Return a text as code."""
    return f"<code>{escape(text)}</code>"


def prose(text: str) -> str:
    """Return a text in which what stands between backticks is code."""
    parts = text.split("`")
    return "".join(code(part) if n % 2 else escape(part) for n, part in enumerate(parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are HTML."""
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
