"""Part `search` of gpu.py: whole searches, by bench/makespan.py and tuner itself.

lm_gpu.yaml is shrunk to a model of 1M parameters and trials of some seconds, so that a search of
each side ends within minutes. Then lm_gpu.yaml's model trains at its real size, in two short
trials, and the better one is replayed.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where, of_kind
from parts.measuring import BENCH, ROOT, completed, last_message, module_command
from parts.nvidia_smi import GpuSamples

SPACE = ROOT / "search_spaces" / "lm_gpu.yaml"
# entry → its values in the shrunk space, and in that of a rehearsal
SHRUNK: Mapping[str, tuple[str, str]] = {
    "d_model": ("128", "16"),
    "n_layers": ("3", "1"),
    "n_heads": ("4", "2"),
    "context_length": ("128", "32"),
    "vocab_size": ("2048", "512"),
    "B": ("{choice: [8, 16]}", "{choice: [8, 16]}"),
    "tokens": ("2_000_000", "10_000"),
    "validation_tokens": ("65_536", "2_048"),
    "slots": ("auto", "2"),
}
TRIALS = 32
REAL_TOKENS, REAL_TRIALS = 3_000_000, 2
SIDES = {
    "ours": "tuner search",
    "ray": "Ray Tune, process per trial",
    "optuna-pool": "Optuna, processes reused",
}
LEAST_FASTER = {"ray": 8.7, "optuna-pool": 1.0}  # times as fast
MOST_IDLE = 0.03
_SLOTS = (8, 32)  # of the searches in which idle slots are counted


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part."""
    sides = ["optuna-pool"] if where.quick else [*SIDES]
    found = {f"beside, {side}": Measurement(partial(beside, side), 100) for side in sides}
    found["real size"] = Measurement(real_size, 150)
    for k in () if where.quick else _SLOTS:
        found[f"idle slots, {k}"] = Measurement(partial(idle_slots, k), 75)
    return found


def shrunk(text: str, *, quick: bool) -> str:
    """Return the text of lm_gpu.yaml for a small model and short trials.

    Raises:
        ValueError: if an entry is not there exactly once.
    """
    for name, values in SHRUNK.items():
        value = values[quick]
        pattern = rf"(?m)((?:^ +|[{{,] *){name}: *)(\{{[^}}]*\}}|[^\s,}}]+)"
        text, count = re.subn(pattern, rf"\g<1>{value}", text)
        if count != 1:
            raise ValueError(f"{SPACE.name} has {count} entries {name}")
    return text


def _space(folder: Path, where: Where) -> Path:
    path = folder / "lm_gpu.yaml"
    path.write_text(shrunk(SPACE.read_text(encoding="utf-8"), quick=where.quick), encoding="utf-8")
    return path


def _run(
    command: list[str], where: Where, environment: Any = None, *, statuses: tuple[int, ...] = (0,)
) -> str:
    """Run a command; return its output.

    Raises:
        RuntimeError: if it ends with another status; its messages go to the log.
    """
    done = completed(command, environment, where.limit)
    print(done.stdout, done.stderr, sep="\n")  # to the log
    if done.returncode not in statuses:
        name = Path(command[1]).name
        raise RuntimeError(f"{name} ended with {done.returncode}: {last_message(done)}")
    return done.stdout


def _makespan(side: str, where: Where, *options: str) -> Numbers:
    """Run bench/makespan.py on the shrunk space; return the numbers of a side."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "result.json")
        command = [sys.executable, str(BENCH / "makespan.py"), "--sides", side, *options]
        command += ["--device", where.device.partition(":")[0]]
        command += ["--space", str(_space(Path(folder), where)), "--out", str(out)]
        _run(command, where)
        (run,) = json.loads(out.read_text(encoding="utf-8"))["numbers"][side]
        return dict(run)


def beside(side: str, where: Where) -> Numbers:
    """Run the whole search of one side, from start to end."""
    run = _makespan(side, where, "--trials", str(2 if where.quick else TRIALS))
    names = ("wall", "tokens", "first_training", "training", "best", "trials", "complete")
    return {name: run[name] for name in names}


def idle_slots(k: int, where: Where) -> Numbers:
    """Count the idle slots of a search."""
    run = _makespan("ours", where, "--trials", "64", "--slots", str(k))
    return {**run["slots"], "wall_seconds": run["wall"]}


def real_size(where: Where) -> Numbers:
    """Train two short trials of lm_gpu.yaml's model by `tuner search`; replay the better one."""
    with tempfile.TemporaryDirectory() as folder, GpuSamples(enabled=where.on_gpu) as gpu:
        home, watched = Path(folder, "home"), Path(folder, "watch.json")
        space = _space(Path(folder), where) if where.quick else SPACE
        tokens = 10_000 if where.quick else REAL_TOKENS
        device = where.device.partition(":")[0]
        search = ["search", "--json", "--home", str(home), "--space", str(space)]
        chosen = {"engine.device": device, "budget.tokens": tokens, "confirm": "off"}
        chosen |= {"search.trials": REAL_TRIALS, "search.scheduler": "none"}
        for name, value in chosen.items():
            search += ["--set", f"{name}={value}"]
        command, environment = module_command("parts.watched_search", str(watched), *search)
        began = time.monotonic()
        output = _run(command, where, environment)
        seconds = time.monotonic() - began
        watch = json.loads(watched.read_text())
        peak = gpu.peak
        replay, environment = module_command("tuner", "replay", "--json", "--home", str(home))
        began = time.monotonic()
        replayed = _run(replay, where, environment, statuses=(0, 1))  # 1: it differs
        trained = sum(usage["training_seconds"] for usage in watch["usage"])
        return {
            "seconds": seconds,
            "tokens": sum(usage["tokens"] for usage in watch["usage"]),
            "training_seconds": trained,
            "best": json.loads(output.splitlines()[-1])["best_val_loss"],
            "peak_bytes": peak,
            "replay_seconds": time.monotonic() - began,
            "replay": json.loads(replayed.splitlines()[-1])["verdict"],
        }


# the result --------------------------------------------------------------------------------------


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    found = []
    searches = of_kind(numbers, "beside")
    if searches:
        rows = [
            [SIDES[side], each["wall"], each["first_training"], each["tokens"],
             1e6 * each["wall"] / each["tokens"], each["training"], f"{each['best']:.4f}"]
            for side, each in searches.items()
        ]  # fmt: skip
        columns = [
            "side", "wall, s", "training after, s", "tokens", "s per million tokens",
            "GPU busy", "best loss",
        ]  # fmt: skip
        title = f"{TRIALS} trials of lm_gpu.yaml, shrunk to 1M parameters"
        found.append({"title": title, "columns": columns, "rows": rows})
    idle = of_kind(numbers, "idle slots")
    if idle:
        rows = [
            [int(k), each["idle"], each["training"], int(each["refills"]), each["ms_per_refill"]]
            for k, each in idle.items()
        ]
        columns = ["slots", "idle", "training", "refills", "ms a refill"]
        found.append({"title": "Idle slots of a search", "columns": columns, "rows": rows})
    if "real size" in numbers:
        each = numbers["real size"]
        rows = [
            ["tokens/s in training", each["tokens"] / each["training_seconds"]],
            ["the search, s", each["seconds"]],
            ["GiB of the GPU", each["peak_bytes"] / 2**30],
            ["replay of the best trial, s", each["replay_seconds"]],
            ["verdict of the replay", each["replay"]],
        ]
        title = "lm_gpu.yaml's model at its real size, two short trials"
        found.append({"title": title, "columns": ["", ""], "rows": rows})
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    searches = of_kind(numbers, "beside")
    ours = searches.get("ours")
    for side, least in LEAST_FASTER.items():
        other = searches.get(side)
        faster = other["wall"] / ours["wall"] if ours and other else None
        found.add(f"a search, times as fast as {SIDES[side]}", faster, least=least)
    idle = [each["idle"] for each in of_kind(numbers, "idle slots").values()]
    found.add("share of slot-time that is idle", max(idle, default=None), most=MOST_IDLE)
    real = numbers.get("real size")
    differs = int(real["replay"] != "bit-exact") if real else None
    found.add("replayed trials of lm_gpu.yaml's model that differ", differs, most=0)
    return found


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    searches = of_kind(numbers, "beside")
    if not searches:
        return []
    return [
        "Each side ran once. Ours writes checkpoints, a journal, MLflow runs and an HTML report; "
        "the others do not. GPU busy is the share of samples of nvidia-smi."
    ]
