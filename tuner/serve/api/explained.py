"""What a search of a space would be: its models, parameters, schedules, cost and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from tuner.samplers.priors import prior_density
from tuner.serve.queue import Priority, QueueItem
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.spaces import hash_of
from tuner.space.parameter import Parameter, Range, symbol
from tuner.summaries.rates import RateCurve, rate_curves
from tuner.validation.explanation import Explanation, StackSummary

_POINTS, _MOST_CURVES, _MOST_VALUES, _MOST_STACKS = 81, 16, 64, 64


class StackView(BaseModel):
    """The models of one shape; `steps` and `epochs` are the least and the most of a trial."""

    name: str
    context: int
    parameters: int
    train_sequences: int | None
    steps: list[int]
    epochs: list[int] | None

    @classmethod
    def of(cls, stack: StackSummary) -> StackView:
        """Return what the API says of a stack."""
        return cls(
            name=stack.name, context=stack.context, parameters=stack.parameters,
            train_sequences=stack.train_sequences, steps=list(stack.steps),
            epochs=None if stack.epochs is None else list(stack.epochs),
        )  # fmt: skip


class PriorView(BaseModel):
    """A searched parameter, and what it is drawn from.

    Attributes:
        label: name in a draw.
        symbol: its symbol.
        text: its distribution as text.
        is_log: True if the logarithm is uniform, so that `xs` are best shown on a log scale.
        xs: values, from the low end to the high end; of a list each of its values, as text.
        density: how probable they are for the first suggestion, relative to no prior.
        centre: centre of the prior; None without one.
        used_when: condition under which it is drawn, as text.
    """

    label: str
    symbol: str
    text: str
    is_log: bool
    xs: list[float] | list[str]
    density: list[float]
    centre: float | str | None = None
    used_when: str = ""


class RateView(BaseModel):
    """Learning rate of a draw: of the defaults, or of one parameter at an end of its range."""

    label: str
    steps: list[int]
    rates: list[float]


class ScheduleView(BaseModel):
    """The learning rates of a schedule."""

    schedule: str
    curves: list[RateView]


class CostView(BaseModel):
    """What a search would cost.

    Attributes:
        trials: number of trials, without the retrainings of the best.
        trial_tokens: training tokens of a complete trial.
        expected_tokens: training tokens of the search, as its scheduler is expected to stop trials.
        full_tokens: those of the search if all trials train to the end; both with retrainings.
        devices: number of devices that it asks for.
        seconds: estimated duration on them; None before the server has trained anything.
        peak_bytes: predicted memory of the process that trains the largest model; None if unknown.
        position: place in the queue if it were submitted now; None if it would begin at once.
        waits_for: what it would wait for, or that devices are free.
        begins_at: when it would probably begin, in seconds since the epoch; None if unknown.
    """

    trials: int
    trial_tokens: int
    expected_tokens: int
    full_tokens: int
    devices: int
    seconds: float | None
    peak_bytes: int | None
    position: int | None
    waits_for: str
    begins_at: float | None


class ValidationView(BaseModel):
    """A valid space.

    Attributes:
        name: its name.
        hash: digest of what a search of it would be.
        expected_tokens: training tokens that a search is expected to train.
        notes: remarks, one sentence each.
        lines: the search in sentences.
        stacks: its models.
        parameters: its searched parameters.
        schedules: learning rates of the defaults and of the ends of the ranges.
        cost: what it would cost.
        explanation: all that was found of the space, if it was asked for: what `tuner validate`
            prints is made of it.
    """

    name: str
    hash: str
    expected_tokens: int
    notes: list[str] = Field(default_factory=list)
    lines: list[str] = Field(default_factory=list)
    stacks: list[StackView] = Field(default_factory=list)
    parameters: list[PriorView] = Field(default_factory=list)
    schedules: list[ScheduleView] = Field(default_factory=list)
    cost: CostView
    explanation: dict[str, Any] | None = None


def explained(
    service: Service, user: User, data: bytes, priority: Priority, least: int | None,
    *, complete: bool = False,
) -> ValidationView:  # fmt: skip
    """Return what a search of a space would be that a user sent.

    Args:
        service: the service.
        user: who asks.
        data: text of the space.
        priority: class in which it would wait.
        least: number of devices that are enough; None for all that it asks for.
        complete: True for the explanation.

    Raises:
        SpaceError: with every mistake of the space.
    """
    found, _ = service.check(user, data)
    space, (full, expected) = found.space, found.tokens
    wants = space.engine.workers or service.machine.number
    seconds = service.dispatcher.seconds_of(expected, wants)
    item = QueueItem(
        "", user.name, priority, math.inf, wants, min(least or wants, wants), seconds_left=seconds
    )
    wait = service.dispatcher.forecast(item)
    cost = CostView(
        trials=space.search.trials, trial_tokens=space.budget_tokens(found.facts),
        expected_tokens=expected, full_tokens=full, devices=wants, seconds=seconds,
        peak_bytes=round(found.peaks[-1].memory.process) if found.peaks else None,
        position=wait.position or None, waits_for=wait.reason, begins_at=wait.begins_at,
    )  # fmt: skip
    return ValidationView(
        name=space.name, hash=hash_of(space), expected_tokens=expected, notes=list(found.notes),
        lines=found.lines, stacks=[StackView.of(each) for each in found.stacks[:_MOST_STACKS]],
        parameters=[_parameter(each) for each in space.searched], schedules=_schedules(found),
        cost=cost, explanation=dict(found.complete) if complete else None,
    )  # fmt: skip


def _parameter(parameter: Parameter) -> PriorView:
    """Return a parameter with its distribution at some places, or at each of its values."""
    distribution, prior = parameter.distribution, parameter.prior
    conditions = [
        f"{symbol(name)} {', '.join(map(str, values))}" for name, values in parameter.when.items()
    ]
    made = PriorView(
        label=parameter.label, symbol=symbol(parameter.name), text=parameter.describe(),
        is_log=isinstance(distribution, Range) and distribution.is_log, xs=[], density=[],
        centre=None if prior is None else prior.centre, used_when="; ".join(conditions),
    )  # fmt: skip
    values = distribution.possible_values()
    if not isinstance(distribution, Range) and values is not None:
        count = min(len(values), _MOST_VALUES)
        places = [(number + 0.5) / len(values) for number in range(count)]
        return made.model_copy(
            update={
                "xs": [str(value) for value in values[:count]],
                "density": prior_density(parameter, places),
            }
        )
    places = [number / (_POINTS - 1) for number in range(_POINTS)]
    xs = [float(parameter.at(place)) for place in places]
    return made.model_copy(update={"xs": xs, "density": prior_density(parameter, places)})


def _schedules(found: Explanation) -> list[ScheduleView]:
    def view(curve: RateCurve) -> RateView:
        return RateView(label=curve.label, steps=curve.steps.tolist(), rates=curve.rates.tolist())

    made: Sequence[tuple[str, list[RateCurve]]] = list(
        rate_curves(found.space, found.facts, _POINTS).items()
    )
    return [
        ScheduleView(schedule=name, curves=[view(each) for each in curves[:_MOST_CURVES]])
        for name, curves in made
    ]
