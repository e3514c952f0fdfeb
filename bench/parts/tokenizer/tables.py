"""Results of tokenizer.py: rows, goals, tables, bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

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


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the goals: least multiples of the speed of each package's faster way."""
    passes = ("first pass", "second pass")
    wanted = [
        ("train", "tokenizers", 1, "", "", 1.5),
        ("train", "tokenizers", 2, "", "", 1.0),
        *(("encode", "tokenizers", n, "lists", each, 4.0) for n in (1, 2) for each in passes),
        *(("encode", "tiktoken", n, "lists", each, 0.8) for n in (1, 2) for each in passes),
        *(("encode", "tiktoken", n, "arrays", each, 0.8) for n in (1, 2) for each in passes),
    ]
    found = []
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        for part, package, workers, output, name, least in wanted:
            key = {"part": part, "corpus": corpus, "workers": workers, "output": output}
            key["pass"] = name
            theirs = [row for row in rows if row["side"].split()[0] == package]
            if best := pick(theirs, **key):
                reached = best["speed_of_ours"]
                found.append(
                    {"name": best["name"], **key, "least": least, "reached": reached}
                    | {"met": reached >= least}
                )
    return found


HEADINGS = ("MB/s", "seconds", "min – max", "ours is")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row."""
    return (
        f"{row['megabytes_per_second']:.2f}",
        f"{row['seconds']:.3f}",
        f"{row['seconds_min']:.3f} – {row['seconds_max']:.3f}",
        f"{row['speed_of_ours']:.2f}×",
    )


def print_tables(report: dict[str, Any], is_markdown: bool) -> None:
    """Print a table per part and corpus, and the goals."""
    for title, rows in tables(report):
        print(f"\n{'### ' if is_markdown else ''}{title}\n")
        labels = [f"{row['name']} {row['pass']}".strip() for row in rows]
        if is_markdown:
            print(f"| | {' | '.join(HEADINGS)} |\n|---|{'---:|' * len(HEADINGS)}")
            for label, row in zip(labels, rows, strict=True):
                print(f"| {label} | {' | '.join(cells(row))} |")
        else:
            layout = "{:42}{:>9}{:>10}{:>18}{:>10}"
            print(layout.format("", *HEADINGS))
            for label, row in zip(labels, rows, strict=True):
                print(layout.format(label, *cells(row)))
    print(f"\n{'### ' if is_markdown else ''}Goals: ours is at least so many times as fast\n")
    for goal in report["goals"]:
        what = f"{goal['part']}, {goal['corpus']}, {goal['name']} {goal['pass']}".strip()
        verdict = "met" if goal["met"] else "missed"
        start = "- " if is_markdown else ""
        print(f"{start}{what}: {goal['least']} wanted, {goal['reached']:.3f} reached, {verdict}")


def tables(report: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the rows by part and corpus, with a title."""
    for part in ("train", "encode"):
        for corpus, about in report["corpora"].items():
            rows = [row for row in report["rows"] if (row["part"], row["corpus"]) == (part, corpus)]
            size = f"{about['bytes'] / 1e6:.1f} MB, vocabulary {report['vocab'][part]:,}"
            yield f"{part}: {corpus}, {size}", rows


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw bars of MB/s with their spread, ours in colour."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(tables(report))
    heights = [max(len(rows) for title, rows in panels if title.startswith(p)) for p in "te"]
    figure, axes = plt.subplots(
        2,
        len(report["corpora"]),
        figsize=(7.5 * len(report["corpora"]), 0.25 * sum(heights) + 2.5),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, rows) in zip(axes.flat, panels, strict=True):
        speeds = np.array([row["megabytes_per_second"] for row in rows])
        slowest, fastest = (
            speeds * [row["seconds"] / row[f"seconds_{end}"] for row in rows]
            for end in ("max", "min")
        )
        axis.barh(
            [f"{row['name']} {row['pass']}".strip() for row in rows],
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
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
