"""Configurations of trials that never ran."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from model.spec.trial import TrialSpec
from tests.tuner.simulated_search import FACTS
from tuner.conductor.trial import Trial
from tuner.space.space import SearchSpace
from tuner.summaries.configuration import TrialConfiguration
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.trained.recorded_trials import RecordedTrial

SEARCH = SearchRecord("s" * 32, "1", "lm-1", "finished", 0.0, None, {}, {})


def configuration_of(space: SearchSpace, trial: Trial) -> TrialConfiguration:
    """The configuration of a trial of a search."""
    journal: Any = SimpleNamespace(space=space, facts=FACTS, trials={})
    journal.trials[trial.number] = SimpleNamespace(trial=trial)
    loss = {"val_loss": 2.5}
    record = TrialRecord("0" * 32, trial.number, "lm-1", "finished", {}, loss, {})
    return TrialConfiguration(RecordedTrial(SEARCH, journal, record))


def configuration_of_spec(spec: TrialSpec) -> TrialConfiguration:
    """The configuration of a specification, of which no space is known."""
    trial = SimpleNamespace(number=0, draw={}, spec=spec)
    return configuration_of(SearchSpace(), cast(Trial, trial))
