"""Where trials diverge: the value of one parameter that parts them from the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from model.spec.trial import TrialSpec
from tuner.formatting import significant, written
from tuner.results.range_edit import cut, entry, from_unit, is_number, unit
from tuner.space.parameter import Parameter, Range, Value, symbol
from tuner.space.space import SearchSpace

_PURE = 0.75  # of the trials on one side diverged, and of the diverged ones are there: at least
_CHANCE = 0.01  # that trials drawn at random would be parted as well as that
_RATES = {"constant": "learning_rate", "noam": "noam_factor"}  # all others: max_learning_rate


@dataclass(frozen=True)
class Trained:
    """What divergence asks of a trial."""

    draw: Mapping[str, Value]
    spec: TrialSpec
    diverged: bool
    tokens: int


@dataclass(frozen=True)
class _Part:
    """Some of the trials, those on one side of a value.

    Attributes:
        words: which: `α_max above 0.012`.
        inside: how many trials are.
        diverged: how many of them diverged.
        way_out: what to do about it.
        lowered: label of the parameter that should end earlier, if it is one.
    """

    words: str
    inside: int
    diverged: int
    way_out: str
    lowered: str | None = None


@dataclass(frozen=True)
class Divergence:
    """What is said of the trials that diverged.

    Attributes:
        sentence: for people.
        lowered: label of the parameter whose range was told to end earlier, if one was.
    """

    sentence: str
    lowered: str | None = None


def divergence(space: SearchSpace, trials: Sequence[Trained]) -> Divergence | None:
    """How many trials diverged, from where on, and what to do; None if none did.

    A value parts them if at least three quarters of the trials beyond it diverged, at least three
    quarters of the diverged ones are beyond it, and chance would not do as well in one of a
    hundred cases (shared among the parameters, but the learning rate has its own). A trial that was
    stopped before half of the diverged ones had diverged says nothing about any value.
    """
    num_diverged = sum(t.diverged for t in trials)
    if not num_diverged:
        return None
    told = f"{num_diverged} of {len(trials)} trials diverged"
    rate = _rate(space, trials)
    if num_diverged == len(trials):
        return Divergence(f"{told}: {_ten_times_lower(rate)}.")
    if num_diverged == 1:
        place = next(i for i, t in enumerate(trials) if t.diverged)
        return Divergence(
            f"{told}, with {symbol(rate.name)} {written(significant(rate.values[place], 3))}."
        )
    when = median(t.tokens for t in trials if t.diverged)
    judged = [t for t in trials if t.diverged or t.tokens >= when]
    part = _best_part(space, judged, _rate(space, judged))
    if part is None:
        return Divergence(
            f"{told}, at no particular value of any parameter; a smaller τ or a longer T_warmup "
            f"makes training stabler."
        )
    rest, others = num_diverged - part.diverged, len(judged) - part.inside
    counted = f"{part.diverged} of the {part.inside} with {part.words}"
    if others:
        counted += f", {rest or 'none'} of the other {others}"
    if len(judged) < len(trials):
        counted += f" ({len(trials) - len(judged)} were stopped too early to tell)"
    return Divergence(f"{told}: {counted}; {part.way_out}.", part.lowered)


@dataclass(frozen=True)
class _Feature:
    """A number that each trial has, or (NaN) has not."""

    name: str
    values: tuple[float, ...]
    parameter: Parameter | None


def _rate(space: SearchSpace, trials: Sequence[Trained]) -> _Feature:
    """The peak of each trial's learning rate."""
    names = {_RATES.get(t.spec.hyperparameters.schedule, "max_learning_rate") for t in trials}
    name = names.pop() if len(names) == 1 else "max_learning_rate"
    given = [p for p in space.searched if p.name == name]
    is_drawn = len(given) == 1 and not names and not given[0].when and not given[0].fraction_of
    return _Feature(name, tuple(_peak(t.spec) for t in trials), given[0] if is_drawn else None)


def _peak(spec: TrialSpec) -> float:
    h = spec.hyperparameters
    if h.schedule == "constant":
        return h.learning_rate
    if h.schedule == "noam":
        return h.noam_factor / math.sqrt(spec.architecture.d_model * max(1, h.warmup_steps))
    return h.max_learning_rate


def _ten_times_lower(rate: _Feature) -> str:
    name, d = symbol(rate.name), rate.parameter.distribution if rate.parameter else None
    span = " to ".join(written(significant(of(rate.values), 3)) for of in (min, max))
    if isinstance(d, Range) and rate.parameter:
        lower = Range(kind=d.kind, low=significant(d.low / 10, 2), high=significant(d.high / 10, 2))
        return f"{name} was {span}; try {entry(rate.parameter, lower)}"
    return f"{name} was {span}; try a tenth of it"


def _best_part(space: SearchSpace, trials: Sequence[Trained], rate: _Feature) -> _Part | None:
    """The side of a value that holds the diverged trials best; the learning rate's if as good."""
    diverged = [t.diverged for t in trials]
    others = [p for p in space.searched if p is not rate.parameter]
    features = [_sides(rate, diverged), *(_parts(p, trials, diverged) for p in others)]
    best, fewest = None, math.inf
    for index, parts in enumerate(features):
        allowed = _CHANCE / (len(others) if index else 1)
        for part in parts:
            wrong = part.inside + sum(diverged) - 2 * part.diverged
            if wrong < fewest and _chance(diverged, part) <= allowed:
                best, fewest = part, wrong
    return best


def _parts(
    parameter: Parameter, trials: Sequence[Trained], diverged: Sequence[bool]
) -> Iterator[_Part]:
    drawn = [t.draw.get(parameter.label) for t in trials]
    if all(v is None or is_number(v) for v in drawn):
        numbers = tuple(math.nan if v is None else float(v) for v in drawn)
        return _sides(_Feature(parameter.name, numbers, parameter), diverged)
    return _names(parameter, drawn, diverged)


def _is_pure(inside: int, hits: int, total: int) -> bool:
    """Whether a part holds most of the diverged trials and few others."""
    return hits >= _PURE * max(inside, total)


def _sides(feature: _Feature, diverged: Sequence[bool]) -> Iterator[_Part]:
    """The pure ones of what lies above and below each middle between two neighbouring values."""
    pairs = sorted(
        (v, d) for v, d in zip(feature.values, diverged, strict=True) if not math.isnan(v)
    )
    p, total, below = feature.parameter, sum(diverged), 0
    known = sum(d for _, d in pairs)
    for i in range(1, len(pairs)):
        low, high = pairs[i - 1][0], pairs[i][0]
        below += pairs[i - 1][1]
        if low == high:
            continue
        sides = (("above", len(pairs) - i, known - below), ("below", i, below))
        for words, inside, hits in sides:
            if _is_pure(inside, hits, total):
                limit = _between(feature, low, high)
                ends = (-math.inf, limit) if words == "above" else (limit, math.inf)
                left = cut(p.distribution, *ends) if p else None
                told = f"{symbol(feature.name)} {words} {written(limit)}"
                lowered = p.label if p and words == "above" else None
                way_out = f"try {entry(p, left)}" if p and left else f"leave {told} out"
                yield _Part(told, inside, hits, way_out, lowered)


def _names(
    parameter: Parameter, drawn: Sequence[Value | None], diverged: Sequence[bool]
) -> Iterator[_Part]:
    """The trials with each value of a choice among names, if they are pure."""
    for value in dict.fromkeys(v for v in drawn if v is not None):
        inside = [d for v, d in zip(drawn, diverged, strict=True) if v == value]
        if _is_pure(len(inside), sum(inside), sum(diverged)):
            told = f"{symbol(parameter.name)} {written(value)}"
            way_out = "leave it out or lower its learning rate"
            yield _Part(told, len(inside), sum(inside), way_out)


def _between(feature: _Feature, low: float, high: float) -> float:
    """A short number between two values, near the middle: by ratio where ratios count."""
    d = feature.parameter.distribution if feature.parameter else None
    if isinstance(d, Range):
        middle = from_unit(d, (unit(d, low) + unit(d, high)) / 2)
    else:
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
    return next((s for n in (1, 2, 3) if low <= (s := significant(middle, n)) < high), middle)


def _chance(diverged: Sequence[bool], part: _Part) -> float:
    """That so many of those inside diverged, or more, if it were by chance (hypergeometric)."""
    trials, total = len(diverged), sum(diverged)
    ways = sum(
        math.comb(total, k) * math.comb(trials - total, part.inside - k)
        for k in range(part.diverged, min(part.inside, total) + 1)
    )
    return ways / math.comb(trials, part.inside)
