"""Suggestions for a cell of the atlas from a part of the atlas, and what they are compared with.

*size*: only models of a quarter of the cell's weights and less are sources. *text*: only the other
texts are. *compute*: only trials of a tenth of the cell's weights times tokens and less are. The
target has no trial among the sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from parts.atlas.cells import SIZES, Row, Size
from tuner.knowledge.atlas import Atlas
from tuner.knowledge.basin import TargetCell
from tuner.knowledge.evidence import Evidence
from tuner.knowledge.library import Library
from tuner.knowledge.settings import SETTINGS
from tuner.knowledge.suggestion import Advisor, unbounded
from tuner.results.bowls import QUANTILES

Floats = npt.NDArray[np.float64]
LEFT_OUT = ("size", "text", "compute")
_SMALLER, _CHEAPER = math.log(4), math.log(10)
_FEWEST = 30  # trials of the sources
_ROWS = 8  # trials of a judged cell


@dataclass(frozen=True)
class Judged:
    """A suggestion for a cell.

    Attributes:
        cell: name of the cell.
        left_out: what the sources lack.
        target: size, budget and text.
        point: suggested places, (D,).
        expected: expected regret.
        smooth: regret on the bowl of all trials of the atlas.
        holds: for each setting, whether the interval has the centre of that bowl, (D,).
        loss: expected loss with its interval.
        level: lowest loss of the cell by all trials.
    """

    cell: str
    left_out: str
    target: TargetCell
    point: Floats
    expected: float
    smooth: float
    holds: npt.NDArray[np.bool_]
    loss: tuple[float, float, float]
    level: float


class Judge:
    """Judges suggestions for the cells of an atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self._source, self._all = atlas.source, atlas.evidence
        self._wholes: dict[str, Advisor] = {}

    def suggestions(self) -> Iterator[Judged]:
        """Yield a suggestion for each cell and each part that is left out."""
        for cell in self.cells:
            for left_out in LEFT_OUT:
                sources = self._sources(cell, left_out)
                if len(sources) >= _FEWEST:
                    yield self._judged(cell, left_out, sources)

    @cached_property
    def cells(self) -> list[str]:
        """Cells with enough trials."""
        names, counts = np.unique(self._all.cells, return_counts=True)
        return [str(name) for name, count in zip(names, counts, strict=True) if count >= _ROWS]

    def target(self, cell: str) -> TargetCell:
        """Return size, budget and text of a cell."""
        first = int(np.argmax(self._all.cells == cell))
        weights, tokens, parameters = np.exp(self._all.sizes[first])
        return TargetCell(
            float(weights), float(tokens), str(self._all.texts[first]), float(parameters)
        )

    def _sources(self, cell: str, left_out: str) -> Evidence:
        target = self.target(cell)
        if left_out == "text":
            return self._all.only(self._all.texts != target.text)
        sizes = self._all.sizes
        if left_out == "compute":
            return self._all.only(sizes[:, :2].sum(1) <= target.size[:2].sum() - _CHEAPER)
        return self._all.only(sizes[:, 0] <= target.size[0] - _SMALLER + 1e-6)

    def _judged(self, cell: str, left_out: str, sources: Evidence) -> Judged:
        target = self.target(cell)
        advisor = self.advisor(sources, target)
        points = unbounded(advisor)
        (best, *_) = advisor.best(points, 1)
        point, loss = points[best], advisor.loss(points[best])
        assert loss is not None
        whole = self._whole(cell)
        centre = whole.bowls.centres[0]
        low, high = np.quantile(advisor.bowls.centres, QUANTILES, axis=0)
        levels, _, _, _ = whole.basin.lowest()
        return Judged(
            cell, left_out, target, point,
            advisor.regret(points, [best]).value,
            float(np.expm1(whole.bowls.regrets(point[None])[0, 0])),
            (low <= centre) & (centre <= high),
            (loss.value, loss.low, loss.high),
            float(np.exp(levels[whole.basin.cells.index(cell)])),
        )  # fmt: skip

    def advisor(self, sources: Evidence, target: TargetCell) -> Advisor:
        """Return the advisor of some sources."""
        return Advisor(Library(((self._source, sources),)), target)

    def _whole(self, cell: str) -> Advisor:
        """Return the advisor of all trials for a cell, which is fitted once."""
        if cell not in self._wholes:
            self._wholes[cell] = self.advisor(self._all, self.target(cell))
        return self._wholes[cell]

    def best(self, cell: str) -> Floats:
        """Return what all trials of the atlas together suggest for a cell, (D,)."""
        advisor = self._whole(cell)
        points = unbounded(advisor)
        return np.asarray(points[advisor.best(points, 1)[0]])


def row_of(key: str, text: str, target: TargetCell, point: Floats, context: int, seed: int) -> Row:
    """Return the trial of a suggestion; B becomes the nearest power of two."""
    values: dict[str, Any] = {
        setting.symbol: setting.value(place) for setting, place in zip(SETTINGS, point, strict=True)
    }
    values["B"] = 2.0 ** max(0, round(math.log2(values["B"] / context)))
    size, tokens = size_of(target)
    return Row(f"{key}/seed {seed}", 0.0, text, size, tokens, seed, _written(values))


def size_of(target: TargetCell) -> tuple[Size, int]:
    """Return size and budget of the atlas of a target."""
    pairs = [(size, tokens) for size in SIZES for tokens in size.configurations]

    def distance(pair: tuple[Size, int]) -> float:
        size, tokens = pair
        weights = 12 * size.n_layers * size.d_model**2
        return abs(math.log(weights / target.weights)) + abs(math.log(tokens / target.tokens))

    return min(pairs, key=distance)


def _written(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in values.items()}
