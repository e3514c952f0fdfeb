"""Figure of docs/inside.md: life of a trial, and slots over time."""

from __future__ import annotations

from searches import Search
from svg import QUARTERS, Drawing

_WIDTH, _HEIGHT = 760, 470


def stack(search: Search) -> str:
    """Draw the life of a trial, and the slots of a search over time."""
    drawing = Drawing(
        _WIDTH, _HEIGHT, "Life of a trial, from the space to a slot of a stack, and slots over time"
    )
    _life(drawing)
    _slots(drawing, search)
    return str(drawing)


def _life(drawing: Drawing) -> None:
    """Draw boxes from the space to the stack and back."""
    drawing.text(20, 26, "The driver, one process", bold=True)
    drawing.text(400, 26, "Ray", bold=True)
    drawing.text(560, 26, "A worker for each device", bold=True)
    _box(drawing, 20, 40, 110, "space", "what may vary")
    _box(drawing, 170, 40, 170, "conductor", "sampler, scheduler, slots")
    _box(drawing, 170, 120, 170, "driver", "carries out decisions")
    _box(drawing, 20, 120, 110, "journal", "written first")
    _box(drawing, 20, 192, 110, "MLflow", "the record")
    _box(drawing, 400, 120, 110, "client", "reads reports")
    _box(drawing, 400, 40, 110, "Ray Tune", "runs the clients")
    _box(drawing, 560, 40, 180, "worker", "assignments in, reports out")
    _box(drawing, 560, 120, 180, "engine", "steps the stacks")
    drawing.line(130, 62, 168, 62, "dim", width=1.5, arrow=True)
    drawing.line(230, 84, 230, 118, "dim", width=1.5, arrow=True)
    drawing.line(280, 120, 280, 86, "dim", width=1.5, arrow=True)
    drawing.text(224, 106, "jobs", "dim", size=11, anchor="end")
    drawing.text(287, 106, "reports", "dim", size=11)
    drawing.line(170, 142, 132, 142, "dim", width=1.5, arrow=True)
    drawing.line(75, 164, 75, 190, "dim", width=1.5, arrow=True)
    drawing.text(82, 182, "followers", "dim", size=11)
    drawing.path([(340, 130), (368, 130), (368, 62), (398, 62)], "dim", arrow=True)
    drawing.line(440, 84, 440, 118, "dim", width=1.5, arrow=True)
    drawing.line(398, 152, 342, 152, "dim", width=1.5, arrow=True)
    drawing.text(370, 168, "reports", "dim", size=11, anchor="middle")
    drawing.path([(510, 134), (534, 134), (534, 56), (558, 56)], "dim", arrow=True)
    drawing.path([(560, 72), (546, 72), (546, 150), (512, 150)], "dim", arrow=True)
    drawing.path([(310, 164), (310, 186), (750, 186), (750, 62), (742, 62)], "dim", arrow=True)
    drawing.text(318, 200, "orders", "dim", size=11)
    drawing.line(630, 84, 630, 118, "dim", width=1.5, arrow=True)
    drawing.line(670, 120, 670, 86, "dim", width=1.5, arrow=True)
    drawing.path([(650, 164), (650, 238)], "dim", arrow=True)
    drawing.text(642, 206, "assign, tick, report", "dim", size=11, anchor="end")


def _box(drawing: Drawing, x: float, y: float, width: float, name: str, about: str) -> None:
    drawing.rect(x, y, width, 44, "box", round_by=5)
    drawing.text(x + 10, y + 19, name, bold=True, size=13)
    drawing.text(x + 10, y + 35, about, "dim", size=11)


def _slots(drawing: Drawing, search: Search) -> None:
    """Draw a row for each slot; time is counted in training tokens."""
    left, top, high, gap = 66, 276, 34, 8
    drawing.text(20, 258, f"A stack of {search.slots} slots: one set of tensors [K, …]", bold=True)
    scale = (_WIDTH - left - 20) / max(segment.end for segment in search.segments)
    for slot in range(search.slots):
        y = top + slot * (high + gap)
        drawing.text(20, y + 22, f"k = {slot}", "dim", size=12)
        drawing.rect(left, y, _WIDTH - left - 20, high, "box")
    for segment in search.segments:
        trial, y = search.trials[segment.number], top + segment.slot * (high + gap)
        x, width = left + segment.start * scale, (segment.end - segment.start) * scale
        quarter = search.quarter(trial)
        drawing.rect(x + 0.7, y, max(width - 1.4, 0.5), high, QUARTERS[quarter])
        colour = "page" if quarter < 1 else "ink"
        if width > 14:
            drawing.text(
                x + width / 2, y + 21, str(segment.number), colour, size=11, anchor="middle"
            )
    bottom = top + search.slots * (high + gap) + 8
    drawing.line(left, bottom, _WIDTH - 20, bottom, "dim", width=1.5, arrow=True)
    end, note = _WIDTH - 20, "dark ones would end best; a number that comes again was promoted"
    drawing.text(end, bottom + 16, "time, in training tokens", "dim", size=11, anchor="end")
    drawing.text(left, bottom + 16, f"numbers are trials; {note}", "dim", size=11)
