"""A search that is read back is the search that was conducted."""

import math
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState

from tests.tuner.journal_text import chained, events_of
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.errors import JournalError, RecordError, TunerError
from tuner.home.home import Home
from tuner.journal.events import (
    SearchEdited,
    SessionBegun,
    SessionEnded,
)
from tuner.journal.fold import Search
from tuner.journal.journal import JOURNAL_FILE, Journal
from tuner.results.result import SearchResult
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import Tag
from tuner.trained.recorded_trials import recorded_search

SCHEDULERS = ("asha", "asha, asha: stop", "hyperband", "median", "pbt", "none")


def read(simulation: Simulation) -> SearchResult:
    runs = {number: f"run{number}" for number in simulation.conductor.board.trials}
    search = Search.of_name(simulation.events, "lm-1")
    result = SearchResult.of("lm-1", search, run_id="r", experiment_id="1", run_ids=runs)
    assert result is not None
    return result


def conducted(tmp_path: Path, scheduler: str) -> Simulation:
    space = space_of(tmp_path, f"trials: 12, scheduler: {scheduler}")
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    return simulation


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_loaded_search_equals_conducted_search(tmp_path: Path, scheduler: str) -> None:
    simulation = conducted(tmp_path, scheduler)
    simulation.note(SessionEnded("finished"))
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
    assert result.status == "finished"


def test_search_read_back_while_it_runs(tmp_path: Path) -> None:
    """Trials in training have no outcome; interrupted ones continue in a later session."""
    simulation = Simulation(Conductor(space_of(tmp_path, "trials: 12"), FACTS, 3))
    search = Search.of_name(simulation.events, "lm-1")
    assert SearchResult.of("lm-1", search, run_id="r", experiment_id="1", run_ids={}) is None
    for _ in range(10):
        simulation.step()
    under_way = {row.number for row in simulation.conductor.board.training}
    assert under_way
    assert {row.number for row in read(simulation).trials if row.outcome is None} >= under_way
    assert read(simulation).status == "running"
    simulation.note(SessionEnded("interrupted"))
    interrupted = {r.number for r in read(simulation).trials if r.outcome == "interrupted"}
    assert interrupted == under_way | {t.number for t in simulation.conductor.board.paused}
    simulation.note(SessionBegun({}, 3, in_order=True))
    assert all(row.outcome != "interrupted" for row in read(simulation).trials)


def test_loaded_search_has_values_of_session_end(tmp_path: Path) -> None:
    simulation = conducted(tmp_path, "asha")
    summary = {"wall_seconds": 1e6, "training_share": 0.5}
    end = SessionEnded("finished", summary, 3, kept=(3,), limit="patience", advice=("More.",))
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
    simulation.note(SearchEdited(more, ""))
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


SEARCH = SearchRecord("r", "1", "lm-1", "running", 0.0, None, {}, {})


def written(folder: Path, simulation: Simulation, count: int) -> str:
    """Write the first events of a search to a journal; return its digest."""
    with closing(Journal.open(folder)) as journal:
        for event in simulation.events[len(journal.entries) : count]:
            journal.append(event)
    return journal.digest


def test_local_journal_is_used_if_it_continues_the_recorded_one(tmp_path: Path) -> None:
    home, there = Home(tmp_path, "sqlite://"), tmp_path / "there"
    simulation = conducted(tmp_path, "asha")
    digest = written(there, simulation, 20)
    shutil.copytree(there, home.search("lm-1"))
    written(home.search("lm-1"), simulation, 30)
    recorded = replace(SEARCH, tags={Tag.JOURNAL: digest})

    class Recorded:
        def download(self, run_id: str, name: str, folder: str) -> Path:
            return Path(shutil.copy(there / name, folder))

    store = cast(Any, Recorded())
    assert recorded_search(store, recorded, home).num_events == 30
    path = home.search("lm-1") / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]))  # older than its record
    assert recorded_search(store, recorded, home).num_events == 20
    with closing(Journal.open(home.search("lm-1"))) as journal:
        journal.append(SessionEnded("failed"))  # another line, which fits
    with pytest.raises(JournalError, match="the journal of lm-1 is not the one that was recorded"):
        recorded_search(store, recorded, home)
    shutil.rmtree(home.search("lm-1"))
    assert recorded_search(store, recorded, home).num_events == 20
    written(home.search("lm-1"), simulation, 25)  # at other times: another search of this name
    assert recorded_search(store, recorded, home).num_events == 20


class Unrecorded:
    def download(self, run_id: str, name: str, folder: str) -> None: ...


def test_journal_that_is_neither_here_nor_recorded(tmp_path: Path) -> None:
    home = Home(tmp_path, "sqlite://")
    with pytest.raises(RecordError, match=r"the journal of lm-1 is neither in .* nor recorded"):
        recorded_search(cast(Any, Unrecorded()), SEARCH, home)


def test_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path, "sqlite://")
    written(home.search("lm-1"), conducted(tmp_path, "asha"), 10)
    path = home.search("lm-1") / "journal.jsonl"
    events = events_of(path)
    assert events[2]["event"] == "trial"
    del events[2]["draw"]
    path.write_bytes(chained(events))
    with pytest.raises(TunerError, match="written by another version of tuner, or edited"):
        recorded_search(cast(Any, Unrecorded()), SEARCH, home)


# results for others --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    simulation = conducted(tmp_path_factory.mktemp("past"), "asha")
    simulation.note(SessionEnded("finished"))
    return read(simulation)


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
