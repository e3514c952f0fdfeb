"""Draw the pictures of these pages: `python docs/figures/draw.py` writes docs/pictures.

The pictures of schedulers show searches of a synthetic task by the real schedulers, so they change
with the schedulers; a test draws them again and compares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from charts import chart
from searches import conduct
from stack import stack

PICTURES = Path(__file__).resolve().parents[1] / "pictures"
RUNGS, POINTS = (1, 3), (2, 4, 6, 8)


def pictures() -> dict[str, str]:
    """Return name of a file → drawing."""
    drawn = {}
    for name, settings, title, marks, marks_are in (
        ("none", "scheduler: none", "none: every trial to its end", (), ""),
        ("asha-promote", "scheduler: asha", "asha, promote", RUNGS, "rungs"),
        ("asha-stop", "scheduler: asha, asha: stop", "asha, stop", RUNGS, "rungs"),
        ("hyperband", "scheduler: hyperband", "hyperband", RUNGS, "rungs"),
        ("median", "scheduler: median", "median", (), ""),
    ):
        search = conduct(f"{settings}, sampler: qmc, trials: 24")
        drawn[name] = chart(search, title, marks, marks_are)
    for name in ("pbt", "pb2"):
        search = conduct(f"scheduler: {name}, sampler: qmc, trials: 8")
        drawn[name] = chart(search, f"{name}, 8 members", POINTS, "exchange")
    return {**drawn, "stack": stack(conduct("sampler: qmc, trials: 24"))}


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder (default: %(default)s)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, drawing in pictures().items():
        (out / f"{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
