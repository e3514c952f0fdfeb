"""Finished trials are found by their specification, wherever they were trained."""

from __future__ import annotations

from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import ENVIRONMENT, Open, report
from tuner.errors import StoreError
from tuner.tracking import reuse as module
from tuner.tracking.record import Record
from tuner.tracking.reuse import FinishedTrials


@pytest.mark.slow
def test_finished_trial_is_found_by_its_specification_and_environment(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    specs = [make_spec(seed=seed) for seed in range(5)]
    elsewhere, quoted = {**ENVIRONMENT, "torch": "1"}, {**ENVIRONMENT, "device": "cpu: Bob's"}
    tracker = open_tracker()
    for number, (status, environment) in enumerate(
        [("finished", ENVIRONMENT), ("stopped at report 2", ENVIRONMENT), ("finished", elsewhere),
         ("finished", quoted), ("same as trial 0", ENVIRONMENT)]
    ):  # fmt: skip
        tracker.start_trial(number, specs[number], environment)
        tracker.log_report(number, report(12, 1.0 + number, Status.FINISHED))
        tracker.end_trial(number, status)
    tracker.finish("finished", {}, None)

    def found(environment: dict[str, str]) -> list[list[float]]:
        find = FinishedTrials(Record(store), environment)
        return [[report.val_loss for report in find(spec.hash)] for spec in specs]

    assert found(ENVIRONMENT) == [[1.0], [], [], [], []]
    assert found(elsewhere) == [[], [], [3.0], [], []]
    assert found(quoted) == [[], [], [], [4.0], []]
    assert found({}) == [[]] * 5
    before = {name: value for name, value in ENVIRONMENT.items() if name != "compiled"}
    assert found(before) == found(ENVIRONMENT)
    again = open_tracker("lm-2")
    again.start_trial(0, specs[0], ENVIRONMENT)
    again.log_report(0, report(12, 9.0, Status.FINISHED))
    again.end_trial(0, "finished")
    again.finish("finished", {}, None)
    assert found(ENVIRONMENT)[0] == [9.0], "the newest"


def test_store_that_fails_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time its requests take, a search hardly waits for it."""
    clock, asked = [0.0], []

    class Slow:
        def equal(self, spec_hash: str) -> list[Any]:
            asked.append(clock[0])
            clock[0] += 30.0
            raise StoreError("it does not answer")

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    find = FinishedTrials(Slow(), ENVIRONMENT)  # type: ignore[arg-type]
    found: list[Report] = []
    while clock[0] < 3600:
        found += find("0" * 64)
        clock[0] += 1.0
    assert found == []
    assert 30 * len(asked) < 0.1 * 3600
    assert len(asked) > 5
