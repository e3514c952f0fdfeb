from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from tests.tuner.simulated_search import FACTS, SPACE, Simulation, outcomes, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.journal.events import Reported
from tuner.journal.repeat import repeat, restored_decisions
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.space import SearchSpace

SAMPLERS = ("tpe", "random", "qmc", "cmaes")
POPULATIONS = ("pbt", "pb2")


def conduct(folder: Path, search: str, slots: int = 3, text: str = SPACE) -> Simulation:
    return Simulation(Conductor(space_of(folder, search, text), FACTS, slots))


def again(simulation: Simulation, count: int, slots: int) -> Simulation:
    """The search as a driver finds it that reads the first lines of its journal."""
    events = simulation.events[:count]
    restored = restored_decisions(events, lambda _: ())
    conductor = Conductor(simulation.conductor.space, FACTS, slots, restored)
    repeat(conductor, events, "lm-1")
    return Simulation(conductor, events)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_conductor_resumed_after_any_event_ends_as_if_never_interrupted(
    tmp_path: Path, scheduler: str
) -> None:
    search = f"trials: 12, scheduler: {scheduler}"
    whole = conduct(tmp_path, search)
    whole.run()
    assert len(whole.events) > 50
    for count in range(2, len(whole.events), 11):
        resumed = again(whole, count, 3)
        resumed.run()
        assert outcomes(resumed.conductor) == outcomes(whole.conductor), count
        assert resumed.conductor.board.best.number == whole.conductor.board.best.number  # type: ignore[union-attr]
        assert resumed.events == whole.events


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_conductor_resumed_makes_the_same_suggestions(tmp_path: Path, sampler: str) -> None:
    whole = conduct(tmp_path, f"trials: 30, sampler: {sampler}, asha: stop")
    whole.run()
    resumed = again(whole, len(whole.events) // 2, 3)
    resumed.run()
    assert outcomes(resumed.conductor) == outcomes(whole.conductor)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 7, 40])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_conductor_ends_every_trial(tmp_path: Path, scheduler: str, slots: int) -> None:
    simulation = conduct(tmp_path, f"trials: 16, scheduler: {scheduler}", slots)
    board = simulation.run().board
    assert all(row.outcome for row in board.trials.values())
    assert len([r for r in board.searched if r.parent is None]) == 16
    assert board.trials[0].has_finished
    assert board.best is not None
    assert all(math.isfinite(r.objective("val_loss")) for r in board.searched if r.has_finished)


def test_conductor_takes_reports_in_the_order_of_the_slots_clocks(tmp_path: Path) -> None:
    text = SPACE.replace("1e-1]", "1e-2]")  # none diverges
    simulation = conduct(tmp_path, "trials: 9, scheduler: none", 3, text)
    simulation.run()
    reports = [e for e in simulation.events if isinstance(e, Reported)]
    first = [e.number for e in reports[:9]]
    assert Counter(first) == {0: 3, 1: 3, 2: 3}


def test_conductor_pauses_and_promotes(tmp_path: Path) -> None:
    """27 trials, η 3, rungs at 1/9 and 1/3 of the budget: 9 should continue, a few do too early."""
    simulation = conduct(tmp_path, "trials: 27, sampler: random", 4)
    board = simulation.run().board
    reached = [len(row.reports) for row in board.searched if not row.has_diverged]
    assert 9 <= sum(n >= 3 for n in reached) <= 13
    assert 3 <= sum(n == 9 for n in reached) <= 6
    resumed = [job for job in simulation.jobs if job.source is not None]
    assert resumed
    assert all(job.source == (job.number, job.after) for job in resumed)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_conductor_races_the_defaults(tmp_path: Path, scheduler: str) -> None:
    """Trial 0 is a bad one: it trains to the end only if nothing may stop it."""
    text = SPACE.replace("[1e-4, 1e-1]", "[1e-5, 1e-1]")  # its rate is 1e-3, the best 1e-2
    boards = {
        mode: conduct(tmp_path, f"trials: 24, scheduler: {scheduler}, {mode}", 4, text).run().board
        for mode in ("defaults: full", "defaults: raced")
    }
    full, raced = boards.values()
    assert full.trials[0].draw == raced.trials[0].draw
    assert full.trials[0].has_finished
    assert not raced.trials[0].has_finished
    assert raced.tokens < full.tokens
    assert all(trial.outcome for trial in raced.trials.values())


def test_recorded_space_says_how_far_the_defaults_train(tmp_path: Path) -> None:
    raced = space_of(tmp_path, "defaults: raced").model_dump_json()
    assert '"defaults":"raced"' in raced
    assert SearchSpace.model_validate_json(raced).search.defaults == "raced"


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_conductor_compares_models_of_all_sizes_after_equal_compute(
    tmp_path: Path, scheduler: str
) -> None:
    """In tokens, the rungs of small models would lie at early reports of theirs."""
    text = SPACE.replace("context_length: 32", "context_length: 32, d_model: {choice: [16, 96]}")
    text = text.replace("{tokens: 27_000, reports: 9}", "{flops: 9G, reports: 9}")
    board = conduct(tmp_path, f"trials: 18, scheduler: {scheduler}", 4, text).run().board
    trials = [t for t in board.searched if not t.has_diverged]
    assert len({t.spec.report_tokens for t in trials}) == 2
    assert all(t.spec.report_steps[t.place - 1] == t.step for t in trials)
    for trial in trials:
        flops = trial.value("flops", trial.reports[-1])
        rounded = (trial.spec.tokens_per_step + trial.place) * trial.flops(1)  # a last update
        assert 0 <= flops - trial.place * 10**9 < rounded
        assert board.observation(trial).values.keys() == {
            trial.flops(report.tokens) for report in trial.reports
        }
    if scheduler in ("asha", "hyperband"):
        assert {t.place for t in trials} <= {1, 3, 9}


def test_conductor_confirms_the_best_with_fresh_seeds(tmp_path: Path) -> None:
    conductor = conduct(tmp_path, "trials: 12").run()
    board, confirmation = conductor.board, conductor.confirmation
    assert confirmation is not None
    retrained = [row for row in board.trials.values() if row.confirms is not None]
    assert len(retrained) == 4
    assert all(row.has_finished for row in retrained)
    seeds = {row.spec.seed for row in retrained}
    assert len(seeds) == 2
    assert 3 not in seeds
    best = sorted(
        (r for r in board.searched if r.has_finished), key=lambda r: r.objective("val_loss")
    )
    assert {row.confirms for row in retrained} == {best[0].number, best[1].number}
    assert board.best is board.trials[confirmation.ranked[0].number]
    for row in retrained:
        original = board.trials[row.confirms or 0].spec
        assert row.spec == original.model_copy(update={"seed": row.spec.seed})


def test_conductor_does_not_confirm_when_confirm_is_off(tmp_path: Path) -> None:
    text = SPACE.replace("confirm: {top: 2, seeds: 2}", "confirm: off")
    conductor = conduct(tmp_path, "trials: 6", text=text).run()
    assert conductor.confirmation is None
    assert len(conductor.board.trials) == 6


def test_conductor_trains_no_specification_twice(tmp_path: Path) -> None:
    text = SPACE.replace("{log: [1e-4, 1e-1]}", "{choice: [1e-3, 1e-2]}")
    text = text.replace("{fraction_of: T_total, uniform: [0, 0.2]}", "4")
    text = text.replace("{log: [1e-3, 1]}", "0.1")
    simulation = conduct(tmp_path, "trials: 20, sampler: random, scheduler: none", text=text)
    board = simulation.run().board
    assert len(board.searched) == 20
    twins = [row for row in board.searched if row.is_duplicate]
    assert len(twins) == 16
    assert not any(row.reports for row in twins)
    hashes = [row.spec.hash for row in board.trials.values() if row.reports]
    assert len(hashes) == len(set(hashes))


def test_conductor_takes_finished_trials_from_the_record(tmp_path: Path) -> None:
    first = conduct(tmp_path, "trials: 9, sampler: random").run()
    known = {r.spec.hash: r.reports for r in first.board.trials.values() if r.has_finished}
    repeated = Conductor(first.space, FACTS, 3, find=lambda spec_hash: known.get(spec_hash, ()))
    simulation = Simulation(repeated)
    board = simulation.run().board
    taken = [row for row in board.trials.values() if row.reused]
    assert len(taken) >= 2
    assert all(row.tokens_trained == 0 for row in taken)
    assert board.trials[0].reports == first.board.trials[0].reports
    assert board.tokens < first.board.tokens


@pytest.mark.parametrize(
    ("setting", "limit"), [("max_tokens: 60_000", "max_tokens"), ("patience: 4", "patience")]
)
def test_conductor_ends_at_a_limit(tmp_path: Path, setting: str, limit: str) -> None:
    text = SPACE.replace("confirm: {top: 2, seeds: 2}", "confirm: off")
    simulation = conduct(tmp_path, f"trials: 60, scheduler: none, {setting}", text=text)
    conductor = simulation.run()
    assert conductor.limit == limit
    assert len(conductor.board.trials) < 60
    assert all(row.outcome for row in conductor.board.trials.values())
    if limit == "max_tokens":
        assert 60_000 <= conductor.board.tokens < 60_000 + 3 * 27_000


def test_patience_counts_ended_and_stopped_trials_since_the_best(tmp_path: Path) -> None:
    def train(trial: Trial, step: int) -> Report:
        loss = 1.0 if trial.number == 2 else 2.0 + trial.number
        return replace(trained(trial, step), val_loss=loss - step / 1e6)

    space = space_of(
        tmp_path,
        "trials: 60, scheduler: asha, asha: stop, patience: 4",
        SPACE.replace("1e-1]", "1e-2]"),
    )
    simulation = Simulation(Conductor(space, FACTS, 1), train=train)
    while simulation.conductor.limit is None:
        assert simulation.step()
    assert simulation.conductor.limit == "patience"
    ended = [trial.outcome for trial in simulation.conductor.board.trials.values()]
    assert ended == [*3 * ["finished"], *4 * ["stopped at report 1"], None]


def test_conductor_continues_after_failure(tmp_path: Path) -> None:
    simulation = conduct(tmp_path, "trials: 6")
    simulation.step()
    simulation.conductor.fail(1, "the worker died")
    simulation._fill()
    board = simulation.run().board
    assert board.trials[1].outcome == "failed: the worker died"
    assert len(board.searched) == 6
    assert board.best is not None


def test_non_finite_trial_never_wins(tmp_path: Path) -> None:
    """Infinity is no result, whatever the report calls itself."""

    def train(row: Trial, step: int) -> Report:
        report = trained(row, step)
        if row.number % 3 == 1:
            return replace(report, val_loss=-math.inf)
        return replace(report, val_loss=math.nan) if row.number % 3 == 2 else report

    space = space_of(tmp_path, "trials: 12")
    board = Simulation(Conductor(space, FACTS, 3), train=train).run().board
    bad = [row for row in board.searched if row.number % 3]
    assert {row.outcome for row in bad} == {"diverged"}
    assert all(len(row.reports) == 1 for row in bad)
    assert board.best is not None
    assert board.best.number % 3 == 0


@pytest.mark.parametrize("scheduler", POPULATIONS)
def test_conductor_copies_the_best_of_a_population(tmp_path: Path, scheduler: str) -> None:
    simulation = conduct(tmp_path, f"trials: 8, scheduler: {scheduler}", 4)
    board = simulation.run().board
    branches = [job for job in simulation.jobs if job.source and job.source[0] != job.number]
    assert branches
    for job in branches:
        row = board.trials[job.number]
        assert row.parent is not None
        start = row.spec.continues
        assert start is not None
        assert start.spec == board.trials[row.parent].spec
        assert job.source == (row.parent, start.step)
        assert row.reports[0].step > start.step
        assert row.spec.hyperparameters != start.spec.hyperparameters


def test_conductor_grows(tmp_path: Path) -> None:
    """More trials after the end: the old ones are neither forgotten nor trained again."""
    simulation = conduct(tmp_path, "trials: 9")
    conductor = simulation.run()
    before = len(conductor.board.searched)
    space = conductor.space
    grown = space.model_copy(update={"search": space.search.model_copy(update={"trials": 18})})
    conductor.edit(grown, 3)
    simulation._fill()
    board = simulation.run().board
    assert (before, len(board.searched)) == (9, 18)
    hashes = [row.spec.hash for row in board.trials.values() if row.reports]
    assert len(hashes) == len(set(hashes))
    assert board.trials[0].has_finished


def test_status_of_a_row_is_what_was_reported(tmp_path: Path) -> None:
    board = conduct(tmp_path, "trials: 12, sampler: random").run().board
    for row in board.searched:
        if row.outcome == "diverged":
            assert row.reports[-1].status is Status.DIVERGED
        elif row.outcome == "finished":
            assert row.reports[-1].status is Status.FINISHED
        else:
            assert row.outcome == f"stopped at report {len(row.reports)}"
