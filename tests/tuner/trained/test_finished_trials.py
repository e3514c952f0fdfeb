"""Finished trials are found by their specification, wherever they were trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import ENVIRONMENT, Begin, report
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.tracking.run_ids import NotReadable, has_finished
from tuner.trained import finished_trials as module
from tuner.trained.finished_trials import FinishedTrials
from tuner.trained.recorded_trials import RecordedTrials


def unreadable(*_: Any) -> bool:
    """What the tables of a server say."""
    raise NotReadable


@pytest.mark.slow
def test_finished_trial_is_found_by_its_specification_and_environment(
    begin_search: Begin, store: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    specs = [make_spec(seed=seed) for seed in range(5)]
    elsewhere, quoted = {**ENVIRONMENT, "torch": "1"}, {**ENVIRONMENT, "device": "cpu: Bob's"}
    search = begin_search()
    for number, (status, environment) in enumerate(
        [("finished", None), ("stopped at report 2", None), ("finished", elsewhere),
         ("finished", quoted)]
    ):  # fmt: skip
        search.begin(number, specs[number], environment=environment)
        search.report(number, report(12, 1.0 + number, Status.FINISHED), outcome=status)
    search.begin(4, specs[4], same_as=0)
    search.finish()

    def found(environment: dict[str, str], home: Path = tmp_path) -> list[list[float]]:
        find = FinishedTrials(RecordedTrials.of(Home(home, store)), environment)
        return [[report.val_loss for report in find(spec.hash)] for spec in specs]

    assert found(ENVIRONMENT) == [[1.0], [], [], [], []]
    assert found(elsewhere) == [[], [], [3.0], [], []]
    assert found(quoted) == [[], [], [], [4.0], []]
    assert found({}) == [[]] * 5
    asked = [has_finished(store, specs[0].hash, name) for name in ("lm-1", "lm-2")]
    assert asked == [False, True], "of another search"
    assert not has_finished(store, specs[1].hash, "lm-2"), "it was stopped"
    again = begin_search("lm-2")
    again.trial(0, specs[0], report(12, 9.0, Status.FINISHED), outcome="finished")
    again.finish()
    assert found(ENVIRONMENT)[0] == [9.0], "the newest"
    # elsewhere, by the copies in the store; and a journal that cannot be read has no trial
    assert found(ENVIRONMENT, tmp_path / "elsewhere")[0] == [9.0]
    (tmp_path / "searches" / "lm-2" / "journal.jsonl").write_text("{}\n{}\n")
    assert found(ENVIRONMENT)[0] == [1.0]


def test_home_without_a_store_has_no_trial_and_gets_no_store(tmp_path: Path) -> None:
    """MLflow is loaded later, when the first trials train."""
    home = Home(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    assert FinishedTrials(RecordedTrials(None, home), ENVIRONMENT)("0" * 64) == ()
    assert not home.has_store


def test_store_that_fails_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time its requests take, a search hardly waits for it."""
    clock, asked = [0.0], []

    def experiments() -> list[str]:
        asked.append(clock[0])
        clock[0] += 30.0
        raise StoreError("it does not answer")

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    trials: Any = SimpleNamespace(
        record=SimpleNamespace(experiments=experiments),
        home=SimpleNamespace(tracking_uri="http://server"),
    )
    find = FinishedTrials(trials, ENVIRONMENT)
    found: list[Report] = []
    while clock[0] < 3600:
        found += find("0" * 64)
        clock[0] += 1.0
    assert found == []
    assert 30 * len(asked) < 0.1 * 3600
    assert len(asked) > 5


@pytest.mark.slow
def test_server_without_other_searches_is_asked_rarely(
    begin_search: Begin, store: str, make_spec: MakeSpec, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A request takes time in which the search decides nothing; a search may come meanwhile."""

    def finish(name: str) -> None:
        search = begin_search(name)
        search.trial(0, make_spec(), report(12, 1.0, Status.FINISHED), outcome="finished")
        search.finish()

    finish("lm-1")
    clock, asked = [0.0], []
    monkeypatch.setattr(module, "has_finished", unreadable)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    trials = RecordedTrials.of(Home(tmp_path, store))
    record, experiments = trials.record, trials.record.experiments
    monkeypatch.setattr(record, "experiments", lambda: asked.append(clock[0]) or experiments())
    find = FinishedTrials(trials, ENVIRONMENT, "lm-1")
    for clock[0] in range(30):
        assert find(make_spec().hash) == (), "its own trials are known"
    assert asked == [0, 10, 20]
    finish("lm-2")
    clock[0] = 30.0
    assert [r.val_loss for r in find(make_spec().hash)] == [1.0]
    assert FinishedTrials(trials, ENVIRONMENT, "lm-3")(make_spec().hash)
