"""Searches of search_quality.py: the real conductor, sampler and scheduler, but looked-up losses.

A suggestion becomes the nearest configuration of the table that the search has not tried yet, and
the sampler is told that this is what it suggested: what it learns is true, though its next step is
coarser than in the space itself. Near is measured in the cube of the space; each parameter counts
as much as `learned_weights` finds that it should, two values of a choice being 1 apart.

Time is counted in training tokens: all slots train equally fast and at once, so that reports of
several trials arrive by turns, as they do from a worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from search_quality_table import Floats, Table

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
from tuner.samplers.observation import Observation
from tuner.samplers.sampler import Sampler
from tuner.space.parameter import Choice, Constant, Parameter, Prior, Value
from tuner.space.settings import Confirm
from tuner.space.space import SearchSpace

SMALL = 0.01  # a regret below which configurations are about equally good
LEAST_WEIGHT = 1 / 64  # of the largest, so that a sampler can steer every parameter
_FACTORS = (0.25, 0.5, 2.0, 4.0)  # by which a weight is tried to be better
_ROUNDS = 6
# sampler grid, of 60 points: the rest as in the defaults
GRID: Mapping[str, tuple[Value, ...]] = {
    "max_learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "batch_size": (8, 16, 32),
    "beta2": (0.95, 0.99),
    "weight_decay": (0.01, 0.1),
}
FILE = "file"
LAWFUL = ("max_learning_rate", "batch_size")  # what Step Law is about
ROUNDED = 0.02  # of a range, where what was trained stands for what was suggested
LAW = -1  # in place of a row: the configuration of Step Law


# what is near -----------------------------------------------------------------------------------


def _differences(table: Table) -> Floats:
    """(N, N, D): how far apart two configurations are in each parameter, squared."""
    between = np.abs(table.places[:, None] - table.places[None])
    return np.where(table.choices, between > 0, between) ** 2


def _neighbours(differences: Floats, weights: Floats) -> npt.NDArray[np.intp]:
    """(N,): of each configuration the nearest other one."""
    distance = differences @ weights
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance.argmin(axis=1))


def _goodness(table: Table) -> Floats:
    """(N,): the logarithm of the regret, which tells the good from the best."""
    regret = table.final / table.best - 1
    worst = regret[np.isfinite(regret)].max()
    return np.asarray(np.log(np.minimum(regret, 2 * worst) + SMALL))


def snap_error(table: Table, weights: Floats) -> float:
    """The factor between the regrets of a configuration and of its nearest, typically."""
    good = _goodness(table)
    nearest = _neighbours(_differences(table), weights)
    return float(np.exp(np.abs(good - good[nearest]).mean()))


def learned_weights(table: Table) -> Floats:
    """(D,): how much each parameter counts, so that near configurations are about equally good.

    One weight after another is changed as long as that makes `snap_error` smaller.
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
            found = error(tried)
            if found < least:
                weights, least = tried, found
        if least == before:
            break
    return np.asarray(weights)


# a search ---------------------------------------------------------------------------------------


def grid_space(space: SearchSpace) -> SearchSpace:
    """The space with a few values for what matters most, as somebody would write them down."""

    def some(parameter: Parameter) -> Parameter:
        default = space.defaults().get(parameter.label)
        if default is None:
            return parameter
        values = GRID.get(parameter.name)
        distribution = Choice(kind="choice", values=values) if values else Constant(value=default)
        return parameter.model_copy(update={"distribution": distribution, "prior": None})

    few = {name: some(parameter) for name, parameter in space.hyperparameters.items()}
    return _changed(space, {"hyperparameters": few})


def _changed(space: SearchSpace, update: Mapping[str, Any]) -> SearchSpace:
    """A space made anew: a copy would keep what is cached."""
    old = {name: getattr(space, name) for name in SearchSpace.model_fields}
    return SearchSpace.model_validate({**old, **update})


class TableSampler:
    """A sampler that suggests configurations of a table, each once.

    Args:
        sampler: suggests the points that they are near to.
        table: of the same space.
        weights: (D,), of the parameters.
        learns: whether the sampler can be told what it has not suggested.

    Attributes:
        rows: trial → row of the table, or LAW.
    """

    def __init__(self, sampler: Sampler, table: Table, weights: Floats, *, learns: bool) -> None:
        self._sampler, self._table, self._weights = sampler, table, weights
        self._learns = learns
        self.rows: dict[int, int] = {}

    @property
    def most(self) -> int | None:
        """Suggestions that there are."""
        most, rows = self._sampler.num_configurations, len(self._table.draws)
        return rows if most is None else min(most, rows)

    def suggest(self, number: int) -> dict[str, Value]:
        """The unused configuration that is nearest to what the sampler suggests."""
        suggested = self._sampler.suggest(number)
        if self._is_law(suggested):
            self.rows[number] = LAW
            return suggested
        self.rows[number] = row = self._nearest(self._table.draws[0] | suggested)
        draw = dict(self._table.draws[row])
        if self._learns:
            # not `restore`, by which a sampler with a sequence would go on in it once more
            self._sampler._keep(number, draw)
        return draw

    def _is_law(self, draw: Mapping[str, Value]) -> bool:
        """Whether it is the centre of the priors, whose α_max may be rounded."""
        if draw.keys() != self._table.law.keys():
            return False
        between = np.subtract(self._table.place(draw), self._table.place(self._table.law))
        return bool(np.abs(between).max() < ROUNDED)

    def _nearest(self, draw: Mapping[str, Value]) -> int:
        between = np.abs(self._table.places - np.array(self._table.place(draw)))
        distance = np.where(self._table.choices, between > 0, between) ** 2 @ self._weights
        distance[[row for row in self.rows.values() if row != LAW]] = np.inf
        return int(distance.argmin())

    def tell(self, number: int, told: Observation) -> None:
        """Passed on."""
        self._sampler.observe(number, told)

    def forget(self, number: int) -> None:
        """Passed on."""
        self._sampler.forget(number)


class _TableConductor(Conductor):
    """A conductor whose sampler suggests configurations of a table."""

    def __init__(self, space: SearchSpace, slots: int, table: Table, weights: Floats) -> None:
        super().__init__(space, table.facts, slots)
        is_grid = space.search.sampler == "grid"
        sampler = Sampler(grid_space(space) if is_grid else space, *self._lengths)
        self.table_sampler = TableSampler(sampler, table, weights, learns=not is_grid)
        self._sampler = self.table_sampler  # type: ignore[assignment]


@dataclass
class Trace:
    """How good the best finished configuration was, by the tokens spent by all trials together.

    Attributes:
        tokens: when it got better.
        losses: what it was from there on.
        spent: in the end.
        trials: begun.
    """

    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    spent: int = 0
    trials: int = 0

    def add(self, tokens: int, loss: float) -> None:
        """A configuration has finished."""
        if not self.losses or loss < self.losses[-1]:
            self.tokens.append(tokens)
            self.losses.append(loss)

    def at(self, tokens: float) -> float:
        """The best loss after so many tokens; infinity while none has finished."""
        reached = [loss for at, loss in zip(self.tokens, self.losses, strict=True) if at <= tokens]
        return reached[-1] if reached else math.inf

    def reaches(self, loss: float) -> float:
        """The tokens after which the best is at most this; infinity if it never is."""
        pairs = zip(self.tokens, self.losses, strict=True)
        return next((at for at, found in pairs if found <= loss), math.inf)


@dataclass(frozen=True)
class Lab:
    """What searches are replayed on.

    Attributes:
        table: of losses.
        slots: trials in training at one time.
        most_tokens: after which a search ends.
    """

    table: Table
    slots: int
    most_tokens: int

    @cached_property
    def weights(self) -> Floats:
        """How much each parameter counts."""
        return learned_weights(self.table)

    def search(self, settings: Mapping[str, Any], seed: int) -> Trace:
        """Replay one search.

        Args:
            settings: of `search:`, beside seed and max_tokens; and `prior`, how sure Step Law's
                α_max and B are, or FILE for the priors of the space; there are none by default.
                `slots` may be others than usual. All configurations may be tried, or with `trials`
                None as many as the space says.
            seed: of the search.
        """
        others = dict(settings)
        slots = others.pop("slots", self.slots)
        space = self._space({**others, "seed": seed, "max_tokens": self.most_tokens})
        conductor = _TableConductor(space, slots, self.table, self.weights)
        trace = Trace()
        conductor.fill()
        while conductor.expected is not None:
            number, step = conductor.expected
            report = self._report(conductor, number, step)
            conductor.report(number, report)
            if report.status is Status.FINISHED:
                trace.add(conductor.board.tokens, report.val_loss)
            conductor.fill()
        trace.spent, trace.trials = conductor.board.tokens, len(conductor.board.trials)
        return trace

    def _space(self, settings: Mapping[str, Any]) -> SearchSpace:
        space, others = self.table.space, dict(settings)
        prior = others.pop("prior", None)
        if others.pop("trials", ...) is not None:  # None: as many as the space says
            others["trials"] = len(self.table.draws)
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
        """What the table says of a trial at a step."""
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
