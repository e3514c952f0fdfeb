"""Results of a search as pandas tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from tuner.conductor.trial import Trial
from tuner.space.space import SearchSpace


def trials_frame(
    space: SearchSpace, trials: Sequence[Trial], run_ids: Mapping[int, str]
) -> pd.DataFrame:
    """Return a table of the trials of a search, by number.

    Args:
        space: the search space.
        trials: trials of the search, without those that confirm others.
        run_ids: trial number → MLflow run.

    Returns:
        Columns: the objectives (NaN for a trial that diverged), `outcome`, `reports` and
        `tokens` so far, the searched parameters by name, `parent` (the trial from whose
        checkpoint it continued), `recorded` (reused instead of trained) and `run` of MLflow.
    """
    names = space.searched_names
    rows = [
        {
            "trial": trial.number,
            **{o.metric: _value(trial, o.metric) for o in space.objectives},
            "outcome": str(trial.outcome or "running"),
            "reports": len(trial.reports),
            "tokens": trial.tokens,
            **{name: trial.value_of(name) for name in names},
            "parent": trial.parent,
            "recorded": bool(trial.reused),
            "run": run_ids.get(trial.number),
        }
        for trial in trials
    ]
    frame = pd.DataFrame(rows).set_index("trial")
    return frame.astype({"parent": "Int64"})


def _value(trial: Trial, metric: str) -> float:
    value = trial.objective(metric)
    return value if math.isfinite(value) else math.nan


def curves_frame(trials: Iterable[Trial], seconds: Mapping[int, Sequence[float]]) -> pd.DataFrame:
    """Return a table of the reports of trials.

    Args:
        trials: the trials, with or without those that confirm others.
        seconds: trial number → seconds from the start of the search to each report.

    Returns:
        Columns: `trial`, `confirms` (the trial whose configuration it repeats), `step`, `seconds`
        since the search began, and the metrics of `model.engine.report`.
    """
    rows = [
        {
            "trial": trial.number,
            "confirms": trial.confirms,
            "step": report.step,
            "seconds": time,
            **report.metrics(),
        }
        for trial in trials
        for report, time in zip(trial.reports, seconds[trial.number], strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"confirms": "Int64"})
