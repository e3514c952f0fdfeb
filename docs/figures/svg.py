"""SVG drawings: shapes, and colours for light and dark themes."""

from __future__ import annotations

from html import escape

# class → colour on a light page, and on a dark one
COLOURS = {
    "page": ("#ffffff", "#1e2129"),
    "ink": ("#1f2933", "#e6e9ef"),
    "dim": ("#5c6773", "#a3acba"),
    "line": ("#c3cad3", "#454c59"),
    "box": ("#eef1f5", "#2b303b"),
    "best": ("#00695c", "#4dd0b8"),
    "good": ("#4f9d94", "#2f9485"),
    "fair": ("#a3c4c0", "#2c5f58"),
    "bad": ("#d5dcdf", "#3d4650"),
    "accent": ("#c2410c", "#fb923c"),
}
QUARTERS = ("best", "good", "fair", "bad")


class Drawing:
    """Drawing of a fixed size; y grows downwards."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width, self._height, self._title = width, height, title
        self._shapes: list[str] = []
        self.rect(0, 0, width, height, "page")

    def rect(
        self, x: float, y: float, width: float, height: float, colour: str, *, round_by: float = 0
    ) -> None:
        """Add a filled rectangle."""
        self._add("rect", f'class="f-{colour}"', x=x, y=y, width=width, height=height, rx=round_by)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1,
        dashed: bool = False, arrow: bool = False,
    ) -> None:  # fmt: skip
        """Add a line, with an arrow head if `arrow` is true."""
        more = ' stroke-dasharray="3 3"' * dashed + ' marker-end="url(#head)"' * arrow
        style = f'class="s-{colour}" stroke-width="{width}"{more}'
        self._add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: list[tuple[float, float]], colour: str, *, arrow: bool = False) -> None:
        """Add a line through points."""
        text = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        more = ' marker-end="url(#head)"' * arrow
        self._shapes.append(
            f'<polyline fill="none" class="s-{colour}" stroke-width="1.5"{more} points="{text}"/>'
        )

    def circle(self, x: float, y: float, radius: float, colour: str) -> None:
        """Add a dot."""
        self._add("circle", f'class="f-{colour}"', cx=x, cy=y, r=radius)

    def text(
        self, x: float, y: float, text: str, colour: str = "ink", *, size: float = 12,
        anchor: str = "start", bold: bool = False,
    ) -> None:  # fmt: skip
        """Add text on a base line."""
        weight = ' font-weight="600"' * bold
        style = f'class="f-{colour}" font-size="{size}" text-anchor="{anchor}"{weight}'
        self._shapes.append(
            f'<text x="{_number(x)}" y="{_number(y)}" {style}>{escape(text)}</text>'
        )

    def __str__(self) -> str:
        """Return the file."""
        size = f'viewBox="0 0 {self._width} {self._height}" width="{self._width}"'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} height="{self._height}" role="img" '
            'font-family="system-ui, sans-serif">',
            f"<title>{escape(self._title)}</title>",
            f"<style>{_rules(0)} @media (prefers-color-scheme: dark) {{{_rules(1)}}}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path class="f-dim" d="M0,0L8,4L0,8z"/></marker>'
            "</defs>",
            *self._shapes,
            "</svg>\n",
        ])  # fmt: skip

    def _add(self, tag: str, style: str, **places: float) -> None:
        text = " ".join(f'{name}="{_number(value)}"' for name, value in places.items())
        self._shapes.append(f"<{tag} {style} {text}/>")


def _rules(theme: int) -> str:
    """Return the style sheet for light (0) or dark (1)."""
    return " ".join(
        f".f-{name}{{fill:{pair[theme]}}} .s-{name}{{stroke:{pair[theme]}}}"
        for name, pair in COLOURS.items()
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
