"""A page in a browser from the first paint on: when it is complete, how long its frames are."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from playwright.sync_api import Browser
from playwright.sync_api import TimeoutError as Late

WAIT_MS = 300_000.0
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
# notes when each frame begins, from the first script of the page on
NOTE = """window.noted = [];
(function note() { window.noted.push(performance.now()); requestAnimationFrame(note); })();"""


class Watched(NamedTuple):
    """What was seen of a page.

    Attributes:
        paint: milliseconds to the first contentful paint.
        drawn: milliseconds until it is complete; None if it was not within five minutes.
        drawing: milliseconds of the frames from the first paint until then.
        frames: milliseconds of the frames later.
    """

    paint: float
    drawn: float | None
    drawing: list[float]
    frames: list[float]


def watch(browser: Browser, url: str, is_drawn: str, seconds: float) -> Watched:
    """Look at a page.

    Args:
        browser: the browser.
        url: address of the page.
        is_drawn: function of JavaScript that says whether it is complete.
        seconds: how long it is looked at after that.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(NOTE)
    page.goto(url, timeout=WAIT_MS)
    drawn = None
    try:
        page.wait_for_function(is_drawn, timeout=WAIT_MS)
        drawn = float(page.evaluate("performance.now()"))
    except Late:
        seconds = 0
    page.wait_for_timeout(1000 * (seconds + 1))
    paint, noted = page.evaluate(f"[{PAINT}, window.noted]")
    context.close()
    frames = [(b, round(b - a, 1)) for a, b in pairwise(noted) if b > paint]
    end = math.inf if drawn is None else drawn + 1000  # until then, curves are being drawn
    drawing = [frame for at, frame in frames if at <= end]
    return Watched(paint, drawn, drawing, [frame for at, frame in frames if at > end])
