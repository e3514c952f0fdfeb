"""Observations of trials, converted to the feedback that each sampler can use.

A stopped trial has no value at the end of its budget, and a loss after a ninth of the budget must
not be compared with one after the full budget. Three conversions:

    with_stopped     for samplers that support stopped trials
    extrapolated     for samplers that need a value at the end of every trial
    at_one_budget    values at the largest budget that enough trials have reached (BOHB)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Observation:
    """State and reports of a trial that has ended or is paused.

    Attributes:
        state: finished (budget used up); stopped (or paused); diverged; failed (no information
            about the configuration).
        values: training tokens → first objective; finite, smaller is better.
        objectives: with several objectives, their values at the end, not negated.
    """

    state: Literal["finished", "stopped", "diverged", "failed"]
    values: Mapping[int, float]
    objectives: tuple[float, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """Values of one trial for a sampler; smaller is better.

    Attributes:
        values: value of each objective at the end; None if only `reports` are known.
        reports: training tokens → value, of a trial without `values`. Such trials rank behind all
            trials with `values`; among them the one with more tokens ranks first, then the one
            with the smaller last value, and trials without reports rank last.
    """

    values: tuple[float, ...] | None
    reports: Mapping[int, float] = field(default_factory=dict)


AllFeedback = dict[int, Feedback]  # by number of the trial
_Curve = dict[int, float]  # number of a report → value

_WORST = Feedback(None)


def end_of(observation: Observation) -> tuple[float, ...] | None:
    """Return the objectives of a finished trial at its end; None for any other trial."""
    objectives, values = observation.objectives, observation.values
    if observation.state != "finished" or not values or not all(map(math.isfinite, objectives)):
        return None
    if len(objectives) > 1:
        return objectives
    return (values[max(values)],)


def with_stopped(observations: Mapping[int, Observation]) -> AllFeedback:
    """Return the feedback for samplers that support stopped trials."""
    return {
        number: Feedback(end_of(o), o.values if o.state == "stopped" else {})
        for number, o in observations.items()
        if o.state != "failed"
    }


def extrapolated(observations: Mapping[int, Observation], report_tokens: int) -> AllFeedback:
    """Return the feedback for samplers that need values at the end.

    A stopped trial gets its last value plus the median gain of the finished trials from the same
    report to the end: curves of one model and text are about parallel. A diverged trial gets the
    worst value of all trials.
    """
    ends = {number: end for number, o in observations.items() if (end := end_of(o))}
    curves = [_curve(observations[number], report_tokens) for number in ends]
    gains: dict[int, float] = {}  # number of a report → median gain from this report to the end
    for number, o in observations.items():
        if o.state == "stopped" and o.values:
            curve = _curve(o, report_tokens)
            last = max(curve)
            if last not in gains:
                differences = [c[max(c)] - c[last] for c in curves if last in c]
                gains[last] = statistics.median(differences) if differences else 0.0
            ends[number] = (curve[last] + gains[last],)
    worst = tuple(max(values) for values in zip(*ends.values(), strict=True))
    lost = [n for n, o in observations.items() if n not in ends and o.state != "failed"]
    return {n: Feedback(end) for n, end in ends.items()} | (
        {n: Feedback(worst) for n in lost} if worst else dict.fromkeys(lost, _WORST)
    )


def at_one_budget(
    observations: Mapping[int, Observation],
    rungs: Sequence[int],
    report_tokens: int,
    min_trials: int,
) -> AllFeedback:
    """Return the values at the largest rung that enough trials have reached.

    Trials that have not reached this rung get no feedback.

    Args:
        observations: by number of the trial.
        rungs: training tokens, rising.
        report_tokens: training tokens between reports.
        min_trials: number of trials that must have reached the rung. If no rung has so many, the
            lowest rung is taken.

    Source: Falkner et al. 2018 (arXiv:1807.01774), algorithm 2.
    """
    usable = {n: o for n, o in observations.items() if o.state != "failed"}
    curves = {n: _curve(o, report_tokens) for n, o in usable.items() if o.values}
    reached: dict[int, float] = {}
    for rung in reversed(rungs):
        report = round(rung / report_tokens)
        reached = {
            n: curve[min((at for at in curve if at >= report), default=max(curve))]
            for n, curve in curves.items()
            if usable[n].state == "finished" or max(curve) >= report
        }
        if len(reached) >= min_trials:
            break
    lost = [n for n, o in usable.items() if o.state == "diverged" or not o.values]
    return {n: Feedback((value,)) for n, value in reached.items()} | dict.fromkeys(lost, _WORST)


def _curve(observation: Observation, report_tokens: int) -> _Curve:
    """Return the values by number of the report.

    Not by tokens: trials with different batch sizes report at slightly different tokens.
    """
    return {round(tokens / report_tokens): value for tokens, value in observation.values.items()}
