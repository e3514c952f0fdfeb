"""Process that makes the measurements of a part, one after the other.

    python -m parts.gpu.child PART '{"device": …, "quick": …}'

Reads requests `{"name": …, "limit": seconds, "known": …}` from standard input, and answers each
with a line of JSON on standard output: `{"numbers": …}` or `{"failure": …}`. The first line is
`{"about": …}`, or `{"refused": …}` if there is no such device. A failure may leave a GPU's context
unusable, so that the caller then starts another process.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from parts.gpu.measurement import Where, part_of
from parts.measuring import ROOT, about


def _failure(error: BaseException) -> str:
    """Return class, first line and place of an error."""
    text = (str(error).strip() or "no message").splitlines()[0][:300]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT)]
    name = type(error).__name__
    if not own:
        return f"{name}: {text}"
    place = f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}"
    return f"{name}: {text} ({place})"


def main() -> int:
    """Serve the requests."""
    part, where = sys.argv[1], Where(**json.loads(sys.argv[2]))
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log
    warnings.filterwarnings("ignore")  # of torch, about how it computes

    def reply(**message: Any) -> None:
        print(json.dumps(message, ensure_ascii=False), file=replies, flush=True)

    import torch

    if where.on_gpu and not torch.cuda.is_available():
        found = f"torch {torch.__version__} finds none"
        reply(refused=f"--device {where.device} needs a GPU, and {found}")
        return 0
    reply(about=about(["torch", "numpy"], where.device))
    measurements = part_of(part).measurements(where)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            measure = measurements[request["name"]].measure
            numbers = measure(replace(where, limit=request["limit"], known=request["known"]))
            # encoded here, so that what is no JSON is a failure of the measurement
            message = {"numbers": json.loads(json.dumps(numbers, allow_nan=False))}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded
            traceback.print_exc()
            message = {"failure": _failure(error)}
        reply(**message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
