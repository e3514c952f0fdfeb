"""Searches side by side: what differs in their spaces, and what their seeds say of the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tuner.conductor.confirmation import Confirmed
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.journal.edit import changes
from tuner.journal.fold import Search
from tuner.journal.journal import read_journal
from tuner.space.parameter import Parameter
from tuner.space.space import SearchSpace
from tuner.texts.formatting import metric_text, shown


@dataclass(frozen=True)
class ComparedSearch:
    """A search and its result.

    Attributes:
        name: name of the search.
        ended: number of its trials that have ended.
        tokens: training tokens.
        best: value of the best trial; None before the first report.
        winner: retrainings of the best configuration with fresh seeds; None without them.
        space: its space, as last edited.
        data: fingerprint of its data.
    """

    name: str
    ended: int
    tokens: int
    best: float | None
    winner: Confirmed | None
    space: SearchSpace
    data: str

    @classmethod
    def of(cls, name: str, search: Search) -> ComparedSearch:
        """Return a search as its journal says."""
        board, confirmation = search.board, search.confirmation
        best = math.inf if board.best is None else board.value(board.best)
        return cls(
            name, len(board.ended), board.tokens, best if math.isfinite(best) else None,
            confirmation.winner if confirmation else None, search.space,
            search.facts.data_fingerprint,
        )  # fmt: skip


@dataclass(frozen=True)
class SearchComparison:
    """Searches side by side.

    Attributes:
        metric: metric of the first search's objective.
        searches: the searches, as they were named.
        differing: settings that differ, as text, setting → a value for each search.
        verdict: what the results say, one sentence.
    """

    metric: str
    searches: tuple[ComparedSearch, ...]
    differing: Mapping[str, tuple[str, ...]]
    verdict: str

    @classmethod
    def read(cls, home: Home, names: Sequence[str]) -> SearchComparison:
        """Compare searches of a home by their journals.

        Args:
            home: home of the searches.
            names: names of two or more searches.

        Raises:
            TunerError: if a search has not begun, or its journal cannot be read.
        """
        folds = [Search.of_name(read_journal(home.search(name)), name) for name in names]
        return cls.of(tuple(map(ComparedSearch.of, names, folds)))

    @classmethod
    def of(cls, compared: tuple[ComparedSearch, ...]) -> SearchComparison:
        """Compare two or more searches."""
        first = compared[0].space
        settings = dict.fromkeys(
            name for each in compared[1:] for name in changes(first, each.space) if name != "name"
        )
        differing = {
            name: tuple(_setting(each.space, name) for each in compared) for name in settings
        }
        return cls(first.objective.metric, compared, differing, _verdict(compared))

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner compare --json`."""
        return {
            "metric": self.metric,
            "searches": [
                {
                    "name": each.name, "trials_done": each.ended, "tokens": each.tokens,
                    "best": each.best, "seeds": each.winner.values if each.winner else (),
                    "mean": each.winner.mean if each.winner else None,
                }
                for each in self.searches
            ],
            "differences": self.differing,
            "verdict": self.verdict,
        }  # fmt: skip


def _setting(space: SearchSpace, name: str) -> str:
    """Return a setting of a space as text: `search.trials`, or a parameter's distribution."""
    part, _, key = name.partition(".")
    value: Any = getattr(space, part)
    if key:
        value = value.get(key) if isinstance(value, Mapping) else getattr(value, key)
    if isinstance(value, Parameter):
        return value.describe()
    if isinstance(value, BaseModel):
        return ", ".join(
            f"{k} {shown(v)}" for k, v in value.model_dump(exclude_defaults=True).items()
        )
    return "" if value is None else shown(value)


def _verdict(searches: Sequence[ComparedSearch]) -> str:
    """Return which search is better, if the noise of the seeds lets anybody say."""
    objectives = {each.space.objective for each in searches}
    texts = {each.data for each in searches}
    if len(objectives) > 1 or len(texts) > 1:
        what = "objectives" if len(objectives) > 1 else "data"
        return f"The results cannot be compared: the {what} differ."
    sign = searches[0].space.objective.sign
    confirmed = [each for each in searches if each.winner is not None and each.winner.count > 1]
    if len(confirmed) < len(searches):
        missing = next(each.name for each in searches if each not in confirmed)
        return (
            f"Nobody can say which is better: the winner of {missing} was not retrained with "
            f"several seeds (confirm:), and one value is the best of many noisy ones."
        )
    ranked = sorted(confirmed, key=lambda each: sign * _winner(each).mean)
    best, next_one = ranked[0], ranked[1]
    gap = abs(_winner(best).mean - _winner(next_one).mean)
    a, b = _winner(best), _winner(next_one)
    is_apart = a.high < b.low or b.high < a.low
    if not is_apart:
        return (
            f"{best.name} and {next_one.name} cannot be told apart: their means differ by "
            f"{metric_text(gap)}, and their 95 % intervals overlap."
        )
    return (
        f"{best.name} is better than {next_one.name} by {metric_text(gap)} on average; the 95 % "
        f"intervals of the means do not overlap."
    )


def _winner(search: ComparedSearch) -> Confirmed:
    if search.winner is None:
        raise TunerError(f"{search.name} has no winner")
    return search.winner
