"""What a study of sizes found, and whether its prediction held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.home.home import Home
from tuner.results.result import SearchResult
from tuner.scaling.laws import ScalingLaws
from tuner.scaling.optima import optimum_of
from tuner.scaling.prediction import Prediction, find_prediction
from tuner.scaling.runs import SizeRuns, measure


@dataclass(frozen=True)
class ScalingFindings:
    """Laws of searches over several sizes, and a prediction by them.

    Attributes:
        searches: names of the searches.
        laws: laws and the optima that they are fitted to.
        prediction: prediction of a target, if one was asked for.
        prediction_file: file of the prediction.
        picture: file of the picture, if one was drawn.
    """

    searches: Sequence[str]
    laws: ScalingLaws
    prediction: Prediction | None = None
    prediction_file: Path | None = None
    picture: Path | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner scaling --json`."""
        optima = self.laws.optima
        return {
            "searches": self.searches,
            "kind": self.laws.kind,
            "noise": optima.noise,
            "sizes": [
                {
                    "parameters": o.size.parameters, "tokens": o.size.tokens,
                    "flops": o.size.flops, "trials": len(o.size.runs), "fitted": o.kept,
                    "loss": o.loss, "edges": o.edges, **o.values,
                }
                for o in optima.all
            ],
            "left_out": optima.few,
            "laws": [
                {
                    "quantity": law.quantity,
                    "exponents": dict(zip(law.variables, law.exponents, strict=True)),
                    "constant": law.constant,
                }
                for law in self.laws.laws
            ],
            "best_sizes": self.laws.best_sizes,
            "prediction": self.prediction,
            "prediction_file": self.prediction_file,
            "picture": self.picture,
        }  # fmt: skip


@dataclass(frozen=True)
class PredictionCheck:
    """A prediction beside the search that trained its target.

    Attributes:
        search: name of the search.
        prediction: the oldest prediction of its size.
        prediction_file: file of the prediction.
        written_before: True if it was written before the search began.
        measured: optimum of the search, and the loss of its best trial, each with its interval.
        holds: True for each measured quantity that lies in its predicted interval.
    """

    search: str
    prediction: Prediction
    prediction_file: Path
    written_before: bool
    measured: Mapping[str, tuple[float, float, float]]
    holds: Mapping[str, bool]

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner scaling --compare --json`."""
        return {
            "search": self.search,
            "prediction": self.prediction,
            "prediction_file": self.prediction_file,
            "written_before": self.written_before,
            "measured": {name: values[0] for name, values in self.measured.items()},
            "holds": self.holds,
        }

    @classmethod
    def of(
        cls, home: Home, searches: Sequence[SearchResult], target: SearchResult
    ) -> PredictionCheck:
        """Compare a search with the prediction of its size.

        Args:
            home: home of the predictions.
            searches: searches that the prediction was made from.
            target: search of the target.

        Raises:
            RecordError: if there is no such prediction.
            TunerError: if the searches cannot be compared.
        """
        measure([*searches, target])  # or refuse
        names = [search.name for search in searches]
        path, prediction, size = find_prediction(home, names, measure([target]))
        measured = _measured(size)
        holds = {
            name: value.holds(*measured[name])
            for name, value in prediction.values.items()
            if name in measured
        }
        is_before = prediction.date.timestamp() * 1000 < target.started
        return cls(target.name, prediction, path, is_before, measured, holds)


def _measured(size: SizeRuns) -> dict[str, tuple[float, float, float]]:
    """Return the optimum of a size with its interval, if it has one, and its lowest loss.

    The bowl has the shape of these trials alone: with the shape of the searches that predict, a
    wrong shape would make both wrong alike.
    """
    optimum = optimum_of(size)
    values = {}
    if optimum is not None:
        values = {
            n: (v, *optimum.intervals[n])
            for n, v in optimum.values.items() if n not in optimum.edges
        }  # fmt: skip
    loss = min(run.loss for run in size.runs)
    return {**values, "loss": (loss, loss, loss)}
