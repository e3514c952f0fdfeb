r"""All measurements of a GPU, in six parts of less than nine minutes each.

    python bench/gpu.py --part law --out DIR       is a trial a pure function of its specification?
    python bench/gpu.py --part kernel --out DIR    the kernel of AdamW: right, and how fast
    python bench/gpu.py --part fusion --out DIR    tokens/s beside processes that share the GPU
    python bench/gpu.py --part lora --out DIR      LoRA trials beside processes of PEFT
    python bench/gpu.py --part profile --out DIR   where the time of ticks, refills and reports goes
    python bench/gpu.py --part search --out DIR    a whole search beside Ray Tune and Optuna
    python bench/gpu.py --part law --out DIR --device cpu --quick     a rehearsal, in seconds

Run the parts in this order, which is that of their importance. Each part writes into DIR

    gpu.PART.jsonl   its measurements, each as soon as it is made
    gpu.PART.json    the result: tables, a verdict for each goal, and what was not measured
    gpu.PART.log     messages of its processes

and ends after --minutes. The same command goes on where the last one ended or was cut off: it skips
what equal code measured on an equal device. With `--out docs/bench`, benchmarks_page.py takes the
results. A measurement that fails, hangs or kills its process is recorded as such, and the next ones
go on.

All parts need torch (2.11 is enough), numpy, pydantic and safetensors, and on a GPU triton, which
torch for CUDA brings; not the service. The other side of `lora` needs transformers and peft, and
`search` the dependencies of the service (pyproject.toml). `law` also runs tests/gpu if pytest,
hypothesis and pytest-xdist are there. What a machine without a network lacks can be carried there
as wheels:

    python -m pip download --dest wheels --python-version 3.12 --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 pydantic safetensors
    python -m pip install --no-index --find-links wheels pydantic safetensors     # over there

`pytest hypothesis pytest-xdist` as well, for tests/gpu.
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from parts.gpu.measurement import PARTS, Where
from parts.measuring import ROOT, show, write

sys.path.append(str(ROOT))  # `model` need not be installed
NEEDED = (
    "torch", "numpy", "pydantic", "pydantic-core", "annotated-types", "typing-extensions",
    "typing-inspection", "safetensors",
)  # fmt: skip
MINUTES = 8.0


def needed(part: str, *, on_gpu: bool) -> list[str]:
    """Return the distributions that a part needs."""
    names = [*NEEDED, "triton"] if on_gpu else [*NEEDED]
    if part == "search":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        matches = (re.match(r"[\w.-]+", line) for line in project["dependencies"])
        names += [match[0] for match in matches if match and match[0] not in names]
    return names


def missing(names: list[str]) -> list[str]:
    """Return the distributions that this Python lacks."""

    def lacks(name: str) -> bool:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return True
        return False

    return [name for name in names if lacks(name)]


def result_of(
    part: str, record: Any, about: dict[str, Any], where: Where, unreached: Sequence[str]
) -> dict[str, Any]:
    """Return the result of a part in the format of `parts.measuring`."""
    from parts.gpu.measurement import part_of

    module, numbers = part_of(part), record.numbers
    verdicts = module.verdicts(numbers)
    notes = module.notes(numbers)
    notes += [f"Not measured, goal open: {what}." for what in verdicts.open]
    notes += [f"Failed: {name}: {why}." for name, why in record.failures.items()]
    if unreached:
        notes.append(f"No time was left for: {', '.join(unreached)}; the same command goes on.")
    if where.quick or not where.on_gpu:
        notes.append("A rehearsal: its numbers and verdicts say nothing about a GPU.")
    return {
        "bench": f"gpu.{part}",
        "about": about | {"dtype": where.dtype, "rehearsal": where.quick or not where.on_gpu},
        "tables": module.tables(numbers),
        "goals": verdicts.goals,
        "notes": notes,
        "numbers": numbers,
    }


def options_of() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", default="cuda", help="cuda (the default), cuda:1 …, or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny models, as a test of the bench")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time of the part (8)")
    options = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", options.device):
        parser.error(f"--device must be cpu, cuda or cuda:N, got {options.device}")
    if not 0 < options.minutes:
        parser.error(f"--minutes must be above 0, got {options.minutes:g}")
    if options.device == "cpu" and not options.quick:
        parser.error("--device cpu is a rehearsal and needs --quick")
    return options


def main() -> int:
    """Measure one part.

    Returns:
        0; 1 if a measurement failed; 2 if nothing could begin.
    """
    began = time.monotonic()
    options = options_of()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the processes as well
    where = Where(options.device, options.quick)
    absent = missing(needed(options.part, on_gpu=where.on_gpu))
    if absent:
        print(
            f"bench/gpu.py --part {options.part} needs {', '.join(absent)}, which "
            f"{sys.executable} does not have: install them, or carry their wheels there as "
            f"`python bench/gpu.py --help` says",
            file=sys.stderr,
        )
        return 2
    from parts.gpu.measurement import part_of
    from parts.gpu.record import Record, code_of
    from parts.gpu.runner import Child, RefusedError, run

    options.out.mkdir(parents=True, exist_ok=True)
    name = f"gpu.{options.part}"
    log, out = options.out / f"{name}.log", options.out / f"{name}.json"
    deadline = began + 60 * options.minutes
    with ExitStack() as stack:  # MPS ends with it
        if options.part in {"fusion", "lora"} and where.on_gpu:
            from parts.fusion.processes import multi_process_service

            shared, sharing = stack.enter_context(multi_process_service())
            where = replace(where, shared=shared, sharing=sharing)
        start = partial(Child, options.part, where, log)
        try:
            child = start(deadline - time.monotonic())
        except RefusedError as refused:
            print(refused, file=sys.stderr)
            return 2
        about = dict(child.about)
        about["command"] = shlex.join(["python", "bench/gpu.py", *sys.argv[1:]])
        identity = {
            "code": code_of(options.part),
            "device": about["device"],
            "torch": about["versions"]["torch"],
            "quick": options.quick,
        }
        record = Record(options.out / f"{name}.jsonl", identity)
        if record.numbers:
            print(f"{len(record.numbers)} measurements are there already", flush=True)
        if record.ignored:
            print(f"{record.ignored} lines are of other code or devices, and not used", flush=True)
        measurements = part_of(options.part).measurements(where)

        def result(unreached: Sequence[str]) -> dict[str, Any]:
            return result_of(options.part, record, about, where, unreached)

        def told(measurement: str, how: str, seconds: float) -> None:
            print(f"{time.strftime('%H:%M:%S')} {seconds:6.1f} s  {measurement}: {how}", flush=True)
            done = record.numbers.keys() | record.failures.keys()
            write(result([each for each in measurements if each not in done]), out)

        unreached = run(measurements, record, start, child, deadline, told)
        write(result(unreached), out)
    print()
    show(result(unreached))
    return 1 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())
