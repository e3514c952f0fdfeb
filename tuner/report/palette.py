"""Colours of the report, light and dark; an order is shown by viridis.

Plots are drawn in the light colours. Each has one dark counterpart, so that a script of the page
can recolour a plot. People who confuse red and green can distinguish all colours (after Okabe and
Ito 2008), and the most important marks differ in shape or width as well.
"""

from __future__ import annotations

from functools import cache

INK, FAINT, GRID, VEIL = "#1d2129", "#5b6472", "#e3e6ea", "rgba(255,255,255,0.82)"
WINNER, FINISHED, STOPPED, DIVERGED = "#c8500a", "#0f66ad", "#7f8a97", "#b3226d"
PALE, OUTSIDE, PAPER = "#b9d4ec", "rgba(91,100,114,0.11)", "#ffffff"
GREEN, VIOLET = "#1b8a6b", "#6a4fb3"
KINDS = (FINISHED, WINNER, GREEN, DIVERGED, VIOLET, STOPPED)  # of things without an order

_DARK = {
    INK: "#e7eaee",
    FAINT: "#a3adba",
    GRID: "#2c333d",
    VEIL: "rgba(21,24,29,0.82)",
    WINNER: "#ff9d57",
    FINISHED: "#62b2f5",
    STOPPED: "#8b96a4",
    DIVERGED: "#ff7bb5",
    GREEN: "#4fd0a5",
    VIOLET: "#b39df5",
    PALE: "#2f4a63",
    OUTSIDE: "rgba(163,173,186,0.13)",
    PAPER: "#15181d",
}
# Ends of viridis that contrast with a white and with a dark page.
_LIGHT_ENDS, _DARK_ENDS = (0.6, 0.06), (0.42, 0.97)
_STEPS = 100


def ordered(strength: float) -> str:
    """Return a colour of viridis for the light page.

    Args:
        strength: contrast with the background, from 0 (low) to 1 (high).
    """
    return _ordered(round(strength * _STEPS))[0]


def shades(count: int) -> list[str]:
    """Return a colour for each of some things in an order, the last the strongest."""
    return [ordered(i / (count - 1) if count > 1 else 1.0) for i in range(count)]


@cache
def _ordered(step: int) -> tuple[str, str]:
    from plotly.colors import sample_colorscale  # slow to import

    share = step / _STEPS
    places = [low + share * (high - low) for low, high in (_LIGHT_ENDS, _DARK_ENDS)]
    light, dark = sample_colorscale("viridis", places, colortype="rgb")
    return light.replace(" ", ""), dark.replace(" ", "")


def dark_colours() -> dict[str, str]:
    """Return the dark counterpart of every light colour."""
    return {**_DARK, **dict(_ordered(step) for step in range(_STEPS + 1))}


def css_variables() -> tuple[str, str]:
    """Return the colours as CSS variables for the page: light, and dark."""
    named = {
        "ink": INK, "faint": FAINT, "line": GRID, "winner": WINNER, "finished": FINISHED,
        "diverged": DIVERGED, "stopped": STOPPED, "green": GREEN, "violet": VIOLET, "pale": PALE,
        "paper": PAPER, "outside": OUTSIDE,
    }  # fmt: skip
    light = "".join(f"--{name}:{colour};" for name, colour in named.items())
    dark = "".join(f"--{name}:{_DARK[colour]};" for name, colour in named.items())
    return light, dark
