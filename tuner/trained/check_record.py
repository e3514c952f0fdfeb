"""Checks that the record of a trial agrees with itself, before a replay is compared with it.

The store is a database that anybody who has it can edit. A replay proves the numbers that it
compares, so the numbers and names that are shown beside them must follow from the same record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from model.engine.report import METRICS, SOME_METRICS
from model.spec.trial import TrialSpec
from tuner.conductor.outcome import OutcomeKind
from tuner.errors import RecordError
from tuner.texts.formatting import short_hash
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import parameters_of

Reports = Mapping[int, Mapping[str, float]]


def check_record(trial: TrialRecord, spec: TrialSpec, reports: Reports) -> None:
    """Check the record of a trial.

    Args:
        trial: the trial, with its newest metrics.
        spec: recorded specification.
        reports: recorded reports, step → metric → value, in the order of the steps; at least one.

    Raises:
        RecordError: if hash, parameters, outcome or newest metrics do not fit the specification and
            the reports.
    """
    contradiction = next(_contradictions(trial, spec, reports), None)
    if contradiction is not None:
        raise RecordError(
            f"the record of trial {trial.number} of {trial.search} contradicts itself: "
            f"{contradiction}; it was edited, or is incomplete: 'tuner sync {trial.search}' "
            f"completes it from the journal of the search"
        )


def _contradictions(trial: TrialRecord, spec: TrialSpec, reports: Reports) -> Iterator[str]:
    if trial.spec_hash and spec.hash != trial.spec_hash:
        yield (
            f"its specification has the hash {short_hash(spec.hash)}…, the trial "
            f"{short_hash(trial.spec_hash)}…"
        )
    for name, value in parameters_of(spec).items():
        text = trial.parameters.get(name)
        if text != value:
            yield f"{name} is {value} in its specification, and {text} among its parameters"
    yield from _wrong_end(trial, spec, reports)
    last = reports[max(reports)]
    for name in (*METRICS, *SOME_METRICS):
        old, new = last.get(name, math.nan), trial.metrics.get(name, math.nan)
        if old != new and not (math.isnan(old) and math.isnan(new)):
            yield f"{name} is {old!r} in its last report, and {new!r} as its newest value"


def _wrong_end(trial: TrialRecord, spec: TrialSpec, reports: Reports) -> Iterator[str]:
    """Compare the outcome with the number and the steps of the reports."""
    outcome = trial.outcome
    if outcome is None:
        return
    count = len(reports)
    if outcome.kind is OutcomeKind.FINISHED and max(reports) != spec.hyperparameters.total_steps:
        yield f"it is finished, but has no report at its last update, only {count} before"
    if outcome.kind is OutcomeKind.STOPPED and outcome.detail != str(count):
        yield f"it was {outcome}, but has {count} reports"
    is_planned = set(spec.report_steps).issuperset(
        step for step, metrics in reports.items() if not math.isnan(metrics.get("val_loss", 0.0))
    )
    if not is_planned:
        yield "it has a report at an update at which its specification has none"
