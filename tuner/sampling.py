"""Which configuration a search tries next.

First the defaults, then the points that the space names, then what a sampler of Optuna suggests.
The same calls in the same order give the same suggestions, so a search resumes by repeating them:
`restore` for each `suggest`, with what was suggested then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from model.randomness import derive_key
from tuner.optuna_study import METHODS, Draw, OptunaStudy
from tuner.parameters import Value
from tuner.space import SearchSpace
from tuner.told import Told, as_if_finished, as_they_are

__all__ = ["Sampler", "Told"]

_SEEDS = 2**32  # of NumPy's generator, which Optuna uses


class Sampler:
    """Suggests trials and learns from them.

    Args:
        space: what may vary, and the settings of the search.
        report_tokens: training tokens between reports.
        budget_tokens: training tokens of a complete trial.
    """

    def __init__(self, space: SearchSpace, report_tokens: int, budget_tokens: int) -> None:
        self._space = space
        self._method = METHODS[space.search.sampler]
        self._study = OptunaStudy(space)
        self._report_tokens = report_tokens
        self._firsts = [self._only_drawn(space.defaults())]
        self._grid = space.grid
        self._draws: dict[int, Draw] = {}
        self._told: dict[int, Told] = {}
        self._news: set[int] = set()  # told, or told otherwise, since the last lesson
        self._visited: Counter[_Point] = Counter()

    @property
    def most(self) -> int | None:
        """How many different configurations there are to suggest; None if they have no end."""
        return None

    def suggest(self, number: int) -> Draw:
        """What a new trial draws: label → value, complete."""
        draw = self._first()
        if draw is None:
            draw = self._ask(number)
        self._keep(number, draw)
        return dict(draw)

    def restore(self, number: int, draw: Mapping[str, Value]) -> None:
        """This was suggested before, by this sampler or by a scheduler.

        The sampler then is as if `suggest` had suggested it.
        """
        if self._method.remembers and self._first() is None:
            self._ask(number)
        self._keep(number, dict(draw))

    def tell(self, number: int, told: Told) -> None:
        """A trial has ended, or is parked; told again, the later word counts."""
        if number in self._draws:
            self._told[number] = told
            self._news.add(number)

    def forget(self, number: int) -> None:
        """A parked trial trains again, as if it had never been told."""
        if self._told.pop(number, None) is not None:
            self._news.discard(number)
            self._study.put(number, self._draws[number], keep=self._method.remembers)

    # one suggestion --------------------------------------------------------------------------

    def _first(self) -> Draw | None:
        """The next of the points that are tried before the sampler is asked."""
        return next((draw for draw in self._firsts if not self._visited[_point(draw)]), None)

    def _ask(self, number: int) -> Draw:
        self._teach()
        seed = derive_key(self._space.search.seed, "suggest", number) % _SEEDS
        return self._study.ask(number, self._method.make(seed), self._turn())

    def _turn(self) -> Draw:
        """The combination of the `grid` parameters that was drawn least often."""
        if len(self._grid) == 1:
            return self._grid[0]
        labels = {label for point in self._grid for label in point}
        turns = Counter(
            _point({k: v for k, v in draw.items() if k in labels}) for draw in self._draws.values()
        )
        return min(self._grid, key=lambda point: turns[_point(point)])

    def _keep(self, number: int, draw: Draw) -> None:
        self._draws[number] = draw
        self._visited[_point(draw)] += 1
        self._study.put(number, draw, keep=self._method.remembers)

    def _only_drawn(self, draw: Mapping[str, Value]) -> Draw:
        drawn = Draw()
        for p in self._space.searched:
            if self._space.is_drawn(p, drawn):
                drawn[p.label] = draw[p.label]
        return drawn

    def _teach(self) -> None:
        """Bring the study up to date, as late as possible."""
        if not self._news or not self._method.learns:
            return
        if self._method.knows_stopped:
            news = {number: self._told[number] for number in sorted(self._news)}
            self._study.teach(as_they_are(news), news)
        else:  # what one trial teaches then depends on the others
            self._study.teach(as_if_finished(self._told, self._report_tokens), self._told)
        self._news.clear()


_Point = frozenset[tuple[str, Value]]


def _point(draw: Mapping[str, Value]) -> _Point:
    return frozenset(draw.items())
