"""LoRA trials in one process over one base, beside processes of transformers and PEFT.

    python bench/lora.py                  a model of 10 million weights, 1 and 8 trials
    python bench/lora.py --quick          a tiny one, 1 and 2 trials: a test of the bench
    python bench/lora.py --out FILE.json  also write the result

All trials have rank 8 on all matrices and random tokens. *Ours*: one engine, whose trials take
turns. *Processes*: one trial in each of K processes of transformers, PEFT and torch's AdamW at one
time. *One by one*: such a process after the other. Tokens a second are of a second of the
processor, the first two updates left out, so that other work on the machine changes little. Memory
is the largest sum of proportional set sizes: pages that processes share count once.

*Rates*: a small Llama is trained on the standard library, exported, and imported by trials on
functions and their docstrings, each at equally many tokens.

*Search*: 24 trials by `tuner search`, from the start of its process to its end with all that it
writes, and the same trials by Optuna, a pool of a process for each core with transformers and PEFT.
*Import*: a Llama of 500 MB as a search reads it, digest included, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts.lora.setting import SIZES, VOCAB
from parts.measuring import (
    ROOT,
    about,
    add_options,
    brief,
    by_turns,
    completed,
    finish,
    goal,
    last_message,
    module_command,
    ratios,
    spread,
)
from parts.memory import pss_bytes

sys.path.append(str(ROOT))

DTYPES = ("float32", "mixed_bfloat16")
LEAST = {"float32": 1.2, "mixed_bfloat16": 2.0}  # times as many tokens a second as PEFT
MOST_MEMORY = 1.5  # of K trials, as a multiple of one
_PERIOD_SECONDS = 0.05
_LONGEST_SECONDS = 7_200


def write_base(folder: Path, size: str) -> None:
    """Write a Llama of random weights in the format of Hugging Face, and random tokens."""
    import numpy as np
    from safetensors.torch import save_file

    from model.exchange.families import FAMILIES
    from model.network.transformer import initial_weight
    from model.spec.architecture import Architecture, parameter_shapes

    a, family = Architecture(**SIZES[size].model, vocab_size=VOCAB), FAMILIES["llama"]
    weights = {n: initial_weight(0, n, shape) for n, shape in parameter_shapes(a).items()}
    save_file(family.export(a, weights), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.config(a)), encoding="utf-8")
    np.save(
        folder / "tokens.npy", np.random.default_rng(0).integers(VOCAB, size=20_000, dtype="u2")
    )


def run(commands: list[list[str]]) -> dict[str, float]:
    """Run programs at one time; return tokens a second of the processor, and their peak memory."""
    processes = []
    for command in commands:
        line, environment = module_command(*command)
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        processes.append(subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True))
    peak = 0
    while any(process.poll() is None for process in processes):
        peak = max(peak, pss_bytes([process.pid for process in processes]))
        time.sleep(_PERIOD_SECONDS)
    found = []
    for process in processes:
        assert process.stdout is not None
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, process.args))} failed")
        found.append(json.loads(process.stdout.read().splitlines()[-1]))
    tokens, seconds = (sum(each[key] for each in found) for key in ("tokens", "seconds"))
    return {"rate": tokens / seconds, "megabytes": peak / 1e6, "loss": found[0]["loss"]}


def measure(folder: Path, size: str, trials: int, ticks: int, rounds: int) -> dict[str, Any]:
    """Return dtype → side → numbers of each round."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        ours = ["parts.lora.ours", str(folder), size]
        theirs = ["parts.lora.theirs", str(folder), size, str(ticks), dtype]
        sides = {
            "ours, 1": lambda ours=ours, d=dtype: run([[*ours, "1", str(ticks), d]]),
            f"ours, {trials}": lambda ours=ours, d=dtype: run(
                [[*ours, str(trials), str(ticks), d]]
            ),
            "one by one": lambda theirs=theirs: run([theirs]),
            f"processes, {trials}": lambda theirs=theirs: run([theirs] * trials),
        }
        found[dtype] = by_turns(sides, rounds)
    return found


def load(folder: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    """Return dtype of a folder → what its import took in each round."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        place = folder / dtype
        place.mkdir()
        _printed("parts.lora.loading", str(place), str(megabytes), dtype)
        found[dtype] = [_printed("parts.lora.loading", str(place)) for _ in range(rounds)]
    return found


def search(folder: Path, size: str, trials: int, ticks: int) -> dict[str, Any]:
    """Return wall seconds and losses of a search of ours, and of Optuna's pool with its trials."""
    from parts.lora.search import write_text

    from model.corpus.token_files import train_on_files
    from model.spec.data import DataConfig

    write_text(folder)
    data = DataConfig(files=(str(folder / "text.txt"),))
    train_on_files(data, folder, vocab_size=VOCAB)
    cores = os.cpu_count() or 1
    found = {}
    for name, command in (
        ("tuner search", ("search", str(folder), size, str(trials), str(ticks))),
        ("Optuna's pool, PEFT", ("pool", str(folder), size, str(ticks), str(cores))),
    ):
        begun = time.perf_counter()
        module, *arguments = command
        printed = _printed(f"parts.lora.{module}", *arguments)
        found[name] = {"seconds": time.perf_counter() - begun, "losses": printed["losses"]}
    return found


def _printed(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module; return the JSON object that it prints."""
    command, environment = module_command(module, *arguments)
    done = completed(command, {**environment, "HF_HUB_OFFLINE": "1"}, _LONGEST_SECONDS)
    if done.returncode:
        raise SystemExit(last_message(done))
    lines = done.stdout.splitlines()
    printed: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return printed


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: of the parts that were measured: as `speed` dtype → side → for each round rate,
            megabytes and loss; as `rates` side → what `parts.lora.rates` prints; as `loading` dtype
            → what `parts.lora.loading` prints in each round; as `search` side → seconds and losses
            of the trials.
        about: `measuring.about`, with the number of trials.
    """
    tables, goals = [], []
    for part, own in numbers.items():
        table, reached = _TABLES[part](own, about)
        tables.append(table)
        goals += reached
    note = (
        f"Tokens of *LoRA trials* are random, so that the loss stays near {_uniform():.1f}; both "
        f"sides begin with the same weights."
    )
    return {
        "bench": "lora",
        "about": about,
        "tables": tables,
        "goals": [] if about["rehearsal"] else goals,
        "notes": [note] if "speed" in numbers else [],
        "numbers": numbers,
    }


Table = tuple[dict[str, Any], list[Any]]  # and its goals


def _speed_table(numbers: dict[str, Any], about: dict[str, Any]) -> Table:
    trials = about["trials"]
    many, processes = f"ours, {trials}", f"processes, {trials}"
    rows, goals = [], []
    for dtype, sides in numbers.items():
        rates = {name: [each["rate"] for each in rounds] for name, rounds in sides.items()}
        memory = {name: [each["megabytes"] for each in rounds] for name, rounds in sides.items()}
        rows += [
            [f"{name}, {dtype}", brief(rates[name]),
             brief(ratios(rates[name], rates["one by one"])), brief(memory[name]),
             sides[name][0]["loss"]]
            for name in sides
        ]  # fmt: skip
        fast = ratios(rates[many], rates[processes]).median
        goals.append(goal(f"tokens a second beside PEFT, {dtype}", fast, least=LEAST[dtype]))
        large = ratios(memory[many], memory["ours, 1"]).median
        what = f"memory of {trials} trials, of that of one, {dtype}"
        goals.append(goal(what, large, most=MOST_MEMORY))
    columns = ["side", "tokens/s of a core", "times PEFT", "peak MB", "loss"]
    title = f"LoRA trials of a model of {about['size']}"
    return {"title": title, "columns": columns, "rows": rows}, goals


def _rates_table(numbers: dict[str, Any], about: dict[str, Any]) -> Table:
    return {
        "title": "Rates: loss on held-out text after equally many tokens",
        "columns": ["side", "best α_max", "its loss, other seeds", "loss by α_max"],
        "rows": [_rates(side, each) for side, each in numbers.items()],
    }, []


def _loading_table(numbers: dict[str, Any], about: dict[str, Any]) -> Table:
    rows, goals = [], []
    for dtype, rounds in numbers.items():
        seconds = [each["seconds"] for each in rounds]
        times = [each["memory_bytes"] / each["bytes"] for each in rounds]
        rows.append([dtype, rounds[0]["bytes"] / 1e6, brief(seconds), brief(times)])
        goals.append(goal(f"seconds to import 500 MB, {dtype}", spread(seconds).median, most=3.0))
        what = f"memory of an import, of the weights, {dtype}"
        goals.append(goal(what, spread(times).median, most=1.2))
    columns = ["dtype", "MB as float32", "s", "memory, of the weights"]
    return {"title": "Import of a folder of safetensors", "columns": columns, "rows": rows}, goals


def _search_table(numbers: dict[str, Any], about: dict[str, Any]) -> Table:
    ours, theirs = numbers.values()
    share = ours["seconds"] / theirs["seconds"]
    rows = [
        [side, each["seconds"], spread(each["losses"]), min(each["losses"])]
        for side, each in numbers.items()
    ]
    return {
        "title": f"A search of {len(ours['losses'])} trials",
        "columns": ["side", "wall s", "loss of the trials, median and range", "best"],
        "rows": rows,
    }, [goal("wall time of a search, of that of Optuna's pool", share, most=0.5)]


_TABLES = {
    "speed": _speed_table, "rates": _rates_table, "loading": _loading_table,
    "search": _search_table,
}  # fmt: skip


def _rates(side: str, found: dict[str, Any]) -> list[Any]:
    seeds = [loss for loss in found["seeds"] if loss is not None]
    pairs = zip(found["rates"], found["losses"], strict=True)
    curve = ", ".join(f"{rate:g}: {'–' if loss is None else f'{loss:.3f}'}" for rate, loss in pairs)
    return [side, found["best"], spread(seeds) if seeds else None, curve]


def _uniform() -> float:
    return math.log(VOCAB)


def main() -> int:
    """Measure all sides, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of each side")
    parser.add_argument("--ticks", type=int, default=12, help="of each trial")
    parser.add_argument("--trials", type=int, default=24, help="of the search")
    parser.add_argument("--parts", nargs="+", choices=[*_TABLES], default=[*_TABLES])
    add_options(parser, "a tiny model, 1 and 2 trials", has_picture=False)
    options = parser.parse_args()
    size, trials = ("tiny", 2) if options.quick else ("10M", 8)
    rounds, ticks = (1, 2) if options.quick else (options.rounds, options.ticks)

    def part(name: str, folder: Path) -> dict[str, Any]:
        if name == "rates":
            return _printed("parts.lora.rates", str(folder), *["quick"] * options.quick)
        if name == "loading":
            return load(folder, 20 if options.quick else 500, rounds)
        write_base(folder, size)
        if name == "search":
            return search(folder, size, 2 if options.quick else options.trials, ticks)
        return measure(folder, size, trials, ticks, rounds)

    numbers = {}
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            numbers[name] = part(name, Path(folder))
    facts = about(
        ["torch", "transformers", "peft"], rehearsal=options.quick, size=size, trials=trials
    )
    finish(result_of(numbers, facts), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
