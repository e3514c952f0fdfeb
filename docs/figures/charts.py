"""Chart of a search: a column for each trial, as high as its training tokens."""

from __future__ import annotations

from searches import REPORTS, TOKENS, Search
from svg import QUARTERS, Drawing

from tuner.conductor.trial import Trial

_WIDTH, _HEIGHT = 760, 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 46, 206  # of the plot


def chart(search: Search, title: str, rungs: tuple[int, ...], rungs_are: str) -> str:
    """Draw a search.

    Args:
        search: search that has ended.
        title: title of the chart.
        rungs: reports at which the scheduler decides, marked by lines.
        rungs_are: label of the lines.
    """
    drawing = Drawing(_WIDTH, _HEIGHT, title)
    drawing.text(_LEFT, 22, title, bold=True, size=14)
    share = f"{100 * search.share:.0f} % of the tokens of all trials to the end"
    drawing.text(_WIDTH - _RIGHT, 22, share, "dim", anchor="end")
    _axes(drawing, rungs)
    step = (_WIDTH - _LEFT - _RIGHT) / len(search.trials)
    wide = 0.72 * step
    middles = [_LEFT + (i + 0.5) * step for i in range(len(search.trials))]
    for trial, x in zip(search.trials, middles, strict=True):
        _column(drawing, search, trial, x, wide)
    for trial, x in zip(search.trials, middles, strict=True):
        if trial.parent is not None:  # from the side of the parent's column to the copy's foot
            y, start = _y(trial.tokens_before), middles[trial.parent]
            side = wide / 2 if start < x else -wide / 2
            drawing.line(start + side, y, x - side, y, "accent", width=1.5, arrow=True)
    _legend(drawing, search, rungs_are)
    return str(drawing)


def _y(tokens: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * tokens / TOKENS


def _axes(drawing: Drawing, rungs: tuple[int, ...]) -> None:
    for report in range(0, REPORTS + 1, 3):
        drawing.text(_LEFT - 8, _y(report * TOKENS / REPORTS) + 4, str(report), "dim", size=11,
                     anchor="end")  # fmt: skip
    drawing.text(6, _TOP - 10, "reports", "dim", size=11)
    for report in rungs:
        y = _y(report * TOKENS / REPORTS)
        drawing.line(_LEFT - 4, y, _WIDTH - _RIGHT, y, "line", dashed=True)
    drawing.line(_LEFT - 4, _BOTTOM, _WIDTH - _RIGHT, _BOTTOM, "dim")


def _column(drawing: Drawing, search: Search, trial: Trial, x: float, wide: float) -> None:
    """Draw a trial from its start to its end, with a gap at each pause."""
    colour = QUARTERS[search.quarter(trial)]
    segments = [segment for segment in search.segments if segment.number == trial.number]
    for before, segment in zip([None, *segments], segments, strict=False):
        pause_gap = 0 if before is None else 3
        low, high = _y(segment.first) - pause_gap, _y(segment.last)
        drawing.rect(x - wide / 2, high, wide, max(low - high, 0), colour)
    if not trial.reports:
        return
    top = _y(trial.tokens)
    if trial.has_finished:
        drawing.circle(x, top - 6, 3, "ink")
    elif trial.has_diverged:
        drawing.text(x, top - 4, "×", "accent", size=15, anchor="middle", bold=True)
    drawing.text(x, _BOTTOM + 13, str(trial.number), "dim", size=9, anchor="middle")


def _legend(drawing: Drawing, search: Search, rungs_are: str) -> None:
    y, x = _HEIGHT - 14, _LEFT
    drawing.text(x, y, "at its end in the", "dim", size=11)
    x += 92
    for colour, word in zip(QUARTERS, ("best quarter", "second", "third", "worst"), strict=True):
        drawing.rect(x, y - 9, 11, 11, colour)
        drawing.text(x + 15, y, word, "dim", size=11)
        x += 28 + 6.2 * len(word)
    drawing.circle(x + 6, y - 4, 3, "ink")
    drawing.text(x + 14, y, "finished", "dim", size=11)
    x += 70
    if any(trial.has_diverged for trial in search.trials):
        drawing.text(x, y + 1, "×", "accent", size=15, bold=True)
        drawing.text(x + 12, y, "diverged", "dim", size=11)
        x += 70
    if any(trial.parent is not None for trial in search.trials):
        drawing.line(x, y - 4, x + 18, y - 4, "accent", width=1.5, arrow=True)
        drawing.text(x + 24, y, "copied", "dim", size=11)
        x += 70
    if len({segment.number for segment in search.segments}) < len(search.segments):
        drawing.rect(x, y - 11, 9, 5, "dim")
        drawing.rect(x, y - 3, 9, 5, "dim")
        drawing.text(x + 14, y, "paused", "dim", size=11)
        x += 58
    if rungs_are:
        drawing.line(x, y - 4, x + 18, y - 4, "dim", dashed=True)
        drawing.text(x + 24, y, rungs_are, "dim", size=11)
