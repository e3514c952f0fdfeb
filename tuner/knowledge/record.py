"""The record of kept promises: each prediction of `tuner suggest`, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.conductor.trial import Trial
from tuner.errors import JournalError
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.journal.journal import read_search
from tuner.knowledge.answer import KIND
from tuner.knowledge.evidence import obstacle
from tuner.knowledge.laws import block_weights
from tuner.knowledge.settings import SETTINGS, point
from tuner.scaling.prediction import Prediction, all_predictions

_SAME = math.log(1.1)  # of weights and tokens: a search of this size is one of the target


@dataclass(frozen=True)
class Promise:
    """A prediction and the search that tested it.

    Attributes:
        file: file of the prediction.
        prediction: what was predicted.
        search: the first search of the target that began later; None if there is none yet.
        measured: quantity → value of the best trial of this search.
    """

    file: Path
    prediction: Prediction
    search: str | None
    measured: Mapping[str, float]

    @property
    def holds(self) -> dict[str, bool]:
        """Quantity → whether its 90 % interval holds what was measured."""
        values = self.prediction.values
        return {n: values[n].low <= v <= values[n].high for n, v in self.measured.items()}

    @property
    def as_json(self) -> Mapping[str, Any]:
        """The object of `tuner suggest --record --json`."""
        return {
            "file": str(self.file),
            "date": self.prediction.date.isoformat(),
            "target": self.prediction.target,
            "search": self.search,
            "values": {
                name: {
                    **value.model_dump(),
                    "measured": self.measured.get(name),
                    "holds": self.holds.get(name),
                }
                for name, value in self.prediction.values.items()
            },
        }


def promises(home: Home) -> list[Promise]:
    """Return the predictions of a home, the oldest first, with what came out.

    Raises:
        RecordError: if the file of a prediction is damaged.
    """
    predictions = [(f, p) for f, p in all_predictions(home) if p.kind == KIND]
    searches = _searches(home) if predictions else {}
    return [_judged(file, prediction, searches) for file, prediction in predictions]


def _searches(home: Home) -> dict[str, Search]:
    """Return the searches with a finished trial, by name; damaged ones are left out."""
    found = {}
    for folder in home.searches():
        try:
            search = read_search(folder)
        except JournalError:
            continue
        if search is not None and search.board.best_finished is not None:
            found[folder.name] = search
    return dict(sorted(found.items(), key=lambda pair: pair[1].begun.time_ms))


def _judged(file: Path, prediction: Prediction, searches: Mapping[str, Search]) -> Promise:
    for name, search in searches.items():
        best = search.board.best_finished
        is_later = search.begun.time_ms / 1000 >= prediction.date.timestamp()
        if best is not None and is_later and _is_of(prediction, best):
            return Promise(file, prediction, name, _measured(prediction, best))
    return Promise(file, prediction, None, {})


def _is_of(prediction: Prediction, trial: Trial) -> bool:
    spec, target = trial.spec, prediction.target
    sizes = {"parameters": block_weights(spec.architecture), "tokens": spec.budget_tokens}
    is_near = all(abs(math.log(sizes[name] / target[name])) <= _SAME for name in sizes)
    return is_near and obstacle(spec) is None


def _measured(prediction: Prediction, trial: Trial) -> dict[str, float]:
    spec = trial.spec
    places = point(spec.hyperparameters, spec.architecture.context_length)
    values = {s.symbol: s.value(place) for s, place in zip(SETTINGS, places, strict=True)}
    if trial.last is not None:
        values["loss"] = trial.last.val_loss
    return {name: values[name] for name in prediction.values if name in values}
