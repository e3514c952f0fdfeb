"""One recorded trial in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.spec.trial import TrialSpec
from tuner.home.home import Home
from tuner.summaries.search_table import finite, is_used
from tuner.texts.formatting import short_hash
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import Tag
from tuner.trained.recorded_trials import RecordedTrials


@dataclass(frozen=True)
class TrialSummary:
    """A trial with its specification and its reports.

    Attributes:
        trial: record of the trial.
        spec: its specification.
        searched: parameters of its search that were searched.
        reports: metrics by update.
        init_from: description of the trial or checkpoint that it started from.
    """

    trial: TrialRecord
    spec: TrialSpec
    searched: tuple[str, ...]
    reports: Mapping[int, Mapping[str, float]]
    init_from: str | None

    @classmethod
    def read(cls, record: Record, home: Home, name: str) -> TrialSummary:
        """Read a trial.

        Args:
            record: the store.
            home: home of the search's journal.
            name: run id, or `lm-1/13`.

        Raises:
            RecordError: if there is no such trial, or its journal is neither here nor recorded.
            JournalError: if the journal was edited or damaged.
            StoreError: if the store cannot be read.
        """
        trial = RecordedTrials(record, home).find(name)
        names, start = trial.journal.space.searched_names, trial.search.tags.get(Tag.INIT_FROM)
        return cls(trial.record, trial.spec, tuple(names), trial.reports, start)

    @property
    def used(self) -> list[str]:
        """The searched parameters that have an effect in this trial."""
        parameters = self.trial.parameters
        return [n for n in self.searched if n in parameters and is_used(n, parameters)]

    @property
    def environment(self) -> dict[str, str]:
        """Device, versions and fingerprints."""
        return {
            **self.trial.environment,
            "data": short_hash(self.spec.data_fingerprint),
            "tokenizer": short_hash(self.spec.tokenizer_fingerprint),
        }

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner show RUN --json`."""
        trial, target = self.trial, self.spec.architecture.target
        return {
            "run": trial.run_id,
            "trial": trial.number,
            "search": trial.search,
            "status": trial.status,
            "init_from": self.init_from,
            "target": None if target is None else target.model_dump(mode="json"),
            "spec_hash": self.spec.hash,
            "spec": self.spec.model_dump(mode="json"),
            "environment": trial.environment,
            "reports": {str(step): finite(metrics) for step, metrics in self.reports.items()},
        }
