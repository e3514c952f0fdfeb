"""A record that was edited is refused, whatever was edited."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tuner.errors import RecordError
from tuner.tracking.metrics import as_stored
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import parameters_of
from tuner.trained.check_record import check_record

Reports = dict[int, dict[str, float]]
Record = tuple[TrialRecord, TrialSpec, Reports]


def record_of(
    spec: TrialSpec, status: str = "finished", count: int = 99, last_loss: float = 3.0
) -> Record:
    reports: Reports = {}
    for step in spec.report_steps[:count]:
        loss = last_loss if step == spec.report_steps[:count][-1] else 4.0
        report = Report("1", Status.TRAINING, step, step * 32, loss, loss, 1.0, 0.01)
        reports[step] = {name: as_stored(value) for name, value in report.metrics().items()}
    trial = TrialRecord(
        "0" * 32, 1, "lm-1", status, parameters_of(spec), dict(reports[max(reports)]), {}, "",
        spec.hash,
    )  # fmt: skip
    return trial, spec, reports


@pytest.mark.parametrize(
    ("status", "count", "last_loss"),
    [
        ("finished", 99, 3.0), ("stopped at report 2", 2, 3.0), ("diverged", 2, math.nan),
        ("diverged", 2, math.inf), ("running", 1, 3.0), ("interrupted", 1, 3.0),
        ("failed: the worker died", 2, 3.0),
    ],
)  # fmt: skip
def test_record_of_each_outcome_agrees_with_itself(
    make_spec: MakeSpec, status: str, count: int, last_loss: float
) -> None:
    check_record(*record_of(make_spec(), status, count, last_loss))


def test_record_may_have_a_divergence_between_reports(make_spec: MakeSpec) -> None:
    trial, spec, reports = record_of(make_spec(), "diverged", 1)
    reports[5] = dict.fromkeys(reports[4], math.nan)
    check_record(replace(trial, metrics=reports[5]), spec, reports)


def _with(**changes: Any) -> Callable[[Record, TrialSpec], Record]:
    return lambda record, other: (replace(record[0], **changes), *record[1:])


def _forged_parameter(record: Record, other: TrialSpec) -> Record:
    trial, spec, reports = record
    return replace(trial, parameters={**trial.parameters, "beta1": "0.777"}), spec, reports


def _forged_loss(record: Record, other: TrialSpec) -> Record:
    trial, spec, reports = record
    return replace(trial, metrics={**trial.metrics, "val_loss": 1.234}), spec, reports


def _cut(record: Record, other: TrialSpec) -> Record:
    trial, spec, reports = record
    del reports[max(reports)]
    return replace(trial, metrics=dict(reports[max(reports)])), spec, reports


def _moved(record: Record, other: TrialSpec) -> Record:
    trial, spec, reports = record
    step = min(reports)
    return trial, spec, {**reports, step + 1: reports[step]}


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda record, other: (record[0], other, record[2]), "its specification has the hash"),
        (_forged_parameter, "beta1 is 0.9 in its specification, and 0.777 among its parameters"),
        (_forged_loss, "val_loss is 3.0 in its last report, and 1.234 as its newest value"),
        (_cut, "it is finished, but has no report at its last update, only 2 before"),
        (_with(status="stopped at report 2"), "it was stopped at report 2, but has 3 reports"),
        (_moved, "a report at an update at which its specification has none"),
    ],
)
def test_edited_record_is_refused(
    make_spec: MakeSpec, forge: Callable[[Record, TrialSpec], Record], message: str
) -> None:
    with pytest.raises(RecordError, match=message) as error:
        check_record(*forge(record_of(make_spec(seed=1)), make_spec(seed=2)))
    assert "trial 1 of lm-1 contradicts itself" in str(error.value)
    assert "'tuner sync lm-1'" in str(error.value)
