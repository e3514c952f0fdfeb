"""Console for texts of others: control characters are shown, and markup is not interpreted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from tuner.control_characters import visible


class PlainConsole(Console):
    """A console that shows texts as they are; only styles of our own become escape sequences.

    Everything that is printed goes through `render`, also from tables, panels and live views.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, markup=False, emoji=False)

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
