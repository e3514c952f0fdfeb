"""Searches of search_quality.py: real conductor, sampler and scheduler, losses from the table.

A suggestion becomes the nearest configuration of the table that the search has not tried yet, and
the sampler observes this configuration as its own suggestion: its observations are true, but its
steps are coarser than in the space. Distance is measured in the cube of the space, with a weight
for each parameter from `learned_weights`; two values of a choice have distance 1.

Time is counted in training tokens: all slots train equally fast and at once, so that reports of
several trials alternate, as they do from a worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from model.engine.report import Report, Status
from parts.search_quality.sources import SOURCES, best_draws
from parts.search_quality.table import Floats, Table
from tuner.conductor.conductor import Conductor
from tuner.samplers.observation import Observation
from tuner.samplers.sampler import Belief, Sampler
from tuner.space.parameter import Choice, Constant, Parameter, Prior, Value
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.settings import Confirm
from tuner.space.space import SearchSpace

SMALL = 0.01  # a regret below which configurations are about equally good
LEAST_WEIGHT = 1 / 64  # of the largest, so that a sampler can steer every parameter
_FACTORS = (0.25, 0.5, 2.0, 4.0)  # tried on each weight
_ROUNDS = 6
# 60 points of the sampler grid; other parameters have their defaults
GRID: Mapping[str, tuple[Value, ...]] = {
    "max_learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "batch_size": (8, 16, 32),
    "beta2": (0.95, 0.99),
    "weight_decay": (0.01, 0.1),
}
FILE = "file"
LAWFUL = ("max_learning_rate", "batch_size")  # parameters of Step Law
ROUNDED = 0.02  # share of a range within which a suggestion counts as Step Law's
LAW = -1  # in place of a row: the configuration of Step Law


# what is near -----------------------------------------------------------------------------------


def _differences(table: Table) -> Floats:
    """Return squared distances of configurations in each parameter, (N, N, D)."""
    between = np.abs(table.places[:, None] - table.places[None])
    return np.where(table.choices, between > 0, between) ** 2


def _neighbours(differences: Floats, weights: Floats) -> npt.NDArray[np.intp]:
    """Return the nearest other configuration of each, (N,)."""
    distance = differences @ weights
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance.argmin(axis=1))


def _goodness(table: Table) -> Floats:
    """Return the logarithm of the regret, (N,), which separates good from best."""
    regret = table.final / table.best - 1
    worst = regret[np.isfinite(regret)].max()
    return np.asarray(np.log(np.minimum(regret, 2 * worst) + SMALL))


def snap_error(table: Table, weights: Floats) -> float:
    """Return the typical factor between the regrets of a configuration and of its nearest."""
    good = _goodness(table)
    nearest = _neighbours(_differences(table), weights)
    return float(np.exp(np.abs(good - good[nearest]).mean()))


def learned_weights(table: Table) -> Floats:
    """Return weights of the parameters, (D,), with which near configurations are equally good.

    Weights change one after another as long as `snap_error` becomes smaller.
    """
    differences, good = _differences(table), _goodness(table)

    def error(weights: Floats) -> float:
        return float(np.abs(good - good[_neighbours(differences, weights)]).mean())

    weights = np.ones(differences.shape[-1])
    least = error(weights)
    for _ in range(_ROUNDS):
        before = least
        for at, factor in product(range(len(weights)), _FACTORS):
            tried = weights.copy()
            tried[at] *= factor
            tried = np.maximum(tried / tried.max(), LEAST_WEIGHT)
            now = error(tried)
            if now < least:
                weights, least = tried, now
        if least == before:
            break
    return np.asarray(weights)


# a search ---------------------------------------------------------------------------------------


def grid_space(space: SearchSpace) -> SearchSpace:
    """Return the space with a few values for the parameters of `GRID`, the rest constant."""

    def coarse(parameter: Parameter) -> Parameter:
        default = space.defaults().get(parameter.label)
        if default is None:
            return parameter
        values = GRID.get(parameter.name)
        distribution = Choice(kind="choice", values=values) if values else Constant(value=default)
        return parameter.model_copy(update={"distribution": distribution, "prior": None})

    few = {name: coarse(parameter) for name, parameter in space.hyperparameters.items()}
    return _changed(space, {"hyperparameters": few})


def _changed(space: SearchSpace, update: Mapping[str, Any]) -> SearchSpace:
    """Return a new space with changes: a copy would keep cached properties."""
    old = {name: getattr(space, name) for name in SearchSpace.model_fields}
    return SearchSpace.model_validate({**old, **update})


class TableSampler:
    """Sampler that suggests configurations of a table, each once.

    Args:
        sampler: sampler of points; each is replaced by its nearest configuration.
        table: table of the space.
        weights: weights of the parameters, (D,).
        learns: True if the sampler accepts observations of points that it did not suggest.

    Attributes:
        rows: number of a trial → row of the table, or LAW.
    """

    def __init__(self, sampler: Sampler, table: Table, weights: Floats, *, learns: bool) -> None:
        self._sampler, self._table, self._weights = sampler, table, weights
        self._learns = learns
        self.rows: dict[int, int] = {}

    @property
    def num_configurations(self) -> int | None:
        """Largest number of suggestions."""
        most, rows = self._sampler.num_configurations, len(self._table.draws)
        return rows if most is None else min(most, rows)

    def suggest(self, number: int, belief: Belief) -> dict[str, Value]:
        """Return the unused configuration nearest to the suggestion of the sampler."""
        suggested = self._sampler.suggest(number, belief)
        if self._is_law(suggested):
            self.rows[number] = LAW
            return suggested
        self.rows[number] = row = self._nearest(self._table.draws[0] | suggested)
        draw = dict(self._table.draws[row])
        if self._learns:
            # not `restore`, which would advance a sampler with a sequence a second time
            self._sampler._keep(number, draw)
        return draw

    def _is_law(self, draw: Mapping[str, Value]) -> bool:
        """Return True if a draw is the centre of the priors, whose α_max may be rounded."""
        if draw.keys() != self._table.law.keys():
            return False
        between = np.subtract(self._table.place(draw), self._table.place(self._table.law))
        return bool(np.abs(between).max() < ROUNDED)

    def _nearest(self, draw: Mapping[str, Value]) -> int:
        used = [row for row in self.rows.values() if row != LAW]
        return self._table.nearest(draw, self._weights, used)

    def observe(self, number: int, observation: Observation) -> None:
        """Passed on."""
        self._sampler.observe(number, observation)


class _TableConductor(Conductor):
    """Conductor whose sampler suggests configurations of a table.

    Args:
        space: space of the table, with the settings of the search.
        slots: number of trials in training at one time.
        table: table of the space.
        weights: weights of the parameters, (D,).
        proposals: what the search learned from sources.
        is_perfect: True for a sampler that suggests the configurations from the best on.
    """

    def __init__(
        self, space: SearchSpace, slots: int, table: Table, weights: Floats,
        proposals: Proposals = NOTHING, *, is_perfect: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(space, table.facts, slots, proposals=proposals)
        is_grid = space.search.sampler == "grid"
        first = Proposals(best_draws(table)) if is_perfect else proposals
        sampler = Sampler(grid_space(space) if is_grid else space, *self._lengths, first)
        self.table_sampler = TableSampler(sampler, table, weights, learns=not is_grid)
        self._sampler = self.table_sampler  # type: ignore[assignment]


@dataclass
class Trace:
    """Best loss of finished configurations by the tokens spent by all trials together.

    Attributes:
        tokens: tokens at each improvement.
        losses: best loss from that improvement on.
        spent: tokens at the end.
        trials: number of trials begun.
    """

    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    spent: int = 0
    trials: int = 0

    def add(self, tokens: int, loss: float) -> None:
        """Record the loss of a finished configuration."""
        if not self.losses or loss < self.losses[-1]:
            self.tokens.append(tokens)
            self.losses.append(loss)

    def at(self, tokens: float) -> float:
        """Return the best loss after so many tokens; infinity before the first finished one."""
        reached = [loss for at, loss in zip(self.tokens, self.losses, strict=True) if at <= tokens]
        return reached[-1] if reached else math.inf

    def reaches(self, loss: float) -> float:
        """Return the tokens after which the best loss is at most this; infinity if it never is."""
        pairs = zip(self.tokens, self.losses, strict=True)
        return next((at for at, best in pairs if best <= loss), math.inf)


@dataclass(frozen=True)
class Lab:
    """Table and settings of replayed searches.

    Attributes:
        table: losses of the configurations.
        slots: number of trials in training at one time.
        most_tokens: tokens after which a search ends.
    """

    table: Table
    slots: int
    most_tokens: int

    @cached_property
    def weights(self) -> Floats:
        """Weights of the parameters, (D,)."""
        return learned_weights(self.table)

    def search(self, settings: Mapping[str, Any], seed: int) -> Trace:
        """Replay one search; arguments as for `conducted`."""
        trace = Trace()
        for conductor, report in self.conducted(settings, seed):
            board = conductor.board
            if report.status is Status.FINISHED:
                trace.add(board.tokens, report.val_loss)
            trace.spent, trace.trials = board.tokens, len(board.trials)
        return trace

    def conducted(
        self, settings: Mapping[str, Any], seed: int
    ) -> Iterator[tuple[Conductor, Report]]:
        """Conduct one search; yield its conductor and the newest report after each report.

        Args:
            settings: entries of `search:`, without seed and max_tokens; `prior`, the confidence in
                Step Law's α_max and B, or FILE for the priors of the space (default: no priors);
                `slots`, if not those of the lab; `trials`, None for the number in the space
                (default: all configurations); `perfect`, True for a sampler that suggests the
                configurations from the best on; `proposals`, a key of `SOURCES` (default: none).
            seed: seed of the search.
        """
        others = dict(settings)
        slots, is_perfect = others.pop("slots", self.slots), others.pop("perfect", False)
        kind = others.pop("proposals", None)
        learned = SOURCES[kind](self.table, self.weights, seed) if kind else NOTHING
        space = self._space({**others, "seed": seed, "max_tokens": self.most_tokens})
        conductor = _TableConductor(
            space, slots, self.table, self.weights, learned, is_perfect=is_perfect
        )
        conductor.fill()
        while conductor.expected is not None:
            number, step = conductor.expected
            report = self._report(conductor, number, step)
            conductor.report(number, report)
            yield conductor, report
            conductor.fill()

    def _space(self, settings: Mapping[str, Any]) -> SearchSpace:
        space, others = self.table.space, dict(settings)
        prior = others.pop("prior", None)
        trials = others.pop("trials", len(self.table.draws))
        if trials is not None:
            others["trials"] = trials
        search = space.search.model_copy(update=others)
        update: dict[str, Any] = {"search": search, "confirm": Confirm(top=0)}
        if prior != FILE:
            update["hyperparameters"] = {
                name: p.model_copy(update={"prior": self._prior(p, prior)})
                for name, p in space.hyperparameters.items()
            }
        return _changed(space, update)

    def _prior(self, parameter: Parameter, confidence: float | None) -> Prior | None:
        if confidence is None or parameter.name not in LAWFUL:
            return None
        return Prior(centre=self.table.law[parameter.label], confidence=confidence)

    def _report(self, conductor: _TableConductor, number: int, step: int) -> Report:
        """Return the report of a trial at a step, from the table."""
        row = conductor.table_sampler.rows[number]
        spec = conductor.board.trials[number].spec
        at = spec.report_steps.index(step)
        curve = self.table.law_losses if row == LAW else self.table.losses[row]
        loss = float(curve[at])
        status = Status.FINISHED if at == len(spec.report_steps) - 1 else Status.TRAINING
        return Report(
            trial_id=str(number),
            status=status if math.isfinite(loss) else Status.DIVERGED,
            step=step,
            tokens=step * spec.tokens_per_step,
            val_loss=loss,
            train_loss=loss,
            grad_norm=1.0,
            learning_rate=1e-3,
        )
