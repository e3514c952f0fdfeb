"""Recommendations for the next search: a few sentences with numbers, in terms of the YAML file.

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
from tuner.results.divergence import divergence
from tuner.results.importance import (
    Importance,
    Point,
    Share,
    importance,
    undervalues_choices,
)
from tuner.results.range_edit import (
    End,
    entry,
    is_possible,
    moved,
    named,
    numbers,
    unit,
)
from tuner.results.sensitivity import basins
from tuner.samplers.arms import arms_of
from tuner.space.parameter import (
    AnyDistribution,
    Choice,
    Constant,
    Parameter,
    Range,
    Value,
)
from tuner.space.space import SearchSpace
from tuner.texts.formatting import counted, listed, written

Draw = Mapping[str, Value]

_MOST_SENTENCES = 6
_EDGE = 0.1  # of a range, on its unit scale
# Highest probability that as many of the best trials lie at the edge by chance. The best 3, 4, …
# are tested in turn: seven ranges without influence then give a false alarm in 2 of 100 searches.
_EDGE_CHANCE = 0.002
_FEWEST_BEST, _BEST_SHARE = 3, 4  # trials that count as the best: three, or one in four
_FEWEST_EACH = 3  # trials for each searched parameter
_SMALL = 0.05  # a smaller share of the gain is not worth a search
_SMALL_LOSS = 0.01  # share of the loss, where the difference between seeds is not known
_MOST_SHARES = 4


def advise(
    space: SearchSpace,
    trials: Sequence[Trial],
    name: str = "NAME",
    spread: float | None = None,
) -> list[str]:
    """Return recommendations for the next search, the most important first.

    There are at most six, each only if the trials support it:

    - best values at the edge of their range: among the best three to the best quarter of the
      finished trials, more lie in the outer tenth than chance explains;
    - trials that diverged, and the value beyond which they do (`divergence`);
    - which parameters explain the gain (`importance`), at the largest number of tokens that half
      of the trials were trained for;
    - what a factor of two in the best learning rate costs (`basins`), at the same tokens;
    - fewer than three trials for each searched parameter.

    With several objectives only the second and the last are given.

    Args:
        space: the searched space.
        trials: trials of the search, without retrainings and without repetitions.
        name: name of the search, for the command that continues it.
        spread: standard deviation of the objective between seeds, if it is known.
    """
    reported = sorted((t for t in trials if t.last is not None), key=lambda t: t.number)
    table = _Table(space, reported, space.objective.metric, space.objective.sign)
    diverged = divergence(space, reported)
    num_diverged = sum(t.has_diverged for t in reported)
    rest, edges = _too_few(table), list[str]()
    if len(space.objectives) == 1:  # several objectives have no single best trial
        groups = importance(space, table.points())
        rest = [
            *_shares(table, groups),
            *_sensitivity(table, spread),
            *rest,
        ]
        edges = _edges(table, diverged.lowered if diverged else None)
    if diverged:  # a single diverged trial is normal: it comes last
        rest.insert(0 if num_diverged > 1 else len(rest), diverged.message)
    edges = edges[: max(1, _MOST_SENTENCES - len(rest))]
    first = 1 if num_diverged > 1 and 4 * num_diverged >= len(reported) else 0
    return [*rest[:first], *edges, *rest[first:]][:_MOST_SENTENCES]


def comparable(space: SearchSpace, trials: Sequence[Trial]) -> tuple[list[Point], str]:
    """Return draw and loss of the trials at one budget, for `importance` and `basins`.

    Args:
        space: the searched space.
        trials: trials of the search, without retrainings and without repetitions.

    Returns:
        The points (smaller losses are better, a diverged trial has an infinite one), and the budget
        of each as text, `27,000 tokens`: the largest one that half of the trials were trained for.
    """
    reported = sorted((t for t in trials if t.last is not None), key=lambda t: t.number)
    table = _Table(space, reported, space.objective.metric, space.objective.sign)
    return table.points(), table.budget


@dataclass(frozen=True)
class _Table:
    """The trials that have reported, by number."""

    space: SearchSpace
    trials: Sequence[Trial]
    metric: str
    sign: int

    def loss(self, trial: Trial) -> float:
        """Newest objective, smaller is better; infinity if it is not finite."""
        value = self.sign * trial.objective(self.metric)
        return value if math.isfinite(value) else math.inf

    @property
    def finished(self) -> list[Trial]:
        """The finished trials, best first."""
        trials = [t for t in self.trials if t.has_finished and math.isfinite(self.loss(t))]
        return sorted(trials, key=lambda t: (self.loss(t), t.number))

    # at a common number of tokens

    @property
    def level(self) -> int:
        """Number of the last report that half of the trials reached or diverged before."""
        reached = sorted((max(self._curve(t), default=0) for t in self.trials), reverse=True)
        return reached[(len(reached) - 1) // 2] if reached else 0

    @property
    def budget(self) -> str:
        """Training tokens at the report `level`, or FLOPs, as text."""
        if not self.trials:
            return "0 tokens"
        budget = self.space.budget
        if budget.flops is not None:
            return f"{self.level / budget.reports * budget.flops:.3g} FLOPs"
        tokens = self.level * self.trials[0].spec.report_tokens
        most = self.space.trial_tokens or tokens
        return f"{min(tokens, most):,} tokens"  # reports are rounded up

    def _curve(self, trial: Trial) -> dict[int, float]:
        """Return report number → loss; infinity after the trial diverged."""
        curve: dict[int, float] = {}
        each, slack = trial.spec.report_tokens, trial.spec.tokens_per_step
        for report in trial.reports:
            if report.status is Status.DIVERGED:
                first, last = report.tokens / each, trial.spec.budget_tokens / each
                numbers = range(max(1, math.ceil(first)), max(1, round(first), round(last)) + 1)
                return curve | dict.fromkeys(numbers, math.inf)
            number = report.tokens // each
            if report.status is Status.FINISHED:  # may be an update early or late
                number = round(report.tokens / each)
                if abs(report.tokens - number * each) > slack:
                    continue  # its budget differs: no other trial reports here
            value = self.sign * trial.value(self.metric, report)
            curve[number] = value if math.isfinite(value) else math.inf
        return curve

    def points(self) -> list[tuple[Draw, float]]:
        """Return draw and loss at `level`, infinite if it diverged; nothing if all diverged."""
        level = self.level
        losses = [(t.draw, self._curve(t).get(level)) for t in self.trials]
        points = [(draw, value) for draw, value in losses if draw and value is not None]
        return points if any(math.isfinite(value) for _, value in points) else []


# best values at an edge --------------------------------------------------------------------------


def _edges(table: _Table, lowered: str | None) -> list[str]:
    """Return a sentence for each parameter with best values at an end, the surest first."""
    finished = table.finished
    sentences: list[tuple[float, str]] = []
    for p in table.space.searched:
        values = [v for t in finished if (v := t.draw.get(p.label)) is not None]
        if not finished or p.label not in finished[0].draw:
            continue  # the best trial does not have it
        for end, share in _ends(p.distribution):
            if end == "upper" and p.label == lowered:
                continue  # trials diverge there
            best = values[: max(_FEWEST_BEST, math.ceil(len(values) / _BEST_SHARE))]
            at_end = [_is_at(p.distribution, v, end) for v in best]
            chance, hits, num_best = _most_surprising(at_end, share)
            if chance <= _EDGE_CHANCE:
                sentences.append((chance, _edge(table, p, end, hits, num_best)))
    return [sentence for _, sentence in sorted(sentences, key=lambda pair: pair[0])]


def _most_surprising(at_end: Sequence[bool], share: float) -> tuple[float, int, int]:
    """Find the number of best trials for which the values at an end are most surprising.

    Only numbers count where the best trial and more than half of the trials lie at the end.

    Args:
        at_end: for each of the best trials, best first: True if its value lies at the end.
        share: share of all draws that lie at the end.

    Returns:
        Probability by chance, number of trials at the end, number of best trials.
    """
    # imported here, because a search reads this module before it starts; scipy.stats takes a second
    from scipy.special import bdtrc

    cases = [(1.0, 0, 0)]
    for num_best in range(_FEWEST_BEST, len(at_end) + 1):
        hits = sum(at_end[:num_best])
        if at_end[0] and 2 * hits > num_best:
            cases.append((float(bdtrc(hits - 1, num_best, share)), hits, num_best))
    return min(cases)


def _ends(distribution: AnyDistribution) -> list[tuple[End, float]]:
    """Return the ends of a distribution, and the share of all draws that lie at each."""
    if isinstance(distribution, Range):
        share = _EDGE
        if distribution.is_whole:
            share = max(share, 1 / (distribution.high - distribution.low + 1))
        return [("lower", share), ("upper", share)] if distribution.low < distribution.high else []
    values = numbers(distribution)
    if len(values) < 2:
        return []
    options = cast(Choice, distribution).values
    return [
        ("lower", options.count(values[0]) / len(options)),
        ("upper", options.count(values[-1]) / len(options)),
    ]


def _is_at(distribution: AnyDistribution, value: Value, end: End) -> bool:
    if isinstance(value, str):
        return False
    if isinstance(distribution, Range):
        position = unit(distribution, float(value))
        return position >= 1 - _EDGE if end == "upper" else position <= _EDGE
    values = numbers(distribution)
    return value >= values[-1] if end == "upper" else value <= values[0]


def _edge(table: _Table, parameter: Parameter, end: End, hits: int, best: int) -> str:
    d = parameter.distribution
    if isinstance(d, Range):
        where = f"at the {end} end of {written(d.low)} … {written(d.high)}"
    else:
        values = numbers(d)
        extreme = f"{values[-1]:g}, the largest" if end == "upper" else f"{values[0]:g}, the least"
        where = f"at {extreme} of {', '.join(map(written, values))}"
    which = f"the best {best} trials" if hits == best else f"{hits} of the best {best} trials"
    finding = f"{named(parameter)}: {which} lie {where}"
    new = moved(parameter, end)
    if new is None or not is_possible(table.space, parameter, new, table.trials[0].spec):
        constant = _end_value(d, end)
        return (
            f"{finding}, and no wider range is allowed; a constant would do: "
            f"{entry(parameter, Constant(value=constant))}."
        )
    return f"{finding}; try {entry(parameter, new)}."


def _end_value(distribution: AnyDistribution, end: End) -> Value:
    values = sorted(distribution.ends(), key=float)
    return values[-1] if end == "upper" else values[0]


# what matters ------------------------------------------------------------------------------------


def _shares(table: _Table, groups: Sequence[Importance]) -> list[str]:
    """Return a sentence on the parameters that explain the gain; nothing if none stands out."""
    unconditional = [group for group in groups if len(group.labels) == len(group.shares)]
    if not unconditional or not unconditional[0].stands_out:
        return []
    whole = unconditional[0]
    large = [s for s in whole.shares if s.mean >= _SMALL][:_MOST_SHARES]
    small = [s for s in whole.shares if s not in large]
    listing = ", ".join(map(_share, large))
    if small:
        rest = sum(s.mean for s in small)
        names = _names(small) if len(small) <= 3 else f"the other {len(small)}"
        listing += f", {names} {'together ' if len(small) > 1 else ''}{100 * rest:.0f} %"
    for group in groups:
        conditional = [s for s in group.shares if s.parameter.label in group.labels]
        if group is not whole and group.stands_out and conditional[0].mean >= _SMALL:
            listing += f"; where it is drawn ({group.count} trials), {_share(conditional[0])}"
    sentence = (
        f"Share of the gain that each parameter explains, by fANOVA over {whole.count} trials "
        f"at {table.budget}: {listing}"
    )
    is_unfair = undervalues_choices((s.parameter for s in whole.shares), whole.count)
    if is_unfair:
        sentence += " (with so few trials too little is given to choices)"
    negligible = [
        s for s in small
        if s.mean + s.deviation < _SMALL
        and not (is_unfair and isinstance(s.parameter.distribution, Choice))
    ]  # fmt: skip
    fix = f"; a constant would do for {_names(negligible)}" if negligible else ""
    return [f"{sentence}{fix}."]


def _share(share: Share) -> str:
    return f"{named(share.parameter)} {100 * share.mean:.0f} ± {100 * share.deviation:.0f} %"


def _names(shares: Sequence[Share]) -> str:
    return listed((named(s.parameter) for s in shares), "and")


def _sensitivity(table: _Table, spread: float | None) -> list[str]:
    """Return a sentence on the basin of the best learning rate, if the trials show one."""
    found = basins(table.space, table.points())
    if not found:
        return []
    basin = found[0]
    tolerance, what = _SMALL_LOSS * abs(basin.loss), f"{100 * _SMALL_LOSS:.0f} % of the loss"
    if spread:
        tolerance, what = spread, f"seeds differ ({spread:.4f})"
    return [
        f"A factor of two in {named(basin.parameter)} away from {basin.bottom:.3g} costs "
        f"{basin.cost:.4f} of {table.metric} (90 % interval {basin.low:.4f} … {basin.high:.4f}; "
        f"{len(basin.rates)} trials at {table.budget}); within a factor of "
        f"{basin.width(tolerance):.1f} it costs less than {what}."
    ]


def _too_few(table: _Table) -> list[str]:
    """Return the playbook's rule on the number of parameters if there are too many."""
    # a trial has only some of the conditional parameters, so count those of one trial
    searched = max((len(trial.draw) for trial in table.trials), default=0)
    count, arms, of = len(table.trials), len(arms_of(table.space)), ""
    if arms:  # each is tuned alone, with one value of the compared parameter
        searched, count, of = searched - 1, count // arms, " of an arm"
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
        f"{counted(count, 'trial')}{of} {'is' if count == 1 else 'are'} few for {searched} "
        f"searched parameters: with {counted(count, 'trial')} the tuning playbook tunes {rule}; "
        f"make the others constants, or use --trials "
        f"{_FEWEST_EACH * searched * (arms or 1)}."
    ]
