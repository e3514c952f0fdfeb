"""What is to be seen on each picture, in sentences made of its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tuner.conductor.confirmation import Confirmation
from tuner.formatting import clock
from tuner.report.axes import Line, Slice, axes_of, lines, slices
from tuner.report.figures import value_text
from tuner.report.parallel import groups
from tuner.report.series import BestSoFar, Ending, Front, ReportData, good_end, window
from tuner.report.shares import METHODS, Shares
from tuner.results.range_edit import unit
from tuner.space.parameter import Range

_EDGE = 0.1  # of a range


def best_so_far(best: BestSoFar, series: ReportData) -> str:
    """How fast it went."""
    values, trial = best.values, best.trials[-1]
    at = f"after {best.tokens[-2]:,} training tokens of all trials"
    metric = series.metric
    if len(set(values)) == 1:
        told = f"The first {metric} was the best, {value_text(values[0])} of trial {trial}, {at}."
    else:
        verb = "fell" if series.sign > 0 else "rose"
        told = (
            f"The best {metric} {verb} from {value_text(values[0])} to {value_text(values[-1])}, "
            f"which trial {trial} reached {at}."
        )
        half = (values[0] + values[-1]) / 2
        there = next(i for i, v in enumerate(values) if series.sign * v <= series.sign * half)
        told += f" Half of that was there after {best.tokens[there]:,} tokens."
    if series.defaults is not None:
        told += f" The dashed line is what the defaults reached, {value_text(series.defaults)}."
    if best.seconds is None:
        told += " The record does not have all times, so trials are taken one after the other."
    return told


def by_time(seconds: Sequence[float]) -> str:
    """When the best came."""
    last, end = clock(seconds[-2]), clock(seconds[-1])
    return f"The same by the clock: the best came {last} into the search, the last report {end}."


def curves(series: ReportData, winner: int | None) -> str:
    """Who came how far."""
    counts = Counter((c.ending, c.level) for c in series.curves)
    finished = sum(n for (kind, _), n in counts.items() if kind is Ending.FINISHED)
    total = len(series.trials)
    told = [f"{finished} of {_many(total, 'trial')} trained to the end"]
    stopped = sorted((level, n) for (kind, level), n in counts.items() if kind is Ending.STOPPED)
    if stopped:
        where = _joined((f"{n} at report {level}" for level, n in stopped))
        told.append(f"stopped were {where}")
    diverged = sum(n for (kind, _), n in counts.items() if kind is Ending.DIVERGED)
    if diverged:
        told.append(f"{diverged} diverged (×)")
    sentence = "; ".join(told) + "."
    sentence += " The further a trial came, the stronger its colour."
    if winner is not None:
        sentence += " The thick line is the winner"
        has_defaults = winner and any(c.number == 0 and c.tokens for c in series.curves)
        sentence += ", the dashed one the defaults." if has_defaults else "."
    outside = _outside([v for c in series.curves for v in c.values], series.sign)
    if outside:
        sentence += f" {_many(outside, 'value')} so bad as to flatten the rest {_lie(outside)} "
        sentence += "outside the picture; a double click shows all."
    return sentence


def rungs(series: ReportData) -> str:
    """What early stopping did."""
    found, result = series.rungs, series.result
    first = found[0].came if found else 0
    losses = sorted(((r.stopped, r.level) for r in found if r.stopped), reverse=True)
    told = f"{first} of {_many(len(series.trials), 'trial')} came to the first report"
    branched = sum(row.parent is not None for row in series.trials)
    if branched:
        told += f", {branched} went on from another trial's state"
    if losses:
        (count, level), total = losses[0], sum(n for n, _ in losses)
        most = ", most of them" if len(losses) > 1 and 2 * count > total else ""
        where = f"{most} at report {level}" if most or len(losses) == 1 else ""
        told += f"; {total} {'was' if total == 1 else 'were'} stopped{where}"
    told += f"; {sum(r.finished for r in found)} finished. "
    spent, full = result.tokens_spent, result.tokens_full
    if not full:
        return told + "Nothing was trained: all trials were taken from the record."
    share = 100 * (1 - spent / full)
    if result.halted is not None:
        return told + f"They were trained for {spent:,} tokens, of {full:,} of full budgets."
    if not losses:
        return told + f"No trial was stopped early: {spent:,} tokens were trained."
    return told + (
        f"Early stopping spared {full - spent:,} of {full:,} tokens, {share:.0f} % of the full "
        f"budgets."
    )


def front(found: Front) -> str:
    """How many trials are on it."""
    on = [n for n, _, _, is_on in found.points if is_on]
    x, y = found.metrics
    shown = ", ".join(map(str, on[:12])) + (", …" if len(on) > 12 else "")
    return (
        f"No other trial is better in every objective than {_many(len(on), 'trial')} of the "
        f"{len(found.points)} that finished ({shown}). Along the horizontal axis {x}, "
        f"{good_end(x)}; along the vertical one {y}, {good_end(y)}."
    )


def importances(found: Shares, metric: str) -> str:
    """Which parameter leads, and how sure that is."""
    leads: dict[str, list[str]] = {}
    for method, name in METHODS.items():
        known = [(*bar.shares[method], bar.title) for bar in found.bars if method in bar.shares]
        if known:
            mean, deviation, title = max(known)
            share = f"{100 * mean:.0f} ± {100 * deviation:.0f} % by {name}"
            leads.setdefault(title, []).append(share)
    told = [f"{title} ({', '.join(shares)})" for title, shares in leads.items()]
    sentence = f"Most of {metric} is explained by {' or '.join(told)}"
    if not found.is_clear:
        sentence += ", but no parameter stands out clearly from its uncertainty"
    return (
        f"{sentence}. {found.trials} trials are compared at {found.tokens:,} tokens. fANOVA splits "
        f"the differences between all trials, PED-ANOVA says what sets the best quarter apart; "
        f"whiskers are one standard deviation over eight resamples of the trials (bootstrap)."
    )


def parallel(series: ReportData) -> str:
    """Where the best trials are closest together."""
    found = lines(series)
    ranked = groups(found, series.sign)
    told = "Each line is a trial, thin if it was stopped; the better it is, the stronger its colour"
    best = ranked[-1] if ranked else []
    spans = [(span, title, ends) for span, title, ends in _spans(best, series) if span < 0.5]
    if len(best) > 1 and spans:
        _, title, (low, high) = min(spans)
        where = f"from {low} to {high}" if low != high else f"at {low}"
        return f"{told}. The best {len(best)} trials are closest together in {title}, {where}."
    return f"{told}."


def _spans(best: Sequence[Line], series: ReportData) -> list[tuple[float, str, tuple[str, str]]]:
    """How much of each axis some trials take."""
    spans = []
    for index, axis in enumerate(axes_of(series)):
        places = [(p, line.texts[index]) for line in best if (p := line.places[index]) is not None]
        if len(places) == len(best) and places and axis.low < axis.high:
            low, high = min(places), max(places)
            spans.append((high[0] - low[0], axis.title, (low[1], high[1])))
    return spans


def slices_of(series: ReportData, winner: int | None) -> str:
    """Where the winner lies."""
    told = (
        f"{series.metric} at the last report of each trial, {good_end(series.metric)}, along one "
        f"parameter at a time; what is grey lies outside of the range that was searched."
    )
    near = [end for s in slices(series) for end in _near(s, series, winner)]
    if winner is None:
        return told
    if not near:
        return f"{told} The winner lies in the outer tenth of no range."
    return f"{told} The winner lies near {_joined(near)}."


def _near(found: Slice, series: ReportData, winner: int | None) -> list[str]:
    """`the lower end of α_max`, if the winner is in the outer tenth."""
    p = next(p for p in series.result.space.searched if p.label == found.axis.label)
    point = next((point for point in found.points if point.number == winner), None)
    if point is None or not isinstance(p.distribution, Range):
        return []
    place = unit(p.distribution, point.x)
    if _EDGE < place < 1 - _EDGE:
        return []
    end = "lower" if place <= _EDGE else "upper"
    return [f"the {end} end of {found.axis.title}"]


def confirmed(found: Confirmation, metric: str) -> str:
    """What the points and whiskers are."""
    seeds = max(len(entry.values) for entry in found.ranked)
    with_seeds = f"trained again with the same {_many(seeds, 'fresh seed')}"
    told = f"The best {len(found.ranked)} configurations, each {with_seeds}; the winner is on top."
    if len(found.ranked) == 1:
        told = f"The best configuration, {with_seeds}."
    told += (
        f" Whiskers are 95 % intervals of the mean {metric}; the upright mark is the value that a "
        f"trial was selected by."
    )
    if any(entry.count == 1 for entry in found.ranked):
        told += " A single value has no interval."
    return told


def _outside(values: Sequence[float], sign: int) -> int:
    ends = window(values, sign)
    return sum(not ends[0] <= v <= ends[1] for v in values) if ends else 0


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _lie(count: int) -> str:
    return "lies" if count == 1 else "lie"


def _joined(texts: Iterable[str]) -> str:
    """`a, b and c`."""
    *before, end = texts
    return f"{', '.join(before)} and {end}" if before else end
