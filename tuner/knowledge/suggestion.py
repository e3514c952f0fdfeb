"""Suggestions: the settings that are probably best for a model, and the loss that they reach.

A suggestion is the candidate with the least expected regret over draws of the basin model, so that
what is unknown counts: where the posterior is wide, it lies on the flat side. Further suggestions
are those that improve the expected best of all suggestions most.

S = draws, m = candidates, D = settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tuner.knowledge.basin import BasinModel, Bowls, TargetCell
from tuner.knowledge.evidence import Evidence
from tuner.knowledge.laws import LAWS
from tuner.knowledge.levels import Levels
from tuner.knowledge.library import Library
from tuner.knowledge.settings import SETTINGS, Setting
from tuner.results.bowls import QUANTILES, Estimate
from tuner.texts.formatting import listed

Floats = npt.NDArray[np.float64]

_DRAWS, _SEED = 400, 0
_REACH, _STEPS = 3.0, 61  # deviations of a centre over which the best value is looked for
_FAR = 10.0  # times the largest source: beyond, an answer says so
_VAGUE = 0.1  # of the loss; a wider interval of the loss is a guess
_TRIALS = 4  # of the target, whose worth is estimated


@dataclass(frozen=True)
class SuggestedSetting:
    """A suggested value with the 90 % interval of the best value at the other suggestions."""

    setting: Setting
    estimate: Estimate


@dataclass(frozen=True)
class Advisor:
    """The knowledge of a library about one target."""

    library: Library
    target: TargetCell

    @cached_property
    def basin(self) -> BasinModel:
        """The basin model."""
        return BasinModel(self.library.evidence, self.target)

    @cached_property
    def bowls(self) -> Bowls:
        """The target's bowl."""
        return self.basin.bowls(_DRAWS, _SEED)

    @cached_property
    def lowest(self) -> Floats | None:
        """Log of the lowest loss in each draw, (S,); None without any evidence."""
        if not self.basin.cells:
            return None
        levels = Levels(*self.basin.lowest(), self.target.text)
        return levels.draws(self.target.size[[2, 1]], _DRAWS, _SEED)

    def best(self, points: Floats, count: int) -> list[int]:
        """Return the numbers of the suggestions among some candidates, the best first.

        Args:
            points: candidates, (m, D).
            count: number of suggestions.
        """
        regrets = self.bowls.regrets(points)
        chosen: list[int] = []
        least = np.full((_DRAWS, 1), np.inf)
        for _ in range(min(count, len(points))):
            expected = np.minimum(least, regrets).mean(0)
            expected[chosen] = np.inf
            chosen.append(int(expected.argmin()))
            least = np.minimum(least, regrets[:, chosen[-1:]])
        return chosen

    def regret(self, points: Floats, chosen: Sequence[int]) -> Estimate:
        """Return the expected regret of the best of some candidates, as a share of the loss.

        Args:
            points: candidates, (m, D), of which the best one has no regret.
            chosen: numbers of some of them.
        """
        logs = self.bowls.regrets(points)
        regrets = np.expm1(logs[:, list(chosen)].min(1) - logs.min(1))
        return Estimate.of(float(regrets.mean()), regrets)

    def loss(self, point: Floats) -> Estimate | None:
        """Return the expected loss of a point with its interval; None without any evidence."""
        if self.lowest is None:
            return None
        losses = np.exp(self.lowest + self.bowls.regrets(point[None])[:, 0])
        return Estimate.of(float(np.median(losses)), losses)

    def setting(self, number: int, point: Floats) -> SuggestedSetting:
        """Return the value of a point's setting, and where the best one is at the others."""
        setting, centres = SETTINGS[number], self.bowls.centres[:, number]
        spread = _REACH * float(centres.std()) + 1e-9
        middle = float(centres.mean())
        low, high = np.clip([middle - spread, middle + spread], *setting.limits)
        grid = np.linspace(low, high, _STEPS)
        points = np.repeat(point[None], _STEPS, axis=0)
        points[:, number] = grid
        best = grid[self.bowls.regrets(points).argmin(1)]
        ends = [setting.value(float(end)) for end in np.quantile(best, QUANTILES)]
        value = setting.value(float(point[number]))
        return SuggestedSetting(setting, Estimate(value, min(ends[0], value), max(ends[1], value)))

    @property
    def warnings(self) -> list[str]:
        """What an answer must say about its range, one sentence each."""
        return list(_far(self.library.evidence, self.target))


def _far(evidence: Evidence, target: TargetCell) -> Sequence[str]:
    if not len(evidence):
        return [f"no source has trials, so the answer is that of published laws; {_lawful(target)}"]
    low, high = np.exp(evidence.sizes.min(0))[:2], np.exp(evidence.sizes.max(0))[:2]
    far = [
        f"{value:,.0f} {what} (the sources have {least:,.0f} to {most:,.0f})"
        for what, value, least, most in zip(
            ("weights", "tokens"), (target.weights, target.tokens), low, high, strict=True
        )
        if value > _FAR * most or value < least / _FAR
    ]
    if not far:
        return []
    are = "are" if len(far) > 1 else "is"
    return [f"{listed(far, 'and')} {are} far from all sources; {_lawful(target)}"]


def _lawful(target: TargetCell) -> str:
    law = LAWS[0]
    verb = "was" if law.holds_at(target.weights, target.tokens) else "was not"
    return f"the {law.name} {verb} fitted to such models"


def unbounded(advisor: Advisor) -> Floats:
    """Return candidates where every value is allowed, (m, D)."""
    centres = advisor.bowls.centres
    lowest, highest = np.transpose([setting.limits for setting in SETTINGS])
    return np.asarray(np.clip(np.concatenate([centres, centres.mean(0)[None]]), lowest, highest))


def is_vague(loss: Estimate) -> bool:
    """Return whether the interval of a loss is so wide that its middle says little."""
    return math.log(loss.high / loss.low) > _VAGUE
