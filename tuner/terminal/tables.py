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
    """Return a plain table, texts aligned left and numbers aligned right.

    Args:
        title: title above the table, or None.
        columns: heads of the columns.
        rows: cells, converted by str().
        width: width of the terminal: if the table is wider, its last columns are hidden and a
            line names them. None lets long cells wrap instead.
    """
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(columns, *cells, strict=True)]
    count = len(columns)
    while width is not None and count > 1 and sum(widths[:count]) > width:
        count -= 1
    result = Table(title=title, box=None, title_justify="left", title_style="bold", pad_edge=False)
    for index, column in enumerate(columns[:count]):
        is_numeric = bool(cells) and all(_is_numeric(row[index]) for row in cells)
        result.add_column(
            Text(column), justify="right" if is_numeric else "left", no_wrap=width is not None
        )
    for row in cells:
        result.add_row(*map(Text, row[:count]))
    if count == len(columns):
        return result
    hidden = ", ".join(columns[count:])
    return Group(result, Text(f"hidden columns (terminal too narrow): {hidden}", style="dim"))


def _is_numeric(text: str) -> bool:
    return text == "" or text[0].isdigit() or (text[0] in "-∞" and text[1:2].isdigit())
