"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    width: int | None = None,
) -> RenderableType:
    """A plain table, texts to the left and numbers to the right.

    Args:
        title: above it.
        columns: heads.
        rows: cells of any kind, written with str().
        width: if the table would be wider, its last columns are left out and a line says so;
            None lets long cells wrap instead.
    """
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) + 2 for cells in zip(columns, *lines, strict=True)]
    shown = len(columns)
    while width is not None and shown > 1 and sum(widths[:shown]) > width:
        shown -= 1
    result = Table(title=title, box=None, title_justify="left", title_style="bold", pad_edge=False)
    for index, column in enumerate(columns[:shown]):
        numeric = bool(lines) and all(_is_numeric(line[index]) for line in lines)
        result.add_column(
            Text(column), justify="right" if numeric else "left", no_wrap=width is not None
        )
    for line in lines:
        result.add_row(*map(Text, line[:shown]))
    if shown == len(columns):
        return result
    hidden = ", ".join(columns[shown:])
    return Group(result, Text(f"not shown for want of width: {hidden}", style="dim"))


def _is_numeric(text: str) -> bool:
    return text == "" or text[0].isdigit() or (text[0] in "-∞" and text[1:2].isdigit())
