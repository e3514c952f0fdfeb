"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.texts.control_characters import in_one_line, visible


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    width: int | None = None,
    hidden_first: Sequence[str] = (),
) -> RenderableType:
    """Return a plain table, texts aligned left and numbers aligned right.

    Args:
        title: title above the table, or None; it may be wider than the table.
        columns: heads of the columns.
        rows: cells, converted by str(); None is an empty cell.
        width: width of the terminal: if the table is wider, its last columns are hidden and a
            line names them. None lets long cells wrap instead.
        hidden_first: columns that are hidden before the last ones, in this order; the first column
            is never hidden.
    """
    columns = list(map(in_one_line, columns))
    cells = [["" if value is None else in_one_line(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(columns, *cells, strict=True)]
    kept = list(range(len(columns)))
    waiting = [*map(columns.index, map(in_one_line, hidden_first)), *reversed(kept[1:])]
    hidden: list[int] = []
    for index in dict.fromkeys(waiting):
        if width is not None and sum(widths[i] for i in kept) - 2 > width:
            kept.remove(index)
            hidden.append(index)
    for index in reversed(hidden):  # a narrow column may fit where a wide one did not
        if width is not None and sum(widths[i] for i in (*kept, index)) - 2 <= width:
            kept = sorted((*kept, index))
    result = Table(box=None, pad_edge=False)
    for index in kept:
        is_numeric = bool(cells) and all(_is_numeric(row[index]) for row in cells)
        result.add_column(
            Text(columns[index]),
            justify="right" if is_numeric else "left",
            no_wrap=width is not None,
        )
    for row in cells:
        result.add_row(*(Text(row[index]) for index in kept))
    names = ", ".join(column for i, column in enumerate(columns) if i not in kept)
    note = f"hidden columns (terminal too narrow): {names}"
    return Group(
        *([Text(visible(title), style="bold")] if title else []),
        result,
        *([Text(note, style="dim")] if names else []),
    )


def _is_numeric(text: str) -> bool:
    return text == "" or text[0].isdigit() or (text[0] in "-∞" and text[1:2].isdigit())
