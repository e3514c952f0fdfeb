"""Recorded trials side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.summaries.search_table import is_used
from tuner.texts.formatting import short_hash
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.trained.recorded_trials import RecordedTrial, RecordedTrials

Reports = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class TrialComparison:
    """Differences and curves of two or more trials.

    Attributes:
        metric: name of the objective of the first trial's search.
        trials: records of the trials.
        differing: what differs, by name: the text of each trial, empty where a trial has none.
        reports: metrics of each trial by update.
    """

    metric: str
    trials: tuple[TrialRecord, ...]
    differing: Mapping[str, Sequence[str]]
    reports: tuple[Reports, ...]

    @classmethod
    def read(cls, record: Record, home: Home, names: Sequence[str]) -> TrialComparison:
        """Read trials.

        Args:
            record: tracking store.
            home: home of the journals.
            names: names of two or more trials: run ids, or `lm-1/13`.

        Raises:
            RecordError: if there is no such trial, or its journal is neither here nor recorded.
            JournalError: if a journal was edited or damaged.
            TunerError: if two names mean one trial.
        """
        recorded = RecordedTrials(record, home)
        trials = [recorded.find(name) for name in names]
        runs = [trial.record.run_id for trial in trials]
        for index, run in enumerate(runs):
            if run in runs[:index]:
                raise TunerError(
                    f"{names[index]} names the trial of an earlier argument; remove it"
                )
        facts = [_facts(trial) for trial in trials]
        differing = {
            name: [fact.get(name, "") for fact in facts]
            for name in dict.fromkeys(name for fact in facts for name in fact)
            if len({fact.get(name) for fact in facts}) > 1
        }
        reports = tuple(trial.reports for trial in trials)
        records = tuple(trial.record for trial in trials)
        return cls(trials[0].search.metric, records, differing, reports)

    @property
    def incomparable(self) -> list[str]:
        """What differs so that losses cannot be compared."""
        return [name for name in ("data", "tokenizer") if name in self.differing]

    @property
    def curves(self) -> list[dict[int, float]]:
        """Finite values of the metric by training tokens, of each trial."""
        return [
            {
                round(metrics["tokens"]): metrics[self.metric]
                for metrics in reports.values()
                if all(math.isfinite(metrics.get(n, math.nan)) for n in ("tokens", self.metric))
            }
            for reports in self.reports
        ]

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner compare --json`."""
        return {
            "metric": self.metric,
            "trials": [
                {"search": t.search, "trial": t.number, "run": t.run_id, "status": t.status}
                for t in self.trials
            ],
            "differing": self.differing,
            "comparable": not self.incomparable,
            "curves": self.curves,
        }


def _facts(trial: RecordedTrial) -> dict[str, str]:
    """Return what defines a trial, as text: parameters, budget, start, data and environment."""
    spec, parameters = trial.spec, trial.record.parameters
    return {
        **{k: v for k, v in parameters.items() if is_used(k, parameters)},
        "budget": f"{spec.budget_tokens} tokens",
        "starts from": short_hash(spec.init_from.sha256) if spec.init_from else "random weights",
        "data": short_hash(spec.data_fingerprint),
        "tokenizer": short_hash(spec.tokenizer_fingerprint),
        **trial.record.environment,
    }
