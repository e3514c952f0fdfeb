"""Trials are compared after equal training only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.results.random_trials import load, trained
from tuner.conductor.outcome import DIVERGED, FINISHED, Outcome
from tuner.conductor.trial import Trial
from tuner.report.contents import headline, tiles
from tuner.report.series import ReportData
from tuner.results.comparison import Comparison, compare_with_defaults, cut_leader
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_sentences
from tuner.space.space import SearchSpace

DRAW = {
    "max_learning_rate": 1e-3, "min_learning_rate": 0.1, "warmup_steps": 0.1, "beta1": 0.9,
    "weight_decay": 0.1, "grad_clip": 1.0, "batch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load(tmp_path_factory.mktemp("space"))


def make_trial(space: SearchSpace, number: int, loss: float, reports: int = 5) -> Trial:
    """A trial that reports loss + 2, loss + 1, loss + 2/3, …: five times, if it finishes."""
    trial = trained(space, number, DRAW, loss, reports)
    trial.outcome = FINISHED if trial.has_finished else Outcome.stopped(len(trial.reports))
    trial.outcome = DIVERGED if trial.has_diverged else trial.outcome
    return trial


def result_of(space: SearchSpace, best: int, *trials: Trial, **more: Any) -> SearchResult:
    return SearchResult("s-1", space, "val_loss", [*trials], trials[best], {}, "1", 9, 0.5, **more)


def test_comparison_is_at_the_last_report_of_both(space: SearchSpace) -> None:
    defaults, better = make_trial(space, 0, 4.0, reports=2), make_trial(space, 1, 3.0)
    comparison = compare_with_defaults(result_of(space, 1, defaults, better))
    assert comparison == Comparison(4.0, 5.0, place=2, is_final=False, change=pytest.approx(20.0))
    finished = result_of(space, 1, make_trial(space, 0, 4.0), better)
    assert compare_with_defaults(finished) == Comparison(
        pytest.approx(3.4), pytest.approx(4.4), 5, is_final=True, change=pytest.approx(100 / 4.4)
    )
    assert compare_with_defaults(result_of(space, 0, defaults, better)) is None


def test_summary_says_that_only_the_defaults_were_trained_to_the_end(space: SearchSpace) -> None:
    """Trial 1 has less after two reports than trial 0 at the end: that is not compared."""
    trials = make_trial(space, 0, 4.0), make_trial(space, 1, 2.0, 2), make_trial(space, 2, 4.5, 1)
    lines = summary_sentences(result_of(space, 0, *trials, limit="max_tokens"))
    assert lines[0] == "Only trial 0, the defaults, was trained to the end: val_loss 4.4000."
    assert lines[1] == (
        "Trial 1 may be better: it had 3.0000 at report 2 of 5, where trial 0 had 5.0000, but the "
        "search ended before it was trained to the end."
    )
    assert cut_leader(result_of(space, 0, *trials)) is None  # the scheduler stopped them


def test_summary_of_an_interrupted_search_compares_equal_reports(space: SearchSpace) -> None:
    trials = make_trial(space, 0, 3.5, 4), make_trial(space, 1, 3.0, 3)
    lines = summary_sentences(result_of(space, 1, *trials, halted="interrupted"))
    assert lines[0] == (
        "No trial was trained to the end. The lowest val_loss is 3.6667, of trial 1 at report 3 of "
        "5; at report 3 it had 3.6667 against 4.1667 of the defaults: 12.0 % lower."
    )


@pytest.mark.parametrize(
    ("losses", "best", "line"),
    [
        ([4.0, 4.5], 0, "No trial beat trial 0, the defaults: val_loss 4.4000."),
        ([4.0], 0, "Trial 0 was trained to the end: val_loss 4.4000."),
        ([math.nan, 4.0], 1, "Best val_loss 4.4000; the defaults diverged."),
        ([4.0, 3.0, 2.0], 1, "Trial 1 has val_loss 3.4000 against 4.4000 of the defaults: 22.7 %"),
    ],
)
def test_summary_names_trial_0_by_its_defaults(
    space: SearchSpace, losses: list[float], best: int, line: str
) -> None:
    trials = [make_trial(space, number, loss) for number, loss in enumerate(losses)]
    assert summary_sentences(result_of(space, best, *trials))[0].startswith(line)


def with_defaults(space: SearchSpace, mode: str) -> SearchSpace:
    search = space.search.model_copy(update={"defaults": mode})
    return space.model_copy(update={"search": search})


def test_summary_compares_with_raced_defaults_where_they_were_stopped(space: SearchSpace) -> None:
    raced = with_defaults(space, "raced")
    result = result_of(raced, 1, make_trial(space, 0, 4.0, 2), make_trial(space, 1, 3.0))
    assert summary_sentences(result)[0] == (
        "Best val_loss 3.4000; at report 2, where the defaults were stopped, it had 4.0000 against "
        "5.0000 of the defaults: 20.0 % lower."
    )
    assert "defaults_val_loss" not in result.summary()
    trained = result_of(raced, 1, make_trial(space, 0, 4.0), make_trial(space, 1, 3.0))
    assert "against 4.4000 of the defaults" in summary_sentences(trained)[0]
    assert trained.summary()["defaults_val_loss"] == pytest.approx(4.4)


def test_summary_without_defaults_compares_nothing(space: SearchSpace) -> None:
    off = with_defaults(space, "off")
    trials = make_trial(space, 0, 4.0), make_trial(space, 1, 3.0)
    assert summary_sentences(result_of(off, 1, *trials))[0] == "Best val_loss 3.4000."
    best = result_of(off, 0, trials[0], make_trial(space, 1, 5.0))
    assert summary_sentences(best)[0] == "Best val_loss 4.4000."
    assert "defaults_val_loss" not in best.summary()
    assert headline(ReportData(best)) == "Trial 0 has the best val_loss"
    assert [tile.title for tile in tiles(ReportData(best))] == ["Best val_loss", "Cost"]


def test_result_ranks_unfinished_trials_by_their_progress(space: SearchSpace) -> None:
    trials = [
        make_trial(space, 0, 4.0), make_trial(space, 1, 1.0, 1), make_trial(space, 2, 3.0, 3),
        make_trial(space, 3, 3.9), make_trial(space, 4, math.nan), make_trial(space, 5, 2.0, 3),
    ]  # fmt: skip
    assert [t.number for t in result_of(space, 3, *trials).ranked] == [3, 0, 5, 2, 1, 4]


def test_summary_gives_the_time_of_all_sessions(space: SearchSpace) -> None:
    trial = make_trial(space, 0, 4.0)
    cost = summary_sentences(result_of(space, 0, trial, sessions=2))[1:3]
    assert cost[0].startswith(f"Trained {trial.tokens:,} tokens in 0:09 of 2 sessions;")
    assert cost[1] == "The workers spent 50 % of the last session inside training."
    idle = SearchResult("s-1", space, "val_loss", [trial], trial, {}, "1", 9, 0.0, sessions=2)
    assert "The workers" not in " ".join(summary_sentences(idle))


def test_value_at_counts_the_reports_of_the_parent(space: SearchSpace, tmp_path: Path) -> None:
    trial = make_trial(space, 0, 4.0, 3)
    assert (trial.place, trial.num_places) == (3, 5)
    assert [trial.value_at("val_loss", place) for place in (0, 1, 3, 4)] == [
        None, 6.0, pytest.approx(4 + 2 / 3), None,
    ]  # fmt: skip
    # as of a branch: two of five reports are its parent's
    trial.__dict__["report_steps"] = trial.report_steps[2:]
    assert trial.place == 5
    assert trial.value_at("val_loss", 2) is None
    assert trial.value_at("val_loss", 3) == 6.0
