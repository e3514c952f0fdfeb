"""Generated texts while they grow: one text is streamed, several are shown in panels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tuner.texts.control_characters import visible
from tuner.trained.generate import Piece

_LEAST_COLUMNS = 44  # of a panel beside others
_FRAME = 4  # columns and lines of a panel around its text
_LEAST_LINES = 5  # of a panel while its text grows
_REFRESHES_PER_SECOND = 8


class TextsView:
    """Shows texts while they are generated.

    Args:
        console: output.
        titles: titles of the texts, by number.
        prompts: prompts of the texts, by number; "" to show none.
    """

    def __init__(self, console: Console, titles: Sequence[str], prompts: Sequence[str]) -> None:
        self._console, self._titles, self._prompts = console, titles, prompts
        self.texts = [""] * len(titles)
        self._streams = len(titles) == 1
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._streams:
            self._write(self._prompts[0], "bold")
        elif self._console.is_terminal:
            self._live = Live(
                console=self._console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND,
                get_renderable=self._growing,
            )  # fmt: skip
            self._live.start()
        return self

    def add(self, number: int, piece: Piece) -> None:
        """Append a piece to a text."""
        self.texts[number] += piece.text
        if self._streams:
            self._write(piece.text)

    def __exit__(self, *exception: object) -> None:
        if self._streams:
            self._write("\n")
            return
        if self._live is not None:
            self._live.stop()
        if self._console.is_terminal:
            self._console.print(self._grid(None))
            return
        for number, title in enumerate(self._titles):
            self._write(f"{'' if number == 0 else chr(10)}── {title} ──\n")
            self._write(f"{self._prompts[number]}{self.texts[number]}\n")

    def _write(self, text: str, style: str = "") -> None:
        """Write and flush; on a terminal, with style, and control characters are shown."""
        file = self._console.file
        if self._console.is_terminal:
            printable = visible(text)
            if style and printable and not self._console.no_color:
                printable = f"\x1b[1m{printable}\x1b[0m"
            file.write(printable)
        else:
            file.write(text)
        file.flush()

    def _growing(self) -> RenderableType:
        """Return the last lines of all texts, as many as fit the screen."""
        columns = self._columns()
        rows = -(-len(self.texts) // columns)
        return self._grid(max(_LEAST_LINES, (self._console.height - 1) // rows - _FRAME // 2))

    def _columns(self) -> int:
        return max(1, min(len(self.texts), self._console.width // _LEAST_COLUMNS))

    def _grid(self, height: int | None) -> Table:
        """Return all texts in panels, each cut to its last `height` lines if given."""
        columns = self._columns()
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        width = self._console.width // columns - _FRAME
        panels = [self._panel(number, width, height) for number in range(len(self.texts))]
        for start in range(0, len(panels), columns):
            grid.add_row(*panels[start : start + columns])
        return grid

    def _panel(self, number: int, width: int, height: int | None) -> Panel:
        text = Text()
        text.append(visible(self._prompts[number]), "bold")
        text.append(visible(self.texts[number]))
        if height is not None:
            lines = text.wrap(self._console, width, overflow="fold", tab_size=4)[-height:]
            text = Text("\n").join(lines)
        return Panel(text, title=Text(self._titles[number]), title_align="left", border_style="dim")


def show_texts(view: TextsView, pieces: Iterable[Piece], samples: int) -> tuple[int, list[int]]:
    """Show pieces until they end, or until Ctrl-C.

    Args:
        view: view of the texts, numbered by trial and, within a trial, by sample.
        pieces: pieces that `generate` yields.
        samples: number of texts of each trial.

    Returns:
        Number of tokens of all texts, and of each text.
    """
    tokens = [0] * len(view.texts)
    with view:
        for piece in pieces:
            number = piece.trial * samples + piece.sample
            view.add(number, piece)
            tokens[number] += not piece.has_ended
    return sum(tokens), tokens
