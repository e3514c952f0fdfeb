"""Suggests the configuration of each new trial.

The first suggestions are the defaults, what earlier searches propose, the centres of the priors and
the points of `try_first`. Later suggestions come from the sampler of the space, mixed with its
priors. Suggestions are deterministic: the same calls in the same order give the same suggestions. A
search resumes by repeating its calls, with `restore` and the recorded draw instead of each
`suggest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum

from model.keys import derive_key
from tuner.samplers.kind import Draw
from tuner.samplers.observation import Observation, at_one_budget, extrapolated, with_stopped
from tuner.samplers.optuna_sampler import OptunaStudy
from tuner.samplers.priors import prior_draw, uniform
from tuner.samplers.registry import SAMPLERS
from tuner.samplers.tpe import tpe_of
from tuner.space.first_draws import first_draws
from tuner.space.parameter import Value
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace

_SEEDS = 2**32  # number of seeds of NumPy's generator, which Optuna uses
_RANDOM_SHARE = 1 / 3  # share of BOHB's suggestions that are random; ρ in the paper

_Point = frozenset[tuple[str, Value]]


class Belief(Enum):
    """What a suggestion may follow beside the observations."""

    SOURCES = "sources"  # what earlier searches propose, and priors
    OWN = "own"  # the priors of the space only
    NOTHING = "nothing"  # the defaults, then a random configuration


class Sampler:
    """Suggests trials and learns from them.

    Args:
        space: search space, with the settings of the search.
        report_tokens: training tokens between reports; with `budget.flops`, these and the places
            of observations are FLOPs.
        budget_tokens: training tokens of a complete trial.
        proposals: what earlier searches propose: first draws, and priors of the parameters that
            have none of their own.
    """

    def __init__(
        self,
        space: SearchSpace,
        report_tokens: int,
        budget_tokens: int,
        proposals: Proposals = NOTHING,
    ) -> None:
        self._space = space
        self._seed = space.search.seed
        self._report_tokens = report_tokens
        eta = space.search.reduction_factor
        self._rungs = [*rungs(report_tokens, eta, budget_tokens), budget_tokens]
        self._signs = [objective.sign for objective in space.objectives]
        self._is_bohb = space.search.scheduler == "bohb"
        self._min_trials = len(space.searched) + 2  # of the model of BOHB
        self._kind = tpe_of(self._min_trials) if self._is_bohb else SAMPLERS[space.search.sampler]
        self._firsts = first_draws(space, proposals.draws)
        self._hidden = {  # belief → first draws that it does not follow
            Belief.SOURCES: [],
            Belief.OWN: proposals.draws,
            Belief.NOTHING: self._firsts[int(space.search.defaults != "off") :],
        }
        self._believed = {
            Belief.SOURCES: proposals.believed(space.searched),
            Belief.OWN: space.searched,
            Belief.NOTHING: [],
        }
        if self._kind.points is not None:
            self._firsts += self._kind.points(space, self._firsts)
        self._next_first = 0
        self._grid_points = space.grid
        self._grid_counts: Counter[_Point] = Counter()  # grid point → number of its suggestions
        self._draw_counts: Counter[_Point] = Counter()  # draw → number of its suggestions
        self._draws: dict[int, Draw] = {}
        self._observations: dict[int, Observation] = {}
        # trials whose observations the study does not have yet, or has in an older version
        self._unseen: set[int] = set()
        self._sequence = self._kind.sequence(space) if self._kind.sequence else None
        self._study = OptunaStudy(space, len(space.objectives))

    @property
    def num_configurations(self) -> int | None:
        """Number of different configurations of sampler grid; None for other samplers."""
        return len(self._firsts) if self._kind.points is not None else None

    def suggest(self, number: int, belief: Belief = Belief.SOURCES) -> Draw:
        """Return the complete draw of a new trial: label → value.

        After `num_configurations` suggestions, sampler grid suggests its points again.
        """
        draw = self._next_first_draw(belief)
        if draw is None:
            draw = self._ask(number, belief)
        self._keep(number, draw)
        return dict(draw)

    def restore(
        self, number: int, draw: Mapping[str, Value], belief: Belief = Belief.SOURCES
    ) -> None:
        """Record a draw that this sampler or a scheduler suggested earlier.

        The state of the sampler is the same as after the `suggest` that returned this draw.
        """
        if self._kind.keeps_state and self._next_first_draw(belief) is None:
            self._ask(number, belief)  # CMA-ES and NSGA-II change their state when they are asked
        self._keep(number, dict(draw))

    def observe(self, number: int, observation: Observation) -> None:
        """Record that a trial has ended or is paused; a later observation replaces an earlier one.

        The observation of a paused trial stays when the trial resumes, because Optuna counts
        running trials among the bad ones.
        """
        if number in self._draws:
            self._observations[number] = self._minimized(observation)
            self._unseen.add(number)

    # one suggestion --------------------------------------------------------------------------

    def _next_first_draw(self, belief: Belief) -> Draw | None:
        """Return the next point to try before the sampler is asked; None after the last."""
        for at in range(self._next_first, len(self._firsts)):
            draw = self._firsts[at]
            if not self._draw_counts[_point(draw)]:
                if draw not in self._hidden[belief]:
                    return draw
            elif at == self._next_first:
                self._next_first += 1
        return None

    def _ask(self, number: int, belief: Belief) -> Draw:
        count = len(self._draws)
        fixed = prior_draw(self._believed[belief], self._seed, number, count) | self._grid_point()
        if self._sequence is not None:
            return self._space.only_drawn(self._sequence(number) | fixed)
        if self._kind.points is not None:  # every one was suggested
            return min(self._firsts, key=lambda draw: self._draw_counts[_point(draw)])
        is_random = self._is_bohb and uniform(self._seed, "bohb", number) < _RANDOM_SHARE
        is_random |= belief is Belief.NOTHING
        self._update_study()
        seed = derive_key(self._seed, "suggest", number) % _SEEDS
        kind = SAMPLERS["random"] if is_random else self._kind
        return self._study.ask(number, kind, seed, fixed)

    def _grid_point(self) -> Draw:
        """Return the combination of the `grid` parameters that was drawn least often."""
        return min(self._grid_points, key=lambda point: self._grid_counts[_point(point)])

    def _keep(self, number: int, draw: Draw) -> None:
        self._draws[number] = draw
        self._draw_counts[_point(draw)] += 1
        for point in self._grid_points:
            self._grid_counts[_point(point)] += point.items() <= draw.items()
        self._study.put(number, draw, keep=self._kind.keeps_state)

    # observations -----------------------------------------------------------------------------

    def _minimized(self, observation: Observation) -> Observation:
        """Return an observation whose objectives are all minimized.

        With several objectives, only values at the end are comparable: a stopped trial becomes a
        failed one.
        """
        values, objectives = observation.values, observation.objectives
        if len(self._signs) == 1:
            return Observation(observation.state, values)
        if observation.state == "diverged":
            return observation
        if observation.state != "finished" or len(objectives) != len(self._signs):
            return Observation("failed", {})
        signed = (sign * value for sign, value in zip(self._signs, objectives, strict=True))
        return Observation("finished", values, tuple(signed))

    def _update_study(self) -> None:
        """Write all new observations to the study.

        Called when a suggestion needs them, not in `observe`, because the feedback of one trial
        may depend on all others.
        """
        if not self._unseen or not self._kind.uses_observations:
            return
        observations = self._observations
        if self._is_bohb:
            feedback = at_one_budget(
                observations, self._rungs, self._report_tokens, self._min_trials
            )
        elif self._kind.supports_stopped:  # then the feedback of a trial depends on no other one
            observations = {number: observations[number] for number in sorted(self._unseen)}
            feedback = with_stopped(observations)
        else:
            feedback = extrapolated(observations, self._report_tokens)
        self._study.update(feedback, observations)
        self._unseen.clear()


def _point(draw: Mapping[str, Value]) -> _Point:
    return frozenset(draw.items())
