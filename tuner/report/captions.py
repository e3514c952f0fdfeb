"""Captions of the plots, made of their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tuner.conductor.confirmation import Confirmation
from tuner.formatting import clock, counted
from tuner.report.axes import Line, Slice, axes_of, lines, slices
from tuner.report.figures import value_text
from tuner.report.parallel import groups
from tuner.report.series import BestSoFar, Ending, Front, ReportData, better_direction, window
from tuner.report.shares import METHODS, Shares
from tuner.results.range_edit import unit
from tuner.space.parameter import Range

_EDGE = 0.1  # of a range


def best_so_far(best: BestSoFar, series: ReportData) -> str:
    """Caption of the best finished trial so far: first and last value, speed of the improvement."""
    values, trial = best.values, best.trials[-1]
    at = f"after {best.tokens[-2]:,} training tokens of all trials"
    metric = series.metric
    if len(set(values)) == 1:
        text = (
            f"The first finished trial was the best: {value_text(values[0])}, trial {trial}, {at}."
        )
    else:
        verb = "fell" if series.sign > 0 else "rose"
        text = (
            f"The best {metric} {verb} from {value_text(values[0])} to {value_text(values[-1])}, "
            f"which trial {trial} reached {at}."
        )
        half = (values[0] + values[-1]) / 2
        middle = next(i for i, v in enumerate(values) if series.sign * v <= series.sign * half)
        text += f" Half of this change was reached after {best.tokens[middle]:,} tokens."
    if series.defaults is not None:
        text += f" The dashed line shows the defaults, {value_text(series.defaults)}."
    if best.seconds is None:
        text += " The record does not have all times, so trials are shown one after another."
    return text


def by_time(seconds: Sequence[float]) -> str:
    """Caption of the best value over time."""
    last, end = clock(seconds[-2]), clock(seconds[-1])
    return f"The same curve over time: best value after {last}, last report after {end}."


def curves(series: ReportData, winner: int | None) -> str:
    """Caption of the learning curves: how many trials finished, were stopped or diverged."""
    counts = Counter((c.ending, c.level) for c in series.curves)
    finished = sum(n for (kind, _), n in counts.items() if kind is Ending.FINISHED)
    total = len(series.trials)
    parts = [f"{finished} of {counted(total, 'trial')} trained to the end"]
    stopped = sorted((level, n) for (kind, level), n in counts.items() if kind is Ending.STOPPED)
    if stopped:
        where = _joined((f"{n} at report {level}" for level, n in stopped))
        parts.append(f"stopped: {where}")
    diverged = sum(n for (kind, _), n in counts.items() if kind is Ending.DIVERGED)
    if diverged:
        parts.append(f"{diverged} diverged (×)")
    text = "; ".join(parts) + ". A trial that trained longer has a stronger colour."
    if winner is not None:
        text += " The thick line is the winner"
        first = series.defaults_number
        has_defaults = winner != first and any(
            c.number == first and c.tokens for c in series.curves
        )
        text += ", the dashed line the defaults." if has_defaults else "."
    outside = _outside([v for c in series.curves for v in c.values], series.sign)
    if outside:
        verb = "is" if outside == 1 else "are"
        text += (
            f" {counted(outside, 'bad value')} {verb} outside the plot; a double click shows all."
        )
    return text


def rungs(series: ReportData) -> str:
    """Caption of the trials per report: how many were stopped, and the tokens saved."""
    counts, result = series.rungs, series.result
    first = counts[0].reached if counts else 0
    stops = sorted(((r.stopped, r.level) for r in counts if r.stopped), reverse=True)
    text = f"{first} of {counted(len(series.trials), 'trial')} reached the first report"
    branched = sum(trial.parent is not None for trial in series.trials)
    if branched:
        text += f", {branched} continued from the checkpoint of another trial"
    if stops:
        (count, level), total = stops[0], sum(n for n, _ in stops)
        most = ", most of them" if len(stops) > 1 and 2 * count > total else ""
        where = f"{most} at report {level}" if most or len(stops) == 1 else ""
        text += f"; {total} {'was' if total == 1 else 'were'} stopped{where}"
    text += f"; {sum(r.finished for r in counts)} finished. "
    spent, full = result.tokens_spent, result.tokens_full
    if not full:
        return text + "Nothing was trained: the results of all trials were reused."
    share = 100 * (1 - spent / full)
    if result.halted is not None:
        return text + f"The trials trained {spent:,} tokens; the full budgets are {full:,}."
    if not stops:
        return text + f"No trial was stopped early: {spent:,} tokens were trained."
    return text + (
        f"Early stopping saved {full - spent:,} of {full:,} tokens, {share:.0f} % of the full "
        f"budgets."
    )


def front(plane: Front) -> str:
    """Caption of two objectives: the trials on the Pareto front."""
    best = [n for n, _, _, is_on_front in plane.points if is_on_front]
    x, y = plane.metrics
    numbers = ", ".join(map(str, best[:12])) + (", …" if len(best) > 12 else "")
    return (
        f"{len(best)} of the {len(plane.points)} finished trials are on the Pareto front "
        f"({numbers}): no other trial is better in every objective. Horizontal axis: {x}, "
        f"{better_direction(x)}; vertical axis: {y}, {better_direction(y)}."
    )


def importances(shares: Shares, metric: str) -> str:
    """Caption of the importances: the most important parameters, and their uncertainty."""
    leads: dict[str, list[str]] = {}
    for method, name in METHODS.items():
        values = [(*bar.shares[method], bar.title) for bar in shares.bars if method in bar.shares]
        if values:
            mean, deviation, title = max(values)
            share = f"{100 * mean:.0f} ± {100 * deviation:.0f} % by {name}"
            leads.setdefault(title, []).append(share)
    parts = [f"{title} ({', '.join(texts)})" for title, texts in leads.items()]
    text = f"Most of {metric} is explained by {' or '.join(parts)}"
    if not shares.is_clear:
        text += ", but no share is clearly larger than its uncertainty"
    unfair = (
        " With so few trials fANOVA gives choices too little: of 24 trials, about 25 % for a true "
        "50 %."
    )
    return (
        f"{text}. {shares.trials} trials are compared at {shares.budget}. fANOVA "
        f"explains the variance over all trials, PED-ANOVA the difference between the best quarter "
        f"and the rest; whiskers are one standard deviation over eight resamples of the trials "
        f"(bootstrap).{unfair if shares.undervalues_choices else ''}"
    )


def parallel(series: ReportData) -> str:
    """Caption of the parallel coordinates: the parameter in which the best trials agree most."""
    ranked = groups(lines(series), series.sign)
    text = "Each line is a trial, thin if it was stopped; better trials have a stronger colour"
    best = ranked[-1] if ranked else []
    spans = [(span, title, ends) for span, title, ends in _spans(best, series) if span < 0.5]
    if len(best) > 1 and spans:
        _, title, (low, high) = min(spans)
        where = f"from {low} to {high}" if low != high else f"at {low}"
        return f"{text}. The best {len(best)} trials are closest together in {title}, {where}."
    return f"{text}."


def _spans(best: Sequence[Line], series: ReportData) -> list[tuple[float, str, tuple[str, str]]]:
    """Return, for each axis, the share that the trials span, its title, and both ends as text."""
    spans = []
    for index, axis in enumerate(axes_of(series)):
        places = [(p, line.texts[index]) for line in best if (p := line.places[index]) is not None]
        if len(places) == len(best) and places and axis.low < axis.high:
            low, high = min(places), max(places)
            spans.append((high[0] - low[0], axis.title, (low[1], high[1])))
    return spans


def slices_of(series: ReportData, winner: int | None) -> str:
    """Caption of the slices: the ranges in which the winner is near an end."""
    text = (
        f"{series.metric} at the last report of each trial, {better_direction(series.metric)}, "
        f"along one parameter at a time; grey areas are outside the searched range."
    )
    near = [end for s in slices(series) for end in _near(s, series, winner)]
    if winner is None:
        return text
    if not near:
        return f"{text} The winner is not near an end of a range."
    return f"{text} The winner is near {_joined(near)}."


def _near(piece: Slice, series: ReportData, winner: int | None) -> list[str]:
    """Return `the lower end of α_max` if the winner is in the outer tenth of a range."""
    p = next(p for p in series.result.space.searched if p.label == piece.axis.label)
    point = next((point for point in piece.points if point.number == winner), None)
    if point is None or not isinstance(p.distribution, Range):
        return []
    place = unit(p.distribution, point.x)
    if _EDGE < place < 1 - _EDGE:
        return []
    end = "lower" if place <= _EDGE else "upper"
    return [f"the {end} end of {piece.axis.title}"]


def confirmed(confirmation: Confirmation, metric: str) -> str:
    """Caption of the confirmation: the meaning of points and whiskers."""
    ranked = confirmation.ranked
    seeds = max(len(entry.values) for entry in ranked)
    with_seeds = f"retrained with the same {counted(seeds, 'fresh seed')}"
    text = f"The best {len(ranked)} configurations, each {with_seeds}; the winner is on top."
    if len(ranked) == 1:
        text = f"The best configuration, {with_seeds}."
    chosen = f", valid also for the best of {len(ranked)}" if len(ranked) > 1 else ""
    text += (
        f" Whiskers are 95 % intervals of the mean {metric}{chosen}; the vertical mark is the "
        f"value in the search."
    )
    if any(entry.count == 1 for entry in ranked):
        text += " A single value has no interval."
    return text


def _outside(values: Sequence[float], sign: int) -> int:
    ends = window(values, sign)
    return sum(not ends[0] <= v <= ends[1] for v in values) if ends else 0


def _joined(texts: Iterable[str]) -> str:
    """Return `a, b and c`."""
    *before, end = texts
    return f"{', '.join(before)} and {end}" if before else end
