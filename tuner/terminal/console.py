"""Console for lines and tables: control characters are shown, markup is not interpreted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from tuner.terminal.tables import table
from tuner.texts.control_characters import visible


class PlainConsole(Console):
    """Console without markup: only its own styles become escape sequences.

    Everything that is printed goes through `render`, also from tables, panels and live views.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, markup=False, emoji=False, highlight=False)

    def write_line(self, text: str | Text, style: str = "") -> None:
        """Print a line that only the terminal wraps, so that commands and paths can be copied."""
        self.print(text, style=style, soft_wrap=True)

    def table(
        self,
        title: str | None,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        hidden_first: Sequence[str] | None = None,
    ) -> None:
        """Print a table; see `tables.table`.

        Args:
            title: title above the table, or None.
            columns: heads of the columns.
            rows: cells, converted by str(); None is an empty cell.
            hidden_first: columns that a narrow terminal hides before the last ones; None lets long
                cells wrap instead.
        """
        width = None if hidden_first is None else self.width
        self.print(table(title, columns, rows, width, hidden_first or ()))

    @override
    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(visible(text), **settings)  # rich removes some characters

    @override
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:  # rich's own: it moves the cursor
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
