"""The atlas: losses of many small models, from which `tuner suggest` knows what is good where.

    python bench/atlas.py                  train what is missing, for hours; then pack
    python bench/atlas.py --seconds 600    train for ten minutes; a later call goes on
    python bench/atlas.py --pack           pack what there is

Trials are trained one after another, one on each core, by the trainer of `tuner search`. A run can
be cut off: each trial is a line of runs/atlas/rows.jsonl, and all cells grow together. What the
atlas has already is not trained again.
`bench/suggest.py` judges what is suggested from the atlas.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path

from parts.atlas.cells import rows
from parts.atlas.pack import shipped, trained_of, write
from parts.atlas.training import Workshop, spec_of, train_missing, trained

from tuner.knowledge.atlas import PATH

ROOT = Path(__file__).resolve().parents[1]
LINES = "rows.jsonl"


def main() -> int:
    """Train, and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=math.inf, help="train for so long")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--nice", type=int, default=5, help="how much other processes come first")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "atlas", help="texts and trained trials"
    )
    parser.add_argument("--pack", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=PATH, help="the atlas")
    options = parser.parse_args()
    every, lines = rows(), shipped(options.out)
    if options.pack:
        lines |= trained(options.folder / LINES)
    else:
        shop = Workshop(options.folder, options.processes, options.nice, options.seconds)
        lines |= train_missing([row for row in every if row.key not in lines], LINES, shop)
    found = trained_of(every, lines, partial(spec_of, folder=options.folder))
    card = write(found, options.out, "python bench/atlas.py", len(every))
    print(json.dumps(card, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
