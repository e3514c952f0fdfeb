"""Results of tokenizer.py: rows, goals, tables, bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from parts.measuring import goal, save_figure
from parts.tokenizer.sides import Job


def summary(
    results: Mapping[Job, list[dict[str, Any]]], corpus: str, num_bytes: int
) -> list[dict[str, Any]]:
    """Return a row per job and pass, with the speed of ours as a multiple."""
    rows = []
    for job, measured in results.items():
        passes = ("first pass", "second pass") if job.part == "encode" else ("",)
        for number, name in enumerate(passes):
            seconds = [result["seconds"][number] for result in measured]
            rows.append(
                {
                    "part": job.part,
                    "corpus": corpus,
                    "side": job.side,
                    "workers": job.workers,
                    "output": job.output,
                    "pass": name,
                    "name": job.name,
                    "seconds": median(seconds),
                    "seconds_min": min(seconds),
                    "seconds_max": max(seconds),
                    "megabytes_per_second": num_bytes / 1e6 / median(seconds),
                }
            )
    for row in rows:
        ours = pick(rows, side="ours", **{key: row[key] for key in ("workers", "output", "pass")})
        row["speed_of_ours"] = row["seconds"] / ours["seconds"]
    return rows


def pick(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the fastest row with the attributes; an empty one if there is none."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return min(found, key=lambda row: row["seconds"], default={})


PASSES = ("first pass", "second pass")
# part, package, workers, output, pass, least multiple of the speed of its faster way
GOALS = [
    ("train", "tokenizers", 1, "", "", 1.5),
    ("train", "tokenizers", 2, "", "", 1.0),
    *(("encode", "tokenizers", n, "lists", each, 4.0) for n in (1, 2) for each in PASSES),
    *(("encode", "tiktoken", n, "lists", each, 0.8) for n in (1, 2) for each in PASSES),
    *(("encode", "tiktoken", n, "arrays", each, 0.8) for n in (1, 2) for each in PASSES),
]


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: rows of `summary`, corpora, and sizes of the vocabularies by part.
        about: `measuring.about`.
    """
    columns = ["", "MB/s", "seconds", "ours is, times as fast"]
    tables = [
        {"title": title, "columns": columns, "rows": [*map(cells, rows)]}
        for title, rows in panels(numbers)
    ]
    corpora = [
        f"{name}: {each['what']}; {each['bytes'] / 1e6:.2f} MB, {each['documents']:,} documents."
        for name, each in numbers["corpora"].items()
    ]
    return {
        "bench": "tokenizer",
        "about": about,
        "tables": tables,
        "goals": [] if about["rehearsal"] else goals(numbers["rows"]),
        "notes": corpora,
        "numbers": numbers,
    }


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the goals: least multiples of the speed of each package's faster way."""
    found = []
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        for part, package, workers, output, name, least in GOALS:
            key = {"part": part, "corpus": corpus, "workers": workers, "output": output}
            theirs = [row for row in rows if row["side"].split()[0] == package]
            if best := pick(theirs, **key, **{"pass": name}):
                what = f"{part}, {corpus}: times as fast as {label(best)}"
                found.append(goal(what, best["speed_of_ours"], least=least))
    return found


def label(row: dict[str, Any]) -> str:
    """Return the name of a row."""
    return f"{row['name']} {row['pass']}".strip()


def cells(row: dict[str, Any]) -> list[Any]:
    """Return the cells of a row."""
    seconds = [row["seconds"], row["seconds_min"], row["seconds_max"]]
    return [label(row), row["megabytes_per_second"], seconds, row["speed_of_ours"]]


def panels(numbers: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the rows by part and corpus, with a title."""
    for part in ("train", "encode"):
        for corpus, about in numbers["corpora"].items():
            rows = [r for r in numbers["rows"] if (r["part"], r["corpus"]) == (part, corpus)]
            size = f"{about['bytes'] / 1e6:.1f} MB, vocabulary {numbers['vocab'][part]:,}"
            yield f"{part}: {corpus}, {size}", rows


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw bars of MB/s with their spread, ours in colour."""
    from matplotlib.figure import Figure

    found = list(panels(result["numbers"]))
    columns = len(found) // 2
    heights = [max(len(rows) for title, rows in found if title.startswith(p)) for p in "te"]
    figure = Figure(figsize=(7.5 * columns, 0.25 * sum(heights) + 2.5))
    axes = figure.subplots(2, columns, height_ratios=heights, squeeze=False)
    for axis, (title, rows) in zip(axes.flat, found, strict=True):
        speeds = np.array([row["megabytes_per_second"] for row in rows])
        slowest, fastest = (
            speeds * [row["seconds"] / row[f"seconds_{end}"] for row in rows]
            for end in ("max", "min")
        )
        axis.barh(
            [*map(label, rows)],
            speeds,
            xerr=[speeds - slowest, fastest - speeds],
            color=["#d1495b" if row["side"] == "ours" else "#8d99ae" for row in rows],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axis.invert_yaxis()
        axis.margins(y=0.01)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("MB/s (median, min – max)", fontsize=8)
        axis.tick_params(labelsize=8)
    save_figure(figure, path, 130)
