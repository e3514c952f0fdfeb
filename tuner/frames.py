"""Results as pandas has them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

import pandas as pd

from tuner.board import TrialRow
from tuner.parameters import symbol
from tuner.result import SearchResult
from tuner.summary import raw_value

_SHOWN_TRIALS = 8  # in a notebook


def trials_frame(result: SearchResult) -> pd.DataFrame:
    """A row for each trial of a search, by number.

    Args:
        result: of the search.

    Returns:
        Columns: the objectives (NaN for a trial that diverged), `outcome`, `reports` and
        `tokens` so far, the searched parameters by name, `parent` (the trial from whose state it
        went on), `recorded` (taken from the record instead of trained) and `run` of MLflow.
        Trials that confirm others are not among them.
    """
    names = list(dict.fromkeys(p.name for p in result.space.searched))
    rows = [
        {
            "trial": row.number,
            **{o.metric: _value(row, o.metric) for o in result.space.objectives},
            "outcome": row.outcome or "running",
            "reports": len(row.reports),
            "tokens": row.tokens,
            **{name: raw_value(row, name) for name in names},
            "parent": row.parent,
            "recorded": bool(row.recorded),
            "run": result.run_ids.get(row.number),
        }
        for row in result.trials
    ]
    frame = pd.DataFrame(rows).set_index("trial")
    return frame.astype({"parent": "Int64"})


def _value(row: TrialRow, metric: str) -> float:
    value = row.objective(metric)
    return value if math.isfinite(value) else math.nan


def curves_frame(result: SearchResult) -> pd.DataFrame:
    """A row for each report, those of confirming trials included.

    Args:
        result: of the search.

    Returns:
        Columns: `trial`, `confirms` (the trial whose configuration it repeats), `step`, `seconds`
        since the search began, and the metrics of `model.report`.
    """
    return pd.DataFrame(_reports(result)).astype({"confirms": "Int64"})


def _reports(result: SearchResult) -> Iterator[dict[str, Any]]:
    times = result.times
    for row in (*result.trials, *result.confirming):
        for report, seconds in zip(row.reports, times[row.number], strict=True):
            which = {"trial": row.number, "confirms": row.confirms}
            yield {**which, "step": report.step, "seconds": seconds, **report.metrics()}


def html_of(result: SearchResult) -> str:
    """The best trials as a table under a sentence, for notebooks."""
    best = [row.number for row in result.ranked[:_SHOWN_TRIALS]]
    frame = trials_frame(result).loc[best].drop(columns=["parent", "recorded", "reports"])
    frame["run"] = frame["run"].str[:8]
    frame = frame.rename(columns={name: symbol(name) for name in frame.columns})
    table = frame.to_html(float_format=lambda x: f"{x:.4g}", na_rep="", border=0)
    return f"<p>{escape(repr(result).strip('<>'))}</p>\n{table}"
