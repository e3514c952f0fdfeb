"""Write docs/benchmarks.md, and the pages of single benches, from the results in docs/bench/.

    python bench/benchmarks_page.py            write the pages
    python bench/benchmarks_page.py --check    fail if a page does not match the results

A result is a file NAME.cpu.json in the format of parts/measuring.py, or gpu.PART.json of
bench/gpu.py; its picture, if there is one, lies beside it as PNG. The pages have no number that was
not measured.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parts.measuring import BENCH, ROOT, cell, goal_line, is_met

DOCS = ROOT / "docs"
RESULTS = DOCS / "bench"
LAST_COMMIT = "e46d9ad"  # that has the code of the finished experiments


class Bench(NamedTuple):
    """Section of a bench.

    Attributes:
        title: title of the section.
        page: its own page in docs/bench; empty for a section of docs/benchmarks.md.
        what: text about what was measured; by default the docstring of the bench says it.
    """

    title: str
    page: str = ""
    what: str = ""


_LEARNING = (
    "Searches replayed on a table of trained configurations, as on the page of [search quality]"
    "(search_quality.md). *Learned from the atlas* has the proposals of the shipped atlas without "
    "the table's text and models of its size. Sources that *mislead* propose the worst "
    "configurations, some at random, the best with a rate ten times too low, or what is good after "
    "one report and bad at the end. *Perfect* samplers and proposals know the table."
)
BENCHES = {
    "search_quality": Bench("Does the search search well?", "search_quality.md"),
    "search_quality_curves": Bench("Where curves cross", "search_quality_curves.md"),
    "learning": Bench("Searches that learn", "learning.md", _LEARNING),
    "learning_curves": Bench(
        "Searches that learn, where curves cross", "learning_curves.md", _LEARNING
    ),
    "suggest": Bench("Suggestions without a trial", "suggest.md"),
    "left": Bench(
        "How much is left",
        "left.md",
        "How often the interval of the best loss after as many trials again holds the truth. "
        "*random*: random orders of the configurations of a table, trained to the end; the truth "
        "is the best of as many further ones. *bowl*: random points of made-up quadratics with the "
        "noise of seeds, whose least height is 3. *sampler · scheduler*: searches replayed on a "
        "table, one slot; the truth is the best of the same search with twice as many trials. The "
        "share of losses that counts as the tail was chosen with the first two bowls, the factors "
        "for samplers that learn and schedulers that compare with the replays. *% left at most* is "
        "the far end of the interval, and should be near the 95 % quantile of the gain.",
    ),
    "fusion": Bench("Training steps"),
    "lora": Bench("LoRA trials over one base"),
    "makespan": Bench("A whole search"),
    "transfer": Bench("From a proxy to its target"),
    "stack": Bench("Servers of a team"),
    "overhead": Bench("What a search costs beside training", "overhead.md"),
    "load": Bench("How much a home holds", "load.md"),
    "serve": Bench("A server of many searches"),
    "pages": Bench("Pages of many trials"),
    "tokenizer": Bench("The tokenizer beside others", "tokenizer.md"),
}
GPU = {
    "gpu.law": Bench("The law on a GPU"),
    "gpu.kernel": Bench("The update on a GPU"),
    "gpu.fusion": Bench("Training steps on a GPU"),
    "gpu.lora": Bench("LoRA trials on a GPU"),
    "gpu.profile": Bench("Time of a tick on a GPU"),
    "gpu.search": Bench("Searches on a GPU"),
}
FINISHED = {
    "report": Bench(
        "What a report costs",
        "report.md",
        "Making the page of a search (`tuner report`), importances included, and its PNGs "
        "(`--png`). Of the size, 4.8 MB are Plotly's script, so that the page needs no network. "
        "The first page of a process also imports what draws and counts.",
    ),
    "precision": Bench(
        "Losses in bfloat16",
        what="Trials of lm.yaml in float32, with products in bfloat16, and in float32 with another "
        "seed: what the dtype changes, beside what chance changes.",
    ),
    "refill": Bench("Idle slots", what="The share of slot time in which no trial trains."),
    "order": Bench(
        "Order of reports",
        what="The share of slot time that a search loses because the order of its reports does not "
        "depend on timing, in searches on made-up slots.",
    ),
    "scaling": Bench(
        "How cost grows",
        what="Exponents of cost by concurrent trials, by sizes of the model, and by number of "
        "trials of a search.",
    ),
}
ALL = {**BENCHES, **GPU, **FINISHED}
Results = Mapping[str, Mapping[str, Any]]  # name of a bench → its result


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results of a folder as bench → result."""
    result_by_bench = {}
    for path in sorted(folder.glob("*.*.json")):
        name, kind = path.name.removesuffix(".json"), "cuda"
        if name not in GPU:
            name, _, kind = name.rpartition(".")
            if kind != "cpu" or name not in ALL:
                raise SystemExit(f"{path}: a result is called BENCH.cpu.json or gpu.PART.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        if (result["bench"], result["about"]["kind"]) != (name, kind):
            measured = f"{result['bench']} on {result['about']['kind']}"
            raise SystemExit(f"{path} is a result of {measured}; call it so")
        if result["about"].get("rehearsal"):
            raise SystemExit(f"{path} is of a rehearsal, which says nothing; remove it")
        result_by_bench[name] = result
    return result_by_bench


def pages(result_by_bench: Results, pictures: Sequence[str] = ()) -> dict[Path, str]:
    """Return path → Markdown of all pages.

    Args:
        result_by_bench: bench → result.
        pictures: names of the picture files.
    """
    own = {
        RESULTS / ALL[name].page: "\n".join(
            [f"# {ALL[name].title}", *_section(name, result, pictures), ""]
        )
        for name, result in result_by_bench.items()
        if ALL[name].page
    }
    return {DOCS / "benchmarks.md": page(result_by_bench, pictures), **own}


def page(result_by_bench: Results, pictures: Sequence[str] = ()) -> str:
    """Return docs/benchmarks.md; arguments as for `pages`."""
    names = [name for name in ALL if name in result_by_bench]
    lines = [
        "# Benchmarks",
        "",
        "Measurements with their device, date and command. `make bench` measures and writes this "
        "page from the results in `docs/bench/`; it has no number that was not measured. A cell is "
        "the median of all rounds, followed by minimum and maximum. Ratios are computed round by "
        "round, because a busy minute of the machine slows both sides of a round.",
        "",
        "| | |",
        "|---|---|",
    ]
    for name in names:
        bench = ALL[name]
        anchor = bench.title.lower().replace(" ", "-")
        where = f"bench/{bench.page}" if bench.page else f"#{anchor}"
        lines.append(f"| [{bench.title}]({where}) | {_in_short(result_by_bench[name])} |")
    for name in names:
        if not ALL[name].page:
            section = _section(name, result_by_bench[name], pictures)
            lines += ["", f"## {ALL[name].title}", *section]
    missing = [name for name in GPU if name not in result_by_bench]
    if missing:
        lines += ["", "## On a GPU", "", "So far no GPU was available. These commands measure:", ""]
        how = "python bench/gpu.py --out docs/bench --part"
        lines += [f"- {GPU[name].title}: `{how} {name.removeprefix('gpu.')}`" for name in missing]
    return "\n".join([*lines, ""])


def _described(name: str) -> list[str]:
    """Return the paragraphs about a bench; indented ones are for those who run it."""
    if ALL[name].what:
        return [ALL[name].what]
    folder, _, stem = name.removesuffix("_curves").rpartition(".")
    source = BENCH / (f"parts/{folder}/{stem}.py" if folder else f"{stem}.py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return [each for each in text.split("\n\n") if not each.startswith("    ")]


def _in_short(result: Mapping[str, Any]) -> str:
    """Return the cell of a bench."""
    date, goals = result["about"]["date"], result["goals"]
    if not goals:
        return f"measured on {date}"
    return f"{sum(map(is_met, goals))} of {len(goals)} goals met on {date}"


def _section(name: str, result: Mapping[str, Any], pictures: Sequence[str]) -> Iterator[str]:
    """Yield the lines about a bench; on its own page it has all paragraphs, else the first."""
    for paragraph in _described(name)[: None if ALL[name].page else 1]:
        yield from ["", paragraph]
    if name in FINISHED:
        yield from ["", f"A finished experiment: commit {LAST_COMMIT} has its code."]
    about = result["about"]
    on_gpu = about["kind"] == "cuda"
    device = about["device"] if on_gpu else f"{about['device']}, {about['cores']} cores"
    yield from ["", f"### {'GPU' if on_gpu else 'CPU'}: {device}", ""]
    load = "" if about["load"] is None else f", with a load of {about['load']}"
    yield f"Measured on {about['date']} by `{about['command']}`{load}"
    yield f"({', '.join(f'{package} {each}' for package, each in about['versions'].items())})."
    for table in result["tables"]:
        yield from ["", f"**{_escaped(table['title'])}**", "", *_rows(table)]
    picture = f"{name}.png" if on_gpu else f"{name}.cpu.png"
    if picture in pictures:
        folder = "" if ALL[name].page else "bench/"
        yield from ["", f"![{ALL[name].title}, {about['device']}]({folder}{picture})"]
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


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only check the pages")
    options = parser.parse_args()
    made = pages(results(RESULTS), [path.name for path in RESULTS.glob("*.png")])
    for path, text in made.items():
        if not options.check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} does not match the results: run python bench/benchmarks_page.py")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
