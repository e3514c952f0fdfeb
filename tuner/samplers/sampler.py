"""Which configuration a search tries next.

First the defaults, the centres of the priors and the points of `try_first`; then what the sampler
suggests, in which priors have a say that fades. The same calls in the same order give the same
suggestions, so a search resumes by repeating them: `restore` for each `suggest`, with what was
suggested then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice

from model.keys import derive_key
from tuner.samplers.observation import Observation, at_one_budget, extrapolated, with_stopped
from tuner.samplers.optuna_sampler import METHODS, Draw, Method, OptunaStudy, tpe_of
from tuner.samplers.priors import prior_draw, uniform
from tuner.samplers.sobol import Sobol
from tuner.space.combinations import combinations
from tuner.space.first_draws import first_draws
from tuner.space.parameter import Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace

_SEEDS = 2**32  # of NumPy's generator, which Optuna uses
_RANDOM_SHARE = 1 / 3  # of BOHB's suggestions; ρ in the paper
_MOST_POINTS = 1_000_000  # of sampler grid; `search.trials` may be no larger

_Point = frozenset[tuple[str, Value]]


class Sampler:
    """Suggests trials and learns from them.

    Args:
        space: what may vary, and the settings of the search.
        report_tokens: training tokens between reports.
        budget_tokens: training tokens of a complete trial.
    """

    def __init__(self, space: SearchSpace, report_tokens: int, budget_tokens: int) -> None:
        self._space = space
        self._seed = space.search.seed
        self._report_tokens = report_tokens
        eta = space.search.reduction_factor
        self._rungs = [*rungs(report_tokens, eta, budget_tokens), budget_tokens]
        self._signs = [objective.sign for objective in space.objectives]
        self._firsts = first_draws(space)
        if space.search.sampler == "grid":
            self._firsts += _grid(space, self._firsts)
        self._next_first = 0
        self._turns = space.grid
        self._taken: Counter[_Point] = Counter()  # how often each combination had its turn
        self._visited: Counter[_Point] = Counter()  # how often each draw was suggested
        self._draws: dict[int, Draw] = {}
        self._told: dict[int, Observation] = {}
        self._news: set[int] = set()  # told, or told otherwise, since the sampler was taught
        self._sobol = Sobol(space.searched, self._seed) if space.search.sampler == "qmc" else None
        self._method = self._its_method()
        self._study = OptunaStudy(space, len(space.objectives))

    def _its_method(self) -> Method | None:
        if self._space.search.scheduler == "bohb":
            return tpe_of(len(self._space.searched) + 2)
        return METHODS.get(self._space.search.sampler)

    @property
    def most(self) -> int | None:
        """How many different configurations there are to suggest; None if they have no end."""
        return len(self._firsts) if self._space.search.sampler == "grid" else None

    def suggest(self, number: int) -> Draw:
        """What a new trial draws: label → value, complete.

        After `most` suggestions they begin again.
        """
        draw = self._first()
        if draw is None:
            draw = self._ask(number)
        self._keep(number, draw)
        return dict(draw)

    def restore(self, number: int, draw: Mapping[str, Value]) -> None:
        """This was suggested before, by this sampler or by a scheduler.

        The sampler then is as if `suggest` had suggested it.
        """
        if self._remembers and self._first() is None:
            self._ask(number)
        self._keep(number, dict(draw))

    def tell(self, number: int, told: Observation) -> None:
        """A trial has ended, or is parked; told again, the later word counts.

        A parked trial that trains again stays told: Optuna counts a running one among the bad.
        """
        if number in self._draws:
            self._told[number] = self._made_smaller(told)
            self._news.add(number)

    # one suggestion --------------------------------------------------------------------------

    @property
    def _remembers(self) -> bool:
        return self._method is not None and self._method.remembers

    def _first(self) -> Draw | None:
        """The next of the points that are tried before the sampler is asked."""
        while self._next_first < len(self._firsts):
            draw = self._firsts[self._next_first]
            if not self._visited[_point(draw)]:
                return draw
            self._next_first += 1
        return None

    def _ask(self, number: int) -> Draw:
        count = len(self._draws)
        fixed = prior_draw(self._space.searched, self._seed, number, count) | self._turn()
        if self._sobol is not None:
            return self._space.only_drawn(self._sobol.draw(number) | fixed)
        if self._method is None:  # all of the grid was visited
            return min(self._firsts, key=lambda draw: self._visited[_point(draw)])
        method = self._method
        if self._space.search.scheduler == "bohb":
            is_random = uniform(self._seed, "bohb", number) < _RANDOM_SHARE
            method = METHODS["random"] if is_random else method
        self._teach()
        seed = derive_key(self._seed, "suggest", number) % _SEEDS
        return self._study.ask(number, method, seed, fixed)

    def _turn(self) -> Draw:
        """The combination of the `grid` parameters that was drawn least often."""
        return min(self._turns, key=lambda point: self._taken[_point(point)])

    def _keep(self, number: int, draw: Draw) -> None:
        self._draws[number] = draw
        self._visited[_point(draw)] += 1
        for point in self._turns:
            self._taken[_point(point)] += point.items() <= draw.items()
        self._study.put(number, draw, keep=self._remembers)

    # what was told -----------------------------------------------------------------------------

    def _made_smaller(self, told: Observation) -> Observation:
        """With several objectives: all of them smaller if better; nothing but ends teaches."""
        if len(self._signs) == 1:
            return Observation(told.state, told.values)
        if told.state == "diverged":
            return told
        if told.state != "finished" or len(told.objectives) != len(self._signs):
            return Observation("failed", {})
        signed = (sign * value for sign, value in zip(self._signs, told.objectives, strict=True))
        return Observation("finished", told.values, tuple(signed))

    def _teach(self) -> None:
        """Bring the study up to date, as late as possible."""
        if not self._news or self._method is None or not self._method.learns:
            return
        told = self._told
        if self._space.search.scheduler == "bohb":
            enough = len(self._space.searched) + 2
            lessons = at_one_budget(told, self._rungs, self._report_tokens, enough)
        elif self._method.knows_stopped:  # what one trial teaches is then its own affair
            told = {number: told[number] for number in sorted(self._news)}
            lessons = with_stopped(told)
        else:
            lessons = extrapolated(told, self._report_tokens)
        self._study.teach(lessons, told)
        self._news.clear()


def _point(draw: Mapping[str, Value]) -> _Point:
    return frozenset(draw.items())


def _grid(space: SearchSpace, firsts: list[Draw]) -> list[Draw]:
    """Every combination that is not tried first; shuffled, so that a part of them is no corner."""
    options = {p.label: p.distribution.possible_values() or [] for p in space.searched}
    seen = {_point(draw) for draw in firsts}
    points = [
        point
        for point in islice(combinations(space.parameter_set, options), _MOST_POINTS)
        if _point(point) not in seen
    ]

    def place(point: Draw) -> int:
        return derive_key(space.search.seed, "grid", repr(sorted(point.items())))

    return sorted(points, key=place)
