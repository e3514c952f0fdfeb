"""Finds the value of a parameter beyond which trials diverge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tuner.conductor.trial import Trial
from tuner.results.range_edit import cut, entry, from_unit, is_number, unit
from tuner.space.parameter import Parameter, Range, Value, peak_rate, rate_row, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import significant, written

_PURE = 0.75  # least share: of the trials on one side that diverged, and of the diverged on it
_CHANCE = 0.01  # probability that a value separates randomly diverging trials as well


@dataclass(frozen=True)
class _Part:
    """The trials on one side of a value.

    Attributes:
        description: description of the side, as `α_max above 0.012`.
        size: number of trials on the side.
        diverged: number of them that diverged.
        fix: recommendation for the next search.
        lowered: label of the parameter whose upper end should be lowered, if there is one.
    """

    description: str
    size: int
    diverged: int
    fix: str
    lowered: str | None = None


@dataclass(frozen=True)
class Divergence:
    """Summary of the trials that diverged.

    Attributes:
        message: summary and recommendation for the user.
        lowered: label of the parameter whose upper end it recommends to lower, if there is one.
    """

    message: str
    lowered: str | None = None


def divergence(space: SearchSpace, trials: Sequence[Trial]) -> Divergence | None:
    """Summarize how many trials diverged, beyond which value, and what to do; None if none did.

    A value separates the trials if at least three quarters of the trials beyond it diverged, at
    least three quarters of the diverged ones are beyond it, and chance would do as well at this
    value in less than one of a hundred cases (the learning rate has this level alone, the other
    parameters share it). All values are tried: of 12 trials, 5 of which diverge at random, 1.6 of
    100 searches get a value of the rate. Trials that were stopped before half of the diverged ones
    had diverged are left out.
    """
    num_diverged = sum(t.has_diverged for t in trials)
    if not num_diverged:
        return None
    count = f"{num_diverged} of {len(trials)} trials diverged"
    rate = _rate(space, trials)
    if num_diverged == len(trials):
        return Divergence(f"{count}: {_ten_times_lower(rate)}.")
    if num_diverged == 1:
        index = next(i for i, t in enumerate(trials) if t.has_diverged)
        return Divergence(
            f"{count}, with {symbol(rate.name)} {written(significant(rate.values[index], 3))}."
        )
    when = median(t.tokens for t in trials if t.has_diverged)
    judged = [t for t in trials if t.has_diverged or t.tokens >= when]
    part = _best_part(space, judged, _rate(space, judged))
    if part is None:
        return Divergence(
            f"{count}, at no particular value of any parameter; a smaller τ or a longer T_warmup "
            f"makes training more stable."
        )
    rest, others = num_diverged - part.diverged, len(judged) - part.size
    details = f"{part.diverged} of the {part.size} with {part.description}"
    if others:
        details += f", {rest or 'none'} of the other {others}"
    if len(judged) < len(trials):
        details += f" ({len(trials) - len(judged)} were stopped too early to tell)"
    return Divergence(f"{count}: {details}; {part.fix}.", part.lowered)


@dataclass(frozen=True)
class _Feature:
    """A number of each trial, NaN for a trial without it."""

    name: str
    values: tuple[float, ...]
    parameter: Parameter | None


def _rate(space: SearchSpace, trials: Sequence[Trial]) -> _Feature:
    """Return the peak learning rate of each trial."""
    names = {rate_row(t.spec.hyperparameters) for t in trials}
    name = names.pop() if len(names) == 1 else "max_learning_rate"
    entries = [p for p in space.searched if p.name == name]
    is_drawn = len(entries) == 1 and not names
    is_drawn = is_drawn and not entries[0].when and not entries[0].fraction_of
    return _Feature(
        name, tuple(peak_rate(t.spec) for t in trials), entries[0] if is_drawn else None
    )


def _ten_times_lower(rate: _Feature) -> str:
    name, d = symbol(rate.name), rate.parameter.distribution if rate.parameter else None
    span = " to ".join(written(significant(of(rate.values), 3)) for of in (min, max))
    if isinstance(d, Range) and rate.parameter:
        lower = Range(kind=d.kind, low=significant(d.low / 10, 2), high=significant(d.high / 10, 2))
        return f"{name} was {span}; try {entry(rate.parameter, lower)}"
    return f"{name} was {span}; try a tenth of it"


def _best_part(space: SearchSpace, trials: Sequence[Trial], rate: _Feature) -> _Part | None:
    """Return the side that separates the diverged trials best; if equal, of the learning rate."""
    diverged = [t.has_diverged for t in trials]
    others = [p for p in space.searched if p is not rate.parameter]
    features = [_sides(rate, diverged), *(_parts(p, trials, diverged) for p in others)]
    best, fewest = None, math.inf
    for index, parts in enumerate(features):
        allowed = _CHANCE / (len(others) if index else 1)
        for part in parts:
            wrong = part.size + sum(diverged) - 2 * part.diverged
            if wrong < fewest and _chance(diverged, part) <= allowed:
                best, fewest = part, wrong
    return best


def _parts(
    parameter: Parameter, trials: Sequence[Trial], diverged: Sequence[bool]
) -> Iterator[_Part]:
    drawn = [t.draw.get(parameter.label) for t in trials]
    if all(v is None or is_number(v) for v in drawn):
        numbers = tuple(math.nan if v is None else float(v) for v in drawn)
        return _sides(_Feature(parameter.name, numbers, parameter), diverged)
    return _names(parameter, drawn, diverged)


def _is_pure(size: int, hits: int, total: int) -> bool:
    """Return True if a side has most of the diverged trials and few others."""
    return hits >= _PURE * max(size, total)


def _sides(feature: _Feature, diverged: Sequence[bool]) -> Iterator[_Part]:
    """Yield the pure sides above and below each middle between two neighbouring values."""
    pairs = sorted(
        (v, d) for v, d in zip(feature.values, diverged, strict=True) if not math.isnan(v)
    )
    p, total, below = feature.parameter, sum(diverged), 0
    num_diverged = sum(d for _, d in pairs)
    for i in range(1, len(pairs)):
        low, high = pairs[i - 1][0], pairs[i][0]
        below += pairs[i - 1][1]
        if low == high:
            continue
        sides = (("above", len(pairs) - i, num_diverged - below), ("below", i, below))
        for side, size, hits in sides:
            if _is_pure(size, hits, total):
                limit = _between(feature, low, high)
                ends = (-math.inf, limit) if side == "above" else (limit, math.inf)
                rest = cut(p.distribution, *ends) if p else None
                description = f"{symbol(feature.name)} {side} {written(limit)}"
                lowered = p.label if p and side == "above" else None
                fix = f"try {entry(p, rest)}" if p and rest else f"leave {description} out"
                yield _Part(description, size, hits, fix, lowered)


def _names(
    parameter: Parameter, drawn: Sequence[Value | None], diverged: Sequence[bool]
) -> Iterator[_Part]:
    """Yield the trials with each value of a choice among names, if they are pure."""
    for value in dict.fromkeys(v for v in drawn if v is not None):
        inside = [d for v, d in zip(drawn, diverged, strict=True) if v == value]
        if _is_pure(len(inside), sum(inside), sum(diverged)):
            description = f"{symbol(parameter.name)} {written(value)}"
            fix = "leave it out or lower its learning rate"
            yield _Part(description, len(inside), sum(inside), fix)


def _between(feature: _Feature, low: float, high: float) -> float:
    """Return a short number between two values, near their middle on the unit scale."""
    d = feature.parameter.distribution if feature.parameter else None
    if isinstance(d, Range):
        middle = from_unit(d, (unit(d, low) + unit(d, high)) / 2)
    else:
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
    return next((s for n in (1, 2, 3) if low <= (s := significant(middle, n)) < high), middle)


def _chance(diverged: Sequence[bool], part: _Part) -> float:
    """Probability that as many or more on a side diverge by chance (hypergeometric)."""
    trials, total = len(diverged), sum(diverged)
    ways = sum(
        math.comb(total, k) * math.comb(trials - total, part.size - k)
        for k in range(part.diverged, min(part.size, total) + 1)
    )
    return ways / math.comb(trials, part.size)
