"""The colours of the report, light and dark; those of an order are viridis.

Pictures are made in the light ones. Each has one dark counterpart, so that a script can turn a
picture by exchanging colours. All can be told apart by people who confuse red and green (after
Okabe and Ito 2008), and what matters most differs in shape or width as well.
"""

from __future__ import annotations

from functools import cache

INK, FAINT, GRID, VEIL = "#1d2129", "#5b6472", "#e3e6ea", "rgba(255,255,255,0.82)"
WINNER, FINISHED, STOPPED, DIVERGED = "#c8500a", "#0f66ad", "#7f8a97", "#b3226d"
PALE, OUTSIDE, PAPER = "#b9d4ec", "rgba(91,100,114,0.11)", "#ffffff"

_DARK = {
    INK: "#e7eaee",
    FAINT: "#a3adba",
    GRID: "#2c333d",
    VEIL: "rgba(21,24,29,0.82)",
    WINNER: "#ff9d57",
    FINISHED: "#62b2f5",
    STOPPED: "#8b96a4",
    DIVERGED: "#ff7bb5",
    PALE: "#2f4a63",
    OUTSIDE: "rgba(163,173,186,0.13)",
    PAPER: "#15181d",
}
# Viridis at these places stands out from a white and from a dark page.
_LIGHT_ENDS, _DARK_ENDS = (0.72, 0.06), (0.42, 0.97)
_STEPS = 100


def ordered(strength: float) -> str:
    """A colour of viridis, for the light page.

    Args:
        strength: from 0, close to the background, to 1, far from it.
    """
    return _ordered(round(strength * _STEPS))[0]


@cache
def _ordered(step: int) -> tuple[str, str]:
    # not imported with the module: it takes a while
    from plotly.colors import sample_colorscale

    share = step / _STEPS
    places = [low + share * (high - low) for low, high in (_LIGHT_ENDS, _DARK_ENDS)]
    light, dark = sample_colorscale("viridis", places, colortype="rgb")
    return light.replace(" ", ""), dark.replace(" ", "")


def dark_colours() -> dict[str, str]:
    """Light colour → dark colour, of all."""
    return {**_DARK, **dict(_ordered(step) for step in range(_STEPS + 1))}


def css_variables() -> tuple[str, str]:
    """The same colours for the page's own parts, as CSS: light, and dark."""
    named = {
        "ink": INK, "faint": FAINT, "line": GRID, "winner": WINNER, "finished": FINISHED,
        "stopped": STOPPED, "diverged": DIVERGED, "paper": PAPER, "outside": OUTSIDE,
    }  # fmt: skip
    light = "".join(f"--{name}:{colour};" for name, colour in named.items())
    dark = "".join(f"--{name}:{_DARK[colour]};" for name, colour in named.items())
    return light, dark
