"""docs/benchmarks.md, made of the results in docs/bench/.

    python bench/benchmarks_page.py            write the page
    python bench/benchmarks_page.py --check    fail if it is not what the results say

A result is a file NAME.cpu.json or NAME.cuda.json of the form in measuring.py, and its picture,
if there is one, is beside it, NAME.cpu.png. What was not measured has no number here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measuring import ROOT, cell, goal_line, is_met

RESULTS = ROOT / "docs" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"


class Bench(NamedTuple):
    """A bench that has its place on the page.

    Attributes:
        title: of its section.
        what: it measures, in a sentence or two.
        on_gpu: what its command needs on a GPU; None if it has nothing to do there.
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
    "makespan": Bench(
        "A whole search",
        "The same search from its first line to its last: ours beside Ray Tune with a process per "
        "trial, and Optuna with a pool of processes.",
        "--device cuda --space search_spaces/lm_gpu.yaml",
    ),
    "refill": Bench("Idle slots", "The share of slot time in which no trial trains."),
    "scaling": Bench(
        "How cost grows",
        "With trials at a time, with the sizes of the model, and with the number of trials of a "
        "search.",
    ),
}
KINDS = {"cpu": "CPU", "cuda": "GPU"}
ELSEWHERE = {
    "how well it searches": "bench/search_quality.md",
    "what a search costs beside training": "bench/overhead.md",
    "what a report costs": "bench/report.md",
    "the tokenizer beside others": "bench/tokenizer.md",
}


def command(name: str, kind: str) -> str | None:
    """What measures a bench on a kind of device and leaves its result where this page finds it."""
    words = ["python", f"bench/{name}.py"]
    if kind == "cuda":
        on_gpu = BENCHES[name].on_gpu if name in BENCHES else "--device cuda"
        if on_gpu is None:
            return None
        words.append(on_gpu)
    where = f"docs/bench/{name}.{kind}"
    return " ".join([*words, f"--out {where}.json --plot {where}.png"])


def results(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(bench, kind of device) → result."""
    found = {}
    for path in sorted(folder.glob("*.*.json")):
        name, kind = path.name.split(".")[:2]
        if kind not in KINDS:
            raise SystemExit(f"{path}: a result is called NAME.cpu.json or NAME.cuda.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        if (result["bench"], result["about"]["kind"]) != (name, kind):
            measured = f"{result['bench']} on {result['about']['kind']}"
            raise SystemExit(f"{path} is a result of {measured}; call it so")
        found[name, kind] = result
    return found


def page(found: Mapping[tuple[str, str], Mapping[str, Any]], pictures: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        found: (bench, kind) → result.
        pictures: names of the files beside the results.
    """
    names = [*BENCHES, *sorted({name for name, _ in found} - BENCHES.keys())]
    elsewhere = ", ".join(f"[{what}]({where})" for what, where in ELSEWHERE.items())
    lines = [
        "# Benchmarks",
        "",
        "What was measured, on which device, when, and with which command. `make bench` makes this "
        "page of the results in `docs/bench/`: a number that was not measured is not on it. A cell "
        "is the median of all rounds, with the least and the most behind it; ratios are taken "
        "round by round, as a busy minute of the machine slows both sides of one.",
        "",
        f"On pages of their own: {elsewhere}.",
        "",
        "| | " + " | ".join(KINDS.values()) + " |",
        "|---|" + "---|" * len(KINDS),
    ]
    for name in names:
        cells = [_in_short(found.get((name, kind)), command(name, kind), kind) for kind in KINDS]
        anchor = _title(name).lower().replace(" ", "-")
        lines.append(f"| [{_title(name)}](#{anchor}) | " + " | ".join(cells) + " |")
    for name in names:
        lines += ["", f"## {_title(name)}"]
        if name in BENCHES:
            lines += ["", BENCHES[name].what]
        for kind in KINDS:
            picture = f"{name}.{kind}.png"
            lines += _section(name, kind, found.get((name, kind)), picture in pictures)
    return "\n".join([*lines, ""])


def _title(name: str) -> str:
    return BENCHES[name].title if name in BENCHES else name


def _in_short(result: Mapping[str, Any] | None, command: str | None, kind: str) -> str:
    """A bench on a kind of device, in a cell."""
    if result is None:
        return "–" if command is None else _missing(kind)
    date, goals = result["about"]["date"], result["goals"]
    if not goals:
        return f"measured on {date}"
    return f"{sum(map(is_met, goals))} of {len(goals)} goals met on {date}"


def _missing(kind: str) -> str:
    return "no GPU was at hand" if kind == "cuda" else "not measured yet"


def _section(
    name: str, kind: str, result: Mapping[str, Any] | None, has_picture: bool
) -> Iterator[str]:
    """A bench on one kind of device."""
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
    """A table; numbers stand on the right."""
    yield "| " + " | ".join(map(_escaped, table["columns"])) + " |"
    yield "|---|" + "---:|" * (len(table["columns"]) - 1)
    for row in table["rows"]:
        yield "| " + " | ".join(_escaped(cell(value)) for value in row) + " |"


def _goal(goal: Mapping[str, Any]) -> str:
    verdict, rest = goal_line(goal).split(maxsplit=1)
    return f"- {verdict if is_met(goal) else '**missed**'}: {_escaped(rest)}"


def _escaped(text: str) -> str:
    """Text that Markdown takes as it is, but for code in backticks."""
    parts = text.split("`")
    for mark in "\\|*_<[":
        parts[::2] = [part.replace(mark, f"\\{mark}") for part in parts[::2]]
    return "`".join(parts)


def made() -> str:
    """The page of the results in the tree."""
    return page(results(RESULTS), [path.name for path in RESULTS.glob("*.png")])


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether it is right")
    options = parser.parse_args()
    if not options.check:
        PAGE.write_text(made(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made():
        print("docs/benchmarks.md is not what the results say: python bench/benchmarks_page.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
