"""Write docs/benchmarks.md from the results in docs/bench/.

    python bench/benchmarks_page.py            write the page
    python bench/benchmarks_page.py --check    fail if the page does not match the results

A result is a file NAME.cpu.json or NAME.cuda.json in the format of parts/measuring.py, or
gpu.PART.json of bench/gpu.py; its picture, if there is one, is NAME.cpu.png beside it. The page has
no number that was not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parts.measuring import ROOT, cell, goal_line, is_met

RESULTS = ROOT / "docs" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"


class Bench(NamedTuple):
    """Section of a bench on the page.

    Attributes:
        title: title of the section.
        what: text about what the bench measures.
        on_gpu: options of its command on a GPU; None if it has no GPU mode.
    """

    title: str
    what: str
    on_gpu: str | None = "--device cuda"


BENCHES = {
    "fusion": Bench(
        "Training steps",
        "Useful tokens a second of all trials together, and the share of the device's peak that "
        "they use: our stack beside a plain training loop, several such processes, and "
        "`torch.func.vmap`.",
    ),
    "precision": Bench(
        "Losses in bfloat16",
        "Trials of lm.yaml in float32, with products in bfloat16, and in float32 with another "
        "seed: what the dtype changes, beside what chance changes.",
        None,
    ),
    "makespan": Bench(
        "A whole search",
        "Time of a complete search: ours beside Ray Tune with a process per trial, Optuna with a "
        "pool of processes, and a plain training loop under Optuna.",
        "--device cuda --space search_spaces/lm_gpu.yaml",
    ),
    "refill": Bench("Idle slots", "The share of slot time in which no trial trains."),
    "order": Bench(
        "Order of reports",
        "The share of slot time that a search loses because the order of its reports does not "
        "depend on timing, in searches on made-up slots.",
        None,
    ),
    "scaling": Bench(
        "How cost grows",
        "Exponents of cost by concurrent trials, by sizes of the model, and by number of trials of "
        "a search.",
    ),
    "transfer": Bench(
        "From a proxy to its target",
        "How far the best learning rate moves over widths and depths, with the factors of a proxy "
        "and without them, and the loss of a target with the rate of its proxy.",
        None,
    ),
}
# Parts of bench/gpu.py; a part has a section once it has a result.
GPU_PARTS = {
    "law": Bench(
        "The law on a GPU",
        "Is a trial a pure function of its specification: beside others, in any slot, after a "
        "refill, resumed, in a new process, without graphs, and in stacks of other widths? And "
        "what does determinism cost?",
    ),
    "kernel": Bench(
        "The update on a GPU",
        "The Triton kernel of AdamW: its errors against float64, and the bytes that it moves, as a "
        "share of what a large copy moves in the same time.",
    ),
    "fusion": Bench(
        "Training steps on a GPU",
        "Useful tokens a second of a stack beside plain loops, one and several processes that "
        "share the GPU, eager and compiled, and `torch.func.vmap`.",
    ),
    "profile": Bench(
        "Time of a tick on a GPU",
        "The largest kernels, the gaps between kernels, what refills and reports cost, and the "
        "calibrated number of slots beside the best one.",
    ),
    "search": Bench(
        "Searches on a GPU",
        "A shrunk `lm_gpu.yaml` beside Ray Tune and Optuna, its model at its real size, and a "
        "replay.",
    ),
}
KINDS = {"cpu": "CPU", "cuda": "GPU"}
_GPU = "gpu."  # begins the names of the parts of bench/gpu.py
ELSEWHERE = {
    "how well it searches": "bench/search_quality.md",
    "and where curves cross": "bench/search_quality_curves.md",
    "what a search costs beside training": "bench/overhead.md",
    "what a report costs": "bench/report.md",
    "how much a home holds": "bench/load.md",
    "the tokenizer beside others": "bench/tokenizer.md",
}


def command(name: str, kind: str) -> str | None:
    """Return the command that measures a bench and writes its result for this page."""
    if name.startswith(_GPU):
        part = name.removeprefix(_GPU)
        how = f"python bench/gpu.py --part {part} --out docs/bench"
        return how if kind == "cuda" else None
    words = ["python", f"bench/{name}.py"]
    if kind == "cuda":
        on_gpu = BENCHES[name].on_gpu if name in BENCHES else "--device cuda"
        if on_gpu is None:
            return None
        words.append(on_gpu)
    where = f"docs/bench/{name}.{kind}"
    return " ".join([*words, f"--out {where}.json --plot {where}.png"])


def results(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the results of a folder as (bench, kind of device) → result."""
    result_by_bench = {}
    for path in sorted(folder.glob("*.*.json")):
        name, kind = path.name.split(".")[:2]
        if name == "gpu" and kind in GPU_PARTS:
            name, kind = f"{_GPU}{kind}", "cuda"
        if kind not in KINDS:
            raise SystemExit(f"{path}: a result is called NAME.cpu.json or NAME.cuda.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        if (result["bench"], result["about"]["kind"]) != (name, kind):
            measured = f"{result['bench']} on {result['about']['kind']}"
            raise SystemExit(f"{path} is a result of {measured}; call it so")
        if result["about"].get("rehearsal"):
            raise SystemExit(f"{path} is of a rehearsal, which says nothing; remove it")
        result_by_bench[name, kind] = result
    return result_by_bench


def page(
    result_by_bench: Mapping[tuple[str, str], Mapping[str, Any]], pictures: Sequence[str] = ()
) -> str:
    """Return the page as Markdown.

    Args:
        result_by_bench: (bench, kind) → result.
        pictures: names of the picture files.
    """
    parts = [f"{_GPU}{part}" for part in GPU_PARTS if (f"{_GPU}{part}", "cuda") in result_by_bench]
    others = {name for name, _ in result_by_bench} - BENCHES.keys() - {*parts}
    names = [*BENCHES, *parts, *sorted(others)]
    elsewhere = ", ".join(f"[{what}]({where})" for what, where in ELSEWHERE.items())
    lines = [
        "# Benchmarks",
        "",
        "Measurements with their device, date and command. `make bench` measures and writes this "
        "page from the results in `docs/bench/`; it has no number that was not measured. A cell is "
        "the median of all rounds, followed by minimum and maximum. Ratios are computed round by "
        "round, because a busy minute of the machine slows both sides of a round.",
        "",
        f"On separate pages: {elsewhere}.",
        "",
        "| | " + " | ".join(KINDS.values()) + " |",
        "|---|" + "---|" * len(KINDS),
    ]
    for name in names:
        cells = [
            _in_short(result_by_bench.get((name, kind)), command(name, kind), kind)
            for kind in KINDS
        ]
        anchor = _title(name).lower().replace(" ", "-")
        lines.append(f"| [{_title(name)}](#{anchor}) | " + " | ".join(cells) + " |")
    for name in names:
        lines += ["", f"## {_title(name)}"]
        bench = _bench(name)
        if bench is not None:
            lines += ["", bench.what]
        for kind in KINDS:
            picture = f"{name}.{kind}.png"
            lines += _section(name, kind, result_by_bench.get((name, kind)), picture in pictures)
    missing = [f"{_GPU}{part}" for part in GPU_PARTS if f"{_GPU}{part}" not in parts]
    if missing:
        lines += [
            "",
            "## More on a GPU",
            "",
            f"So far {_missing('cuda')}. These commands measure:",
            "",
        ]
        lines += [f"- {_title(name)}: `{command(name, 'cuda')}`" for name in missing]
    return "\n".join([*lines, ""])


def _bench(name: str) -> Bench | None:
    return BENCHES.get(name) or GPU_PARTS.get(name.removeprefix(_GPU))


def _title(name: str) -> str:
    bench = _bench(name)
    return name if bench is None else bench.title


def _in_short(result: Mapping[str, Any] | None, command: str | None, kind: str) -> str:
    """Return the cell of a bench on a kind of device."""
    if result is None:
        return "–" if command is None else _missing(kind)
    date, goals = result["about"]["date"], result["goals"]
    if not goals:
        return f"measured on {date}"
    return f"{sum(map(is_met, goals))} of {len(goals)} goals met on {date}"


def _missing(kind: str) -> str:
    return "no GPU was available" if kind == "cuda" else "not measured yet"


def _section(
    name: str, kind: str, result: Mapping[str, Any] | None, has_picture: bool
) -> Iterator[str]:
    """Yield the lines about a bench on one kind of device."""
    if result is None:
        how = command(name, kind)
        if how is not None:
            yield from ["", f"**{KINDS[kind]}**: {_missing(kind)}; `{how}` measures it."]
        return
    about = result["about"]
    cores = f", {about['cores']} cores" if kind == "cpu" else ""
    yield from ["", f"### {KINDS[kind]}: {about['device']}{cores}", ""]
    yield f"Measured on {about['date']} by `{about['command']}`, with a load of {about['load']:g}"
    yield f"({', '.join(f'{package} {each}' for package, each in about['versions'].items())})."
    for table in result["tables"]:
        yield from ["", f"**{_escaped(table['title'])}**", "", *_rows(table)]
    if has_picture:
        yield from ["", f"![{_title(name)}, {about['device']}](bench/{name}.{kind}.png)"]
    if result["goals"]:
        yield from ["", "Goals:", ""]
        yield from (_goal(each) for each in result["goals"])
    if result["notes"]:
        yield from ["", *(f"- {_escaped(note)}" for note in result["notes"])]


def _rows(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table, numbers on the right."""
    yield "| " + " | ".join(map(_escaped, table["columns"])) + " |"
    yield "|---|" + "---:|" * (len(table["columns"]) - 1)
    for row in table["rows"]:
        yield "| " + " | ".join(_escaped(cell(value)) for value in row) + " |"


def _goal(goal: Mapping[str, Any]) -> str:
    verdict, rest = goal_line(goal).split(maxsplit=1)
    return f"- {verdict if is_met(goal) else '**missed**'}: {_escaped(rest)}"


def _escaped(text: str) -> str:
    """Return text with escaped Markdown, except code in backticks."""
    parts = text.split("`")
    for mark in "\\|*_<[":
        parts[::2] = [part.replace(mark, f"\\{mark}") for part in parts[::2]]
    return "`".join(parts)


def made() -> str:
    """Return the page of the results in docs/bench/."""
    return page(results(RESULTS), [path.name for path in RESULTS.glob("*.png")])


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only check the page")
    options = parser.parse_args()
    if not options.check:
        PAGE.write_text(made(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made():
        print("docs/benchmarks.md does not match the results: run python bench/benchmarks_page.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
