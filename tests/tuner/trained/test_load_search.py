"""A search that is read back is the search that was conducted."""

import json
import math
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState

from model.engine.report import Report, Status
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import INTERRUPTED
from tuner.errors import RecordError, TunerError
from tuner.home import Home
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialEnded,
)
from tuner.journal.journal import Journal
from tuner.journal.lines import line_of
from tuner.results.result import SearchResult
from tuner.tracking.records import SearchRecord
from tuner.trained.load_search import result_of
from tuner.trained.recorded_journal import recorded_events

SCHEDULERS = ("asha", "asha, asha: stop", "hyperband", "median", "pbt", "none")


def read(simulation: Simulation) -> SearchResult:
    search = SearchRecord("r", "1", "lm-1", "running", 0.0, None, {}, {})
    rows = simulation.conductor.board.trials
    outcomes: list[Event] = [
        TrialEnded(row.number, row.outcome) for row in rows.values() if row.outcome is not None
    ]
    runs = {number: f"run{number}" for number in rows}
    return result_of([*simulation.events, *outcomes], search, runs)


def conducted(tmp_path: Path, scheduler: str) -> Simulation:
    space = space_of(tmp_path, f"trials: 12, scheduler: {scheduler}")
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    return simulation


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_loaded_search_equals_conducted_search(tmp_path: Path, scheduler: str) -> None:
    simulation = conducted(tmp_path, scheduler)
    conductor, result = simulation.conductor, read(simulation)
    board = conductor.board
    rows = [*result.trials, *result.confirming]
    given = {row.number: row for row in rows}
    assert given.keys() == board.trials.keys()
    for number, row in board.trials.items():
        assert given[number].outcome == row.outcome
        assert given[number].spec == row.spec
        assert dict(given[number].draw) == dict(row.draw)
        assert list(map(repr, given[number].reports)) == list(map(repr, row.reports))
        assert given[number].times == row.times
        assert (given[number].parent, given[number].confirms) == (row.parent, row.confirms)
    assert board.best is not None
    assert result.best.number == board.best.number
    assert result.confirmation == conductor.confirmation
    assert result.confirmation is not None
    assert {"finished", "stopped at report 1"} <= {
        row.outcome for row in rows
    } or scheduler != "asha"
    assert result.status == "running"  # nobody wrote an end


def test_search_read_back_while_it_runs(tmp_path: Path) -> None:
    """Trials in training have no outcome; interrupted ones continue in a later session."""
    simulation = Simulation(Conductor(space_of(tmp_path, "trials: 12"), FACTS, 3))
    with pytest.raises(RecordError, match=r"no trial of lm-1 \(running\) has reported"):
        read(simulation)
    for _ in range(10):
        simulation.step()
    under_way = {row.number for row in simulation.conductor.board.training}
    assert under_way
    assert {row.number for row in read(simulation).trials if row.outcome is None} >= under_way
    for number in under_way:
        simulation.note(TrialEnded(number, INTERRUPTED))
    interrupted = {r.number for r in read(simulation).trials if r.outcome == "interrupted"}
    assert interrupted == under_way
    simulation.note(SessionBegun({}, 3, in_order=True))
    assert all(row.outcome != "interrupted" for row in read(simulation).trials)


def test_loaded_search_has_values_of_session_end(tmp_path: Path) -> None:
    simulation = conducted(tmp_path, "asha")
    summary = {"wall_seconds": 1e6, "training_share": 0.5}
    end = SessionEnded("finished", summary, 3, kept=[3], limit="patience", advice=["More."])
    simulation.note(end)
    result = read(simulation)
    assert (result.status, result.limit, result.halted) == ("finished", "patience", None)
    assert (result.wall_seconds, result.training_share) == (1e6, 0.5)
    assert result.advice == ["More."]


def test_edited_search_has_no_confirmation_until_it_ends(tmp_path: Path) -> None:
    """Its old retrainings are of other finalists; the best is the one that the end names."""
    simulation = conducted(tmp_path, "asha")
    space = simulation.conductor.space
    more = space.model_copy(update={"search": space.search.model_copy(update={"trials": 20})})
    assert read(simulation).confirmation is not None
    simulation.conductor.edit(more, 3)
    simulation.note(SearchBegun(more, "", FACTS))
    simulation.note(SessionBegun({}, 3, in_order=True))
    simulation._fill()
    simulation.step()
    result, board = read(simulation), simulation.conductor.board
    assert result.confirmation is None
    assert board.best is not None
    assert result.best.number == board.best.number
    simulation.run()
    simulation.note(SessionEnded("finished", best=board.best.number))
    assert read(simulation).confirmation == simulation.conductor.confirmation is not None
    assert read(simulation).best.number == board.best.number


def test_local_journal_is_used_if_it_continues_the_recorded_one(tmp_path: Path) -> None:
    """NaN is no number, and no reason to take the older one that is recorded."""

    def lines(folder: Path, count: int) -> bytes:
        with closing(Journal.open(folder)) as journal:
            for number in range(count):
                report = Report("0", Status.TRAINING, 4, 128, math.nan, 2.0, 1.0, 0.01)
                journal.append(Reported(number, report))
        return (folder / "journal.jsonl").read_bytes()

    home, there = Home(tmp_path, "sqlite://"), tmp_path / "there"
    search = SearchRecord("r", "1", "lm-1", "running", 0.0, None, {}, {})
    lines(there, 2)
    shutil.copytree(there, home.search("lm-1"))
    lines(home.search("lm-1"), 3)

    class Recorded:
        def download(self, run_id: str, name: str, folder: str) -> Path:
            return Path(shutil.copy(there / name, folder))

    assert len(recorded_events(cast(Any, Recorded()), search, home)) == 5
    shutil.rmtree(home.search("lm-1"))
    lines(home.search("lm-1"), 4)  # of another search of this name
    assert len(recorded_events(cast(Any, Recorded()), search, home)) == 2


def test_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    simulation = conducted(tmp_path, "asha")
    home = Home(tmp_path, "sqlite://")
    with closing(Journal.open(home.search("lm-1"))) as journal:
        for event in simulation.events:
            journal.append(event)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    values = json.loads(lines[2])
    assert values["event"] == "trial"
    del values["draw"], values["crc"]
    journal.path.write_bytes(b"".join([*lines[:2], line_of(values), *lines[3:]]))

    class Unrecorded:
        def download(self, run_id: str, name: str, folder: str) -> None: ...

    search = SearchRecord("r", "1", "lm-1", "running", 0.0, None, {}, {})
    with pytest.raises(TunerError, match="the journal of lm-1 is of another version of tuner"):
        recorded_events(cast(Any, Unrecorded()), search, home)


# results for others --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return read(conducted(tmp_path_factory.mktemp("past"), "asha"))


def test_frame_has_a_row_for_each_trial(result: SearchResult) -> None:
    frame = result.to_pandas()
    assert list(frame.index) == [row.number for row in result.trials] == list(range(12))
    for row in result.trials:
        values = frame.loc[row.number]
        loss = row.objective("val_loss")
        assert values["val_loss"] == loss if math.isfinite(loss) else math.isnan(values["val_loss"])
        assert values["max_learning_rate"] == row.spec.hyperparameters.max_learning_rate
        assert values["warmup_steps"] == row.spec.hyperparameters.warmup_steps
        assert (values["outcome"], values["tokens"]) == (row.outcome, row.tokens)
        assert values["run"] == f"run{row.number}"
    assert frame["parent"].isna().all()


def test_curves_have_a_row_for_each_report(result: SearchResult) -> None:
    frame = result.curves()
    rows = [*result.trials, *result.confirming]
    assert len(frame) == sum(len(row.reports) for row in rows)
    for row in rows:
        mine = frame[frame["trial"] == row.number]
        assert list(mine["tokens"]) == [report.tokens for report in row.reports]
        assert list(mine["seconds"]) == [(t - result.started) / 1000 for t in row.times]
    assert set(frame["confirms"].dropna()) == {row.confirms for row in result.confirming}


def test_study_has_the_trials_as_optuna_knows_them(result: SearchResult) -> None:
    study = result.to_study()
    states = {"finished": TrialState.COMPLETE, "diverged": TrialState.FAIL}
    by_number = {trial.user_attrs["trial"]: trial for trial in study.trials}
    assert by_number.keys() == {row.number for row in result.trials if row.reports}
    for row in result.trials:
        trial = by_number[row.number]
        assert trial.state == states.get(str(row.outcome), TrialState.PRUNED)
        assert trial.params == dict(row.draw)
        curve = {r.tokens: r.val_loss for r in row.reports if math.isfinite(r.val_loss)}
        assert trial.intermediate_values == curve
    finished = [row for row in result.trials if row.has_finished]
    best = min(finished, key=lambda row: row.objective("val_loss"))
    assert study.best_trial.user_attrs["trial"] == best.number
    assert optuna.importance.get_param_importances(study)  # Optuna's own tools take it


def test_notebooks_show_a_table(result: SearchResult) -> None:
    html = result._repr_html_()
    assert html.count("<tr") == 1 + 1 + 8  # the head has a line for the index
    assert "α_max" in html
    assert f"the best is trial {result.best.number}" in repr(result)
