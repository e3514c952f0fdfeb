"""Results as pandas has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from tuner.conductor.trial import Trial
from tuner.space.space import SearchSpace


def trials_frame(
    space: SearchSpace, trials: Sequence[Trial], run_ids: Mapping[int, str]
) -> pd.DataFrame:
    """A row for each trial of a search, by number.

    Args:
        space: what the search searches.
        trials: those of the search, without those that confirm others.
        run_ids: trial number → MLflow run.

    Returns:
        Columns: the objectives (NaN for a trial that diverged), `outcome`, `reports` and
        `tokens` so far, the searched parameters by name, `parent` (the trial from whose state it
        went on), `recorded` (taken from the record instead of trained) and `run` of MLflow.
    """
    names = list(dict.fromkeys(p.name for p in space.searched))
    rows = [
        {
            "trial": row.number,
            **{o.metric: _value(row, o.metric) for o in space.objectives},
            "outcome": str(row.outcome or "running"),
            "reports": len(row.reports),
            "tokens": row.tokens,
            **{name: row.value_of(name) for name in names},
            "parent": row.parent,
            "recorded": bool(row.reused),
            "run": run_ids.get(row.number),
        }
        for row in trials
    ]
    frame = pd.DataFrame(rows).set_index("trial")
    return frame.astype({"parent": "Int64"})


def _value(row: Trial, metric: str) -> float:
    value = row.objective(metric)
    return value if math.isfinite(value) else math.nan


def curves_frame(trials: Iterable[Trial], seconds: Mapping[int, Sequence[float]]) -> pd.DataFrame:
    """A row for each report of some trials.

    Args:
        trials: which; those that confirm others may be among them.
        seconds: trial number → seconds from the start of the search to each report.

    Returns:
        Columns: `trial`, `confirms` (the trial whose configuration it repeats), `step`, `seconds`
        since the search began, and the metrics of `model.engine.report`.
    """
    return pd.DataFrame(_reports(trials, seconds)).astype({"confirms": "Int64"})


def _reports(
    trials: Iterable[Trial], seconds: Mapping[int, Sequence[float]]
) -> Iterator[dict[str, Any]]:
    for row in trials:
        for report, at in zip(row.reports, seconds[row.number], strict=True):
            which = {"trial": row.number, "confirms": row.confirms}
            yield {**which, "step": report.step, "seconds": at, **report.metrics()}
