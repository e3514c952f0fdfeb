"""Part `lora` of gpu.py: LoRA trials in one engine beside processes of PEFT that share the GPU.

The sides are those of bench/lora.py, in wall time. Random tokens, rank 8 on all matrices.

K = trials of the engine.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where

LEAST = 5.0  # times as many tokens a second as processes that share the GPU
MOST_MEMORY = 1.5  # of 8 trials, as a multiple of one
TICKS = 20


def sizes(where: Where) -> tuple[str, ...]:
    """Return the models, names of `parts.lora.setting.SIZES`."""
    return ("tiny",) if where.quick else ("10M", "106M")


def widths(where: Where) -> tuple[int, ...]:
    """Return the numbers of trials of our engine."""
    return (1, 2) if where.quick else (1, 2, 4, 8, 16, 32, 64)


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part."""
    found: dict[str, Measurement] = {}
    for name in sizes(where):
        found[f"{name}: by K"] = Measurement(partial(by_width, name), 120)
        found[f"{name}: beside PEFT"] = Measurement(partial(beside, name), 120)
    return found


@contextmanager
def _base(size: str) -> Iterator[Path]:
    from lora import write_base

    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder), size)
        yield Path(folder)


def by_width(name: str, where: Where) -> Numbers:
    """Measure our engine with more and more trials, until memory runs out."""
    from model.device.memory import is_out_of_memory
    from parts.lora.ours import main as train

    by_k: dict[str, Any] = {}
    ended = ""
    with _base(name) as folder:
        for k in widths(where):
            try:
                ticks = 2 if where.quick else TICKS
                by_k[str(k)] = train(folder, name, k, ticks, where.dtype, where.device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                ended = f"{k} trials do not fit into the memory of the GPU"
                break
    return {"by_width": by_k, "ended": ended}


def beside(name: str, where: Where) -> Numbers:
    """Measure processes of PEFT, alone and several at one time."""
    by_processes = {}
    with _base(name) as folder:
        for count in (1, 2) if where.quick else (1, 4, 8):
            by_processes[str(count)] = _processes(folder, name, count, where)
    return {"by_processes": by_processes, "sharing": where.sharing}


def _processes(folder: Path, name: str, count: int, where: Where) -> dict[str, float]:
    """Run programs at one time; return tokens of all and the wall seconds of the slowest."""
    from parts.measuring import module_command

    ticks = "2" if where.quick else str(TICKS)
    dtype = "mixed_bfloat16" if where.dtype == "bfloat16" else "float32"
    command, environment = module_command(
        "parts.lora.theirs", str(folder), name, ticks, dtype, where.device
    )
    environment |= {**where.shared, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a process of PEFT failed; is it installed?")
    found = [json.loads(lines.splitlines()[-1]) for lines in printed]
    tokens = sum(each["tokens"] for each in found)
    return {"tokens": tokens, "wall": max(each["wall"] for each in found)}


# the result --------------------------------------------------------------------------------------


def _rate(each: Mapping[str, float]) -> float:
    return each["tokens"] / each["wall"]


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    found = []
    for name, each in numbers.items():
        if "by_width" in each:
            rows: Sequence[Any] = [
                [int(k), _rate(one), one["peak_bytes"] / 1e6 or None]
                for k, one in each["by_width"].items()
            ]
            title, columns = f"LoRA trials, {name}", ["K", "tokens/s", "peak MB of the GPU"]
        else:
            rows = [[int(k), _rate(one)] for k, one in each["by_processes"].items()]
            title, columns = f"LoRA trials, {name}", ["processes", "tokens/s"]
        found.append({"title": title, "columns": columns, "rows": rows})
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    for name in dict.fromkeys(["10M", "106M", *(each.partition(":")[0] for each in numbers)]):
        ours = numbers.get(f"{name}: by K", {}).get("by_width", {})
        theirs = numbers.get(f"{name}: beside PEFT", {}).get("by_processes", {})
        best = max(map(_rate, ours.values()), default=None)
        other = max(map(_rate, theirs.values()), default=None)
        over = best / other if best and other else None
        found.add(f"{name}: times as fast as processes of PEFT", over, least=LEAST)
        large = None
        if "8" in ours and ours["1"]["peak_bytes"]:
            large = ours["8"]["peak_bytes"] / ours["1"]["peak_bytes"]
        found.add(f"{name}: memory of 8 trials, of that of one", large, most=MOST_MEMORY)
    return found


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    said = ["Tokens a second are of wall time, without the first updates."]
    for each in numbers.values():
        said += [text for text in (each.get("ended"), each.get("sharing")) if text]
    return [*dict.fromkeys(said)]
