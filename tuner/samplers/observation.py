"""What a sampler is told of a trial, and what it may learn from that.

A stopped trial has no value at the end of its budget, and a loss after a ninth of the budget must
not be compared with one after all of it. So what was told becomes a *lesson* first, in one of three
ways: as it is, for samplers that know stopped trials; as if every trial had been trained to its
end, for those that do not; or at one budget that enough trials have reached (BOHB).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Observation:
    """How a trial ended, or was parked.

    Attributes:
        state: finished, its budget is used up; stopped, or parked; diverged; failed, which says
            nothing about its configuration.
        values: training tokens → the (first) objective; finite, and smaller is better.
        objectives: if there are several: their values at the end, as the metrics are.
    """

    state: Literal["finished", "stopped", "diverged", "failed"]
    values: Mapping[int, float]
    objectives: tuple[float, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """What one trial teaches; smaller values are better.

    Attributes:
        values: at the end, one for each objective; None: its rank follows from `reports`.
        reports: tokens → value of a trial without `values`. It ranks behind all that have some,
            then behind those that got further, then by the last value; without reports, last.
    """

    values: tuple[float, ...] | None
    reports: Mapping[int, float] = field(default_factory=dict)


AllFeedback = dict[int, Feedback]  # by the number of the trial
_Curve = dict[int, float]  # number of a report → value

_WORST = Feedback(None)


def end_of(told: Observation) -> tuple[float, ...] | None:
    """The values of a finished trial at its end; None of another one."""
    if told.state != "finished" or not told.values or not all(map(math.isfinite, told.objectives)):
        return None
    if len(told.objectives) > 1:
        return told.objectives
    return (told.values[max(told.values)],)


def with_stopped(told: Mapping[int, Observation]) -> AllFeedback:
    """For samplers that know stopped trials."""
    return {
        number: Feedback(end_of(t), t.values if t.state == "stopped" else {})
        for number, t in told.items()
        if t.state != "failed"
    }


def extrapolated(told: Mapping[int, Observation], report_tokens: int) -> AllFeedback:
    """For samplers that know only values at the end.

    A stopped trial is taken to go on from its last report like the median of those that finished:
    curves of one model and text are about parallel. One that diverged has the worst value of all.
    """
    ends = {number: end for number, t in told.items() if (end := end_of(t))}
    curves = [_curve(told[number], report_tokens) for number in ends]
    gains: dict[int, float] = {}  # number of a report → what is gained from there to the end
    for number, t in told.items():
        if t.state == "stopped" and t.values:
            curve = _curve(t, report_tokens)
            last = max(curve)
            if last not in gains:
                known = [c[max(c)] - c[last] for c in curves if last in c]
                gains[last] = statistics.median(known) if known else 0.0
            ends[number] = (curve[last] + gains[last],)
    worst = tuple(max(values) for values in zip(*ends.values(), strict=True))
    lost = [n for n, t in told.items() if n not in ends and t.state != "failed"]
    return {n: Feedback(end) for n, end in ends.items()} | (
        {n: Feedback(worst) for n in lost} if worst else dict.fromkeys(lost, _WORST)
    )


def at_one_budget(
    told: Mapping[int, Observation], rungs: Sequence[int], report_tokens: int, enough: int
) -> AllFeedback:
    """The values at the largest rung that enough trials have reached, and nothing of the others.

    Args:
        told: what was told.
        rungs: training tokens, rising.
        report_tokens: between two reports.
        enough: how many must have reached the rung; else the lowest one is taken.

    Source: Falkner et al. 2018 (arXiv:1807.01774), algorithm 2.
    """
    known = {n: t for n, t in told.items() if t.state != "failed"}
    curves = {n: _curve(t, report_tokens) for n, t in known.items() if t.values}
    reached: dict[int, float] = {}
    for rung in reversed(rungs):
        report = round(rung / report_tokens)
        reached = {
            n: curve[min((at for at in curve if at >= report), default=max(curve))]
            for n, curve in curves.items()
            if told[n].state == "finished" or max(curve) >= report
        }
        if len(reached) >= enough:
            break
    lost = [n for n, t in known.items() if t.state == "diverged" or not t.values]
    return {n: Feedback((value,)) for n, value in reached.items()} | dict.fromkeys(lost, _WORST)


def _curve(told: Observation, report_tokens: int) -> _Curve:
    """By the number of the report: trials with other batch sizes report a few tokens later."""
    return {round(tokens / report_tokens): value for tokens, value in told.values.items()}
