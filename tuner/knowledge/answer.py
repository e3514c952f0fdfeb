"""The answer of `tuner suggest`: the best settings of a model, what they reach, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import TunerError
from tuner.knowledge.basin import TargetCell
from tuner.knowledge.candidates import Candidates
from tuner.knowledge.library import Library
from tuner.knowledge.proposals import CONFIDENCE
from tuner.knowledge.settings import NAMES
from tuner.knowledge.suggestion import Advisor, SuggestedSetting, is_vague, unbounded
from tuner.results.bowls import Estimate
from tuner.scaling.prediction import PredictedValue, Prediction
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Prior, Value
from tuner.space.proposals import SourceUsed
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.float64]

KIND = "suggest"
TRIALS = 4  # suggestions whose best is estimated


@dataclass(frozen=True)
class Answer:
    """Suggested settings of one target.

    Attributes:
        target: size, budget and text.
        settings: suggested values with the 90 % intervals of the best ones.
        draw: the draw of the space; empty if no space was asked for.
        regret: expected loss above the lowest, as a share of it.
        regret_of_best: expected regret of the best of `TRIALS` suggestions, if all are trained.
        loss: expected val_loss; None if no source has trials.
        sources: what the answer is from.
        left_out: what was not used, one sentence each.
        warnings: what must be said about the range, one sentence each.
    """

    target: TargetCell
    settings: tuple[SuggestedSetting, ...]
    draw: Mapping[str, Value]
    regret: Estimate
    regret_of_best: float
    loss: Estimate | None
    sources: tuple[SourceUsed, ...]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def as_json(self) -> Mapping[str, Any]:
        """The object of `tuner suggest --json`."""
        return {
            "weights": self.target.weights,
            "tokens": self.target.tokens,
            "settings": {
                s.setting.name: {"unit": s.setting.unit or None, **vars(s.estimate)}
                for s in self.settings
            },
            "draw": dict(self.draw),
            "regret": vars(self.regret),
            "regret_of_best_of_4": self.regret_of_best,
            "val_loss": None if self.loss is None else vars(self.loss),
            "sources": [vars(source) for source in self.sources],
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }

    @property
    def priors(self) -> dict[str, Prior]:
        """Name of a searched setting → prior at its suggested value, for a space."""
        # a label is a name, and what it is a share of
        values = {label.partition("/")[0]: value for label, value in self.draw.items()}
        searched = {s.setting.name for s in self.settings}
        return {
            name: Prior(centre=value, confidence=CONFIDENCE)
            for name, value in values.items()
            if name in searched
        }

    def prediction(self) -> Prediction:
        """Return the answer as a prediction, which `tuner suggest --record` judges later.

        Raises:
            TunerError: if no source has trials: a law predicts no loss.
        """
        if self.loss is None:
            raise TunerError("nothing can be predicted without trials; give other sources")
        values = {"loss": self.loss} | {s.setting.symbol: s.estimate for s in self.settings}
        return Prediction(
            date=datetime.now(UTC).replace(microsecond=0),
            searches=tuple(sorted(source.name for source in self.sources)),
            trials=sum(source.trials for source in self.sources),
            kind=KIND,
            target={"parameters": self.target.weights, "tokens": self.target.tokens},
            values={
                name: PredictedValue(value=e.value, low=e.low, high=e.high)
                for name, e in values.items()
            },
        )


def answer_for(library: Library, target: TargetCell) -> Answer:
    """Suggest settings for a size and a budget; every value is allowed."""
    advisor = Advisor(library, target)
    points = unbounded(advisor)
    return _answer(advisor, points, list(range(len(NAMES))), [{}] * len(points))


def answer_for_space(library: Library, space: SearchSpace, facts: DataFacts) -> Answer:
    """Suggest a draw of a space.

    Raises:
        TunerError: if knowledge is not about the trials of the space.
    """
    candidates = Candidates(space, facts)
    if reason := candidates.obstacle():
        raise TunerError(
            f"nothing is known about the trials of {space.name}: {reason}; search without it"
        )
    if not candidates.known:
        raise TunerError(
            f"{space.name} searches nothing that is known about; known are learning rate, batch "
            f"size, decay, β1, β2, τ, warm-up and the end of the schedule"
        )
    advisor = Advisor(library, candidates.target)
    draws, points = candidates.pool(advisor)
    searched = {p.name for p in candidates.known}
    numbers = [number for number, name in enumerate(NAMES) if name in searched]
    return _answer(advisor, points, numbers, draws)


def _answer(
    advisor: Advisor, points: Floats, numbers: Sequence[int], draws: Sequence[Mapping[str, Value]]
) -> Answer:
    """Return the answer for some candidates (m, D), of which settings of some numbers are asked."""
    chosen = advisor.best(points, TRIALS)
    best = points[chosen[0]]
    loss, warnings = advisor.loss(best), advisor.warnings
    if loss is not None and is_vague(loss):
        warnings.append("the sources say little about the loss of these data: its interval is wide")
    return Answer(
        advisor.target,
        tuple(advisor.setting(number, best) for number in numbers),
        draws[chosen[0]],
        advisor.regret(points, chosen[:1]),
        advisor.regret(points, chosen).value,
        loss,
        advisor.library.sources,
        advisor.library.left_out,
        tuple(warnings),
    )
