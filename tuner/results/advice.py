"""What to do next, after Google's tuning playbook: a few sentences with numbers, in YAML terms.

Source: Godbole et al. 2023, Deep Learning Tuning Playbook: are the best values at an edge of the
search space, which trials diverged, how many trials are enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from model.engine.report import Status
from tuner.conductor.trial import Trial
from tuner.formatting import shown, written
from tuner.results.divergence import Trained, divergence
from tuner.results.importance import Importance, Point, Share, importance
from tuner.results.range_edit import (
    End,
    condition,
    entry,
    is_possible,
    moved,
    numbers,
    unit,
)
from tuner.space.parameter import (
    AnyDistribution,
    Choice,
    Constant,
    Parameter,
    Range,
    Value,
    symbol,
)
from tuner.space.space import SearchSpace

Draw = Mapping[str, Value]

_MOST_SENTENCES = 6
_EDGE = 0.1  # of a range, on its unit scale
# That as many of the best would lie there if it did not matter. The best 3, 4, … are looked at in
# turn: seven ranges that do not matter then give a false alarm in 2 of 100 searches.
_EDGE_CHANCE = 0.002
_FEWEST_BEST, _BEST_SHARE = 3, 4  # trials that count as the best: three, or one in four
_FEWEST_TRIALS = 6  # before it is said whether more would help
_FEWEST_EACH = 3  # trials for each searched parameter
_SMALL = 0.05  # share of the gain that is not worth a search
_MOST_SHARES = 4


def advise(
    space: SearchSpace,
    trials: Sequence[Trial],
    name: str = "NAME",
    spread: float | None = None,
) -> list[str]:
    """What the trials of a search say about the next one; the most important first.

    It says at most six things, each only if there is something to say:

    - best values at the edge of their range: of the best three to the best quarter of the fully
      trained trials so many lie in the outer tenth that chance alone would rarely do it;
    - trials that diverged, and the value beyond which they do (`divergence`);
    - whether the last third of the trials improved the best, by more than seeds differ;
    - which parameters explain the gain (`importance`), at the largest number of tokens that half
      of the trials were trained for;
    - fewer than three trials for each searched parameter.

    With several objectives only the second and the last.

    Args:
        space: what was searched.
        trials: the search's own, without retrainings and without repetitions.
        name: of the search, for the command that goes on.
        spread: standard deviation of the objective between seeds, if it is known.
    """
    rows = sorted((t for t in trials if t.last is not None), key=lambda t: t.number)
    table = _Table(space, rows, space.objective.metric, space.objective.sign)
    diverged = divergence(space, [Trained(r.draw, r.spec, r.has_diverged, r.tokens) for r in rows])
    count = sum(r.has_diverged for r in rows)
    rest, edges = _too_few(table), list[str]()
    if len(space.objectives) == 1:  # of several there is no one best
        found = importance(space, table.points())
        rest = [*_progress(table, name, spread or 0.0), *_shares(table, found), *rest]
        edges = _edges(table, diverged.lowered if diverged else None)
    if diverged:  # a single one happens
        rest.insert(0 if count > 1 else len(rest), diverged.sentence)
    edges = edges[: max(1, _MOST_SENTENCES - len(rest))]
    first = 1 if count > 1 and 4 * count >= len(rows) else 0
    return [*rest[:first], *edges, *rest[first:]][:_MOST_SENTENCES]


def comparable(space: SearchSpace, trials: Sequence[Trial]) -> tuple[list[Point], int]:
    """What `importance` needs: draw and loss of the trials at one budget, smaller is better.

    Args:
        space: what was searched.
        trials: the search's own, without retrainings and without repetitions.

    Returns:
        The points, and the training tokens of each: those that half of the trials were trained for.
    """
    rows = sorted((t for t in trials if t.last is not None), key=lambda t: t.number)
    table = _Table(space, rows, space.objective.metric, space.objective.sign)
    return table.points(), table.tokens if rows else 0


@dataclass(frozen=True)
class _Table:
    """The trials that reported, by number."""

    space: SearchSpace
    rows: Sequence[Trial]
    metric: str
    sign: int

    def loss(self, row: Trial) -> float:
        """The newest objective, so that small is good; infinity if it is not finite."""
        value = self.sign * row.objective(self.metric)
        return value if math.isfinite(value) else math.inf

    @property
    def finished(self) -> list[Trial]:
        """Those that were fully trained, best first."""
        rows = [r for r in self.rows if r.has_finished and math.isfinite(self.loss(r))]
        return sorted(rows, key=lambda r: (self.loss(r), r.number))

    # at a common number of tokens

    @property
    def level(self) -> int:
        """The last report that at least half of the trials reached, or had diverged before."""
        reached = sorted((max(self._curve(r), default=0) for r in self.rows), reverse=True)
        return reached[(len(reached) - 1) // 2] if reached else 0

    @property
    def tokens(self) -> int:
        """Training tokens of that report."""
        tokens = self.level * self.rows[0].spec.report_tokens
        return min(tokens, self.space.budget.tokens or tokens)  # reports are rounded up

    def _curve(self, row: Trial) -> dict[int, float]:
        """Report number → loss; from where it diverged on, infinity."""
        curve: dict[int, float] = {}
        each, slack = row.spec.report_tokens, row.spec.tokens_per_step
        for report in row.reports:
            if report.status is Status.DIVERGED:
                first, last = report.tokens / each, row.spec.budget_tokens / each
                numbers = range(max(1, math.ceil(first)), max(1, round(first), round(last)) + 1)
                return curve | dict.fromkeys(numbers, math.inf)
            number = report.tokens // each
            if report.status is Status.FINISHED:  # an update earlier or later than it is due
                number = round(report.tokens / each)
                if abs(report.tokens - number * each) > slack:
                    continue  # a budget of its own, where no other trial reports
            value = self.sign * row.value(self.metric, report)
            curve[number] = value if math.isfinite(value) else math.inf
        return curve

    def points(self) -> list[tuple[Draw, float]]:
        """Draw and loss at the common level; a diverged trial counts as the worst other one."""
        level = self.level
        known = [(r.draw, self._curve(r).get(level)) for r in self.rows]
        points = [(draw, value) for draw, value in known if draw and value is not None]
        worst = max((value for _, value in points if math.isfinite(value)), default=None)
        if worst is None:
            return []
        return [(draw, min(value, worst)) for draw, value in points]


# best values at an edge --------------------------------------------------------------------------


def _edges(table: _Table, lowered: str | None) -> list[str]:
    """A sentence for each parameter whose best values crowd at an end, the surest first."""
    finished = table.finished
    found: list[tuple[float, str]] = []
    for p in table.space.searched:
        values = [v for r in finished if (v := r.draw.get(p.label)) is not None]
        if not finished or p.label not in finished[0].draw:
            continue  # the best trial does not have it
        for end, share in _ends(p.distribution):
            if end == "upper" and p.label == lowered:
                continue  # trials diverge there
            best = values[: max(_FEWEST_BEST, math.ceil(len(values) / _BEST_SHARE))]
            chance, there, among = _crowd([_is_at(p.distribution, v, end) for v in best], share)
            if chance <= _EDGE_CHANCE:
                found.append((chance, _edge(table, p, end, there, among)))
    return [sentence for _, sentence in sorted(found, key=lambda f: f[0])]


def _crowd(is_there: Sequence[bool], share: float) -> tuple[float, int, int]:
    """The most surprising number of best trials that lie at an end, the very best among them.

    Args:
        is_there: for each of the best, in order.
        share: of all draws that lie there.

    Returns:
        The chance of it, how many are there, of how many; most of them are.
    """
    crowds = [(1.0, 0, 0)]
    for among in range(_FEWEST_BEST, len(is_there) + 1):
        there = sum(is_there[:among])
        if is_there[0] and 2 * there > among:
            crowds.append((_binomial(among, there, share), there, among))
    return min(crowds)


def _ends(distribution: AnyDistribution) -> list[tuple[End, float]]:
    """The ends that a value can lie at, and the share of all draws that lie there."""
    if isinstance(distribution, Range):
        share = _EDGE
        if distribution.is_whole:
            share = max(share, 1 / (distribution.high - distribution.low + 1))
        return [("lower", share), ("upper", share)] if distribution.low < distribution.high else []
    values = numbers(distribution)
    if len(values) < 2:
        return []
    given = cast(Choice, distribution).values
    return [
        ("lower", given.count(values[0]) / len(given)),
        ("upper", given.count(values[-1]) / len(given)),
    ]


def _is_at(distribution: AnyDistribution, value: Value, end: End) -> bool:
    if isinstance(value, str):
        return False
    if isinstance(distribution, Range):
        place = unit(distribution, float(value))
        return place >= 1 - _EDGE if end == "upper" else place <= _EDGE
    values = numbers(distribution)
    return value >= values[-1] if end == "upper" else value <= values[0]


def _edge(table: _Table, parameter: Parameter, end: End, there: int, best: int) -> str:
    d = parameter.distribution
    if isinstance(d, Range):
        where = f"at the {end} end of {written(d.low)} … {written(d.high)}"
    else:
        values = numbers(d)
        extreme = f"{values[-1]:g}, the largest" if end == "upper" else f"{values[0]:g}, the least"
        where = f"at {extreme} of {', '.join(map(written, values))}"
    which = f"the best {best} trials" if there == best else f"{there} of the best {best} trials"
    told = f"{_named(parameter)}: {which} lie {where}"
    new = moved(parameter, end)
    if new is None or not is_possible(table.space, parameter, new, table.rows[0].spec):
        constant = _end_value(d, end)
        return (
            f"{told}, and no rule lets it go further; a constant would do: "
            f"{entry(parameter, Constant(value=constant))}."
        )
    return f"{told}; try {entry(parameter, new)}."


def _end_value(distribution: AnyDistribution, end: End) -> Value:
    values = sorted(distribution.ends(), key=float)
    return values[-1] if end == "upper" else values[0]


def _named(parameter: Parameter) -> str:
    name = symbol(parameter.name)
    return f"{name} ({shown(condition(parameter.when))})" if parameter.when else name


def _binomial(trials: int, hits: int, share: float) -> float:
    """The chance of so many hits or more."""
    return sum(
        math.comb(trials, k) * share**k * (1 - share) ** (trials - k)
        for k in range(hits, trials + 1)
    )


# more trials -------------------------------------------------------------------------------------


def _progress(table: _Table, name: str, spread: float) -> list[str]:
    """Whether the last third of the trials improved the best by more than seeds differ."""
    search, count = table.space.search, len(table.rows)
    in_order = search.sampler != "grid" and search.scheduler not in {"pbt", "pb2"}
    if not in_order or count < _FEWEST_TRIALS or len(table.finished) < _FEWEST_BEST:
        return []
    losses = [table.loss(r) if r.has_finished else math.inf for r in table.rows]
    last = count // 3
    before, best = min(losses[:-last]), min(losses)
    if math.isinf(before):  # nothing had finished until then
        return []
    place = losses.index(best)
    gain, value = before - best, table.sign * best
    if gain > spread:
        return [
            f"More trials may help: the last {last} of {count} still improved the best "
            f"{table.metric} by {gain:.4f}, to {value:.4f}; as many again would gain about that at "
            f"most: tuner search --resume {name} --trials {search.trials + last}."
        ]
    if gain > 0:
        return [
            f"The last {last} of {count} trials improved the best {table.metric} by {gain:.4f} "
            f"only, less than seeds differ ({spread:.4f}); more of the same will probably not help."
        ]
    return [
        f"The last {count - 1 - place} of {count} trials did not improve the best {table.metric}, "
        f"{value:.4f} of trial {table.rows[place].number}; more of the same will probably not help."
    ]


# what matters ------------------------------------------------------------------------------------


def _shares(table: _Table, found: Sequence[Importance]) -> list[str]:
    """Which parameters explain the gain, in one sentence; nothing if none stands out."""
    everywhere = [i for i in found if len(i.told) == len(i.shares)]
    if not everywhere or not everywhere[0].stands_out:
        return []
    whole = everywhere[0]
    large = [s for s in whole.shares if s.mean >= _SMALL][:_MOST_SHARES]
    small = [s for s in whole.shares if s not in large]
    told = ", ".join(map(_share, large))
    if small:
        rest = sum(s.mean for s in small)
        names = _names(small) if len(small) <= 3 else f"the other {len(small)}"
        told += f", {names} {'together ' if len(small) > 1 else ''}{100 * rest:.0f} %"
    for part in found:
        own = [s for s in part.shares if s.parameter.label in part.told]
        if part is not whole and part.stands_out and own[0].mean >= _SMALL:
            told += f"; where it is drawn ({part.count} trials), {_share(own[0])}"
    sentence = (
        f"Share of the gain that each parameter explains, by fANOVA over {whole.count} trials "
        f"at {table.tokens:,} tokens: {told}"
    )
    fixed = [s for s in small if s.mean + s.deviation < _SMALL]
    way_out = f"; a constant would do for {_names(fixed)}" if fixed else ""
    return [f"{sentence}{way_out}."]


def _share(share: Share) -> str:
    return f"{_named(share.parameter)} {100 * share.mean:.0f} ± {100 * share.deviation:.0f} %"


def _names(shares: Sequence[Share]) -> str:
    names = [_named(s.parameter) for s in shares]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _too_few(table: _Table) -> list[str]:
    """The playbook's rule for the number of parameters, if there are too many."""
    # conditional parameters take turns, so that it counts what one trial has
    searched = max((len(row.draw) for row in table.rows), default=0)
    count = len(table.rows)
    if searched < 2 or count >= _FEWEST_EACH * searched:
        return []
    rule = (
        "the learning rate alone"
        if count < 10
        else "the learning rate and β1"
        if count <= 25
        else "the learning rate, β1, ε and then β2"
    )
    return [
        f"{count} trials are few for {searched} searched parameters: with so many the tuning "
        f"playbook tunes {rule}; give others as constants, or --trials {_FEWEST_EACH * searched}."
    ]
