"""Shorter budgets begin from the states of the drawn trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report
from model.spec.cool_down import last_shared_report
from model.spec.trial import TrialSpec
from tests.tuner.simulated_search import FACTS, SPACE, Simulation, outcomes, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.journal.repeat import repeat, restored_decisions

# the trials of α_max above 0.05 diverge after 6,000 tokens
TEXT = (
    SPACE.replace("T_warmup: {fraction_of: T_total, uniform: [0, 0.2]}", "T_warmup: 3")
    .replace("hyperparameters:", "hyperparameters:\n  schedule: wsd")
    .replace("{tokens: 27_000, reports: 9}", "{tokens: [4_096, 12_288, 24_576], reports: 12}")
    .replace("confirm: {top: 2, seeds: 2}", "confirm: off")
)
TAME = TEXT.replace("1e-1]", "1e-2]")
SEARCH = "trials: 5, scheduler: none, sampler: random"


def conduct(folder: Path, search: str = SEARCH, slots: int = 2, text: str = TAME) -> Simulation:
    return Simulation(Conductor(space_of(folder, search, text), FACTS, slots))


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_each_trial_has_a_branch_of_each_shorter_budget(tmp_path: Path, slots: int) -> None:
    simulation = conduct(tmp_path, slots=slots)
    board = simulation.run().board
    trials = board.trials.values()
    assert len(trials) == board.num_trials == 15
    assert all(trial.has_finished for trial in trials)
    assert len(board.searched) == 5
    for trunk in board.searched:
        branches = [trial for trial in board.branches if trial.parent == trunk.number]
        assert sorted(t.spec.budget_tokens for t in branches) == [4_096, 12_288]
        for branch in branches:
            assert branch.draw == trunk.draw
            assert branch.spec.report_steps[:-1] == trunk.spec.report_steps[: branch.num_places - 1]
            assert [r.step for r in branch.reports] == list(branch.spec.report_steps)
    assert board.best in board.searched


def test_branches_begin_from_the_last_report_before_the_cool_down(tmp_path: Path) -> None:
    simulation = conduct(tmp_path)
    board = simulation.run().board
    jobs = [job for job in simulation.jobs if board.trials[job.number].is_cool_down]
    assert len(jobs) == 10
    for job in jobs:
        trial, trunk = board.trials[job.number], board.trials[board.trials[job.number].parent or 0]
        # 4,096 tokens cool down from 3,277 on, 12,288 from 9,830; a report takes 2,048
        step = {4_096: 2_048, 12_288: 8_192}[trial.spec.budget_tokens] // trial.spec.tokens_per_step
        assert job.source == (trunk.number, step)
        assert [r.step for r in job.reports] == [s for s in trunk.spec.report_steps if s <= step]
        assert trial.tokens_trained == trial.spec.budget_tokens - step * trial.spec.tokens_per_step
    assert board.tokens == sum(trial.tokens_trained for trial in board.trials.values())


def test_five_budgets_cost_a_quarter_more_than_the_longest(tmp_path: Path) -> None:
    text = TAME.replace("[4_096, 12_288, 24_576], reports: 12", "[4_096, 8_192, 16_384, 32_768, "
                        "65_536], reports: 10")  # fmt: skip
    board = conduct(tmp_path, text=text).run().board
    assert len(board.branches) == 20
    longest = sum(trial.spec.budget_tokens for trial in board.searched)
    assert longest == 5 * 65_536
    assert 1.2 * longest < board.tokens <= 1.25 * longest


def test_states_are_needed_until_the_branches_have_their_own(tmp_path: Path) -> None:
    """In one lane all branches wait until their trunk has ended."""
    simulation = conduct(tmp_path, slots=1)
    conductor, needed = simulation.conductor, []
    first = {t.step for t in conductor.board.trials.values()}
    assert first == {0}
    while simulation.step():
        trunk = conductor.board.trials[0]
        tokens = trunk.spec.tokens_per_step
        own = {trunk.step} if trunk.outcome is None else set()  # of its own next job
        needed.append({step * tokens for step in conductor.needed(0) - own})
    # after reports 1 to 12 of the trunk, the 2 of the first branch, and the 6 of the second
    waiting = [*[{2_048}] * 3, *[{2_048, 8_192}] * 8]
    assert needed[:12] == [set(), *waiting]
    assert needed[12:14] == [{2_048, 8_192}, {8_192}]
    assert needed[14:20] == [*[{8_192}] * 4, set(), set()]


def test_search_draws_what_its_longest_budget_draws_alone(tmp_path: Path) -> None:
    one = TAME.replace("[4_096, 12_288, 24_576]", "24_576")
    for sampler in ("random", "qmc", "tpe"):
        search = f"trials: 6, scheduler: none, sampler: {sampler}"
        boards = [conduct(tmp_path, search, 1, text).run().board for text in (TAME, one)]
        several, alone = ([(t.spec, t.draw) for t in board.searched] for board in boards)
        assert several == alone
        assert [t.objective("val_loss") for t in boards[0].ranked] == [
            t.objective("val_loss") for t in boards[1].ranked
        ]


def test_search_resumed_after_any_event_ends_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = conduct(tmp_path, text=TEXT)
    whole.run()
    for count in range(2, len(whole.events), 5):
        events = whole.events[:count]
        restored = restored_decisions(events, lambda _: ())
        conductor = Conductor(whole.conductor.space, FACTS, 2, restored)
        repeat(conductor, events, "lm-1")
        for job in conductor.under_way:  # each continues from a state that there is
            trial = conductor.board.trials[job.number]
            own = (trial.number, trial.step) if trial.step > trial.shared_step else None
            begin = None
            if trial.is_cool_down:
                begin = (trial.parent, trial.shared_step)
            assert job.source == (own or begin)
            assert job.after == trial.step
        resumed = Simulation(conductor, events)
        resumed.run()
        assert outcomes(resumed.conductor) == outcomes(whole.conductor), count
        assert resumed.events == whole.events


def test_trunk_that_diverges_has_the_branches_that_it_reached(tmp_path: Path) -> None:
    """The rest would diverge as well: their updates until then are the trunk's."""
    board = conduct(tmp_path, "trials: 12, scheduler: none, sampler: random", text=TEXT).run().board
    diverged = [trial for trial in board.searched if trial.has_diverged]
    assert 0 < len(diverged) < 12
    for trunk in diverged:
        branches = [trial for trial in board.branches if trial.parent == trunk.number]
        assert [trial.spec.budget_tokens for trial in branches] == [4_096]
        assert branches[0].has_finished
    assert len(board.trials) == board.num_trials == 36 - len(diverged)


def test_failed_trunk_begins_no_more_branches(tmp_path: Path) -> None:
    simulation = conduct(tmp_path)
    for _ in range(4):  # two of each trial
        simulation.step()
    conductor = simulation.conductor
    assert conductor.needed(0) != set()
    conductor.fail(0, "the worker died")
    simulation._fill()
    board = simulation.run().board
    assert [t.spec.budget_tokens for t in board.branches if t.parent == 0] == [4_096]
    assert len(board.trials) == board.num_trials == 14


def test_branches_of_a_reused_trunk_train_from_update_0(tmp_path: Path) -> None:
    """Its states are gone. The decisions are as if they were there."""
    first = conduct(tmp_path).run()
    known: dict[str, list[Report]] = {t.spec.hash: t.reports for t in first.board.searched}
    again = Simulation(Conductor(first.space, FACTS, 2, find=lambda sha: known.get(sha, ())))
    board = again.run().board
    assert outcomes(again.conductor) == outcomes(first)
    assert all(trial.reused for trial in board.searched)
    assert all(trial.is_whole and not trial.reused for trial in board.branches)
    assert all(trial.tokens_trained == trial.spec.budget_tokens for trial in board.branches)
    assert all(job.source is None for job in again.jobs)


def test_branches_are_reused_too(tmp_path: Path) -> None:
    first = conduct(tmp_path).run()
    known = {t.spec.hash: t.reports for t in first.board.trials.values()}
    again = Simulation(Conductor(first.space, FACTS, 2, find=known.__getitem__)).run()
    assert again.board.tokens == 0
    assert outcomes(again) == outcomes(first)


def test_twins_have_one_family(tmp_path: Path) -> None:
    text = TAME.replace("{log: [1e-4, 1e-2]}", "{choice: [1e-3, 1e-2]}")
    text = text.replace("{log: [1e-3, 1]}", "0.1").replace("{choice: [8, 16]}", "8")
    board = conduct(tmp_path, "trials: 6, scheduler: none, sampler: random", text=text).run().board
    assert sum(trial.is_duplicate for trial in board.searched) == 4
    assert len(board.branches) == 4
    assert board.num_trials == len(board.trials) == 10


def test_limit_ends_branches_too(tmp_path: Path) -> None:
    simulation = conduct(tmp_path, f"{SEARCH}, max_tokens: 30_000", 3)
    conductor = simulation.run()
    assert conductor.limit == "max_tokens"
    assert all(trial.outcome for trial in conductor.board.trials.values())
    assert conductor.board.tokens < 30_000 + 3 * 2 * 2_048


def test_first_reports_of_a_branch_name_no_state(tmp_path: Path) -> None:
    def train(trial: Trial, step: int) -> Report:
        return replace(trained(trial, step), checkpoint=f"{trial.number}/{step}")

    simulation = Simulation(Conductor(space_of(tmp_path, SEARCH, TAME), FACTS, 2), train=train)
    simulation.run()
    shared = [report for job in simulation.jobs for report in job.reports]
    assert shared
    assert {report.checkpoint for report in shared} == {None}


def test_specification_of_a_branch_is_that_of_its_budget(tmp_path: Path) -> None:
    """So it is reused by a search of that budget, and the other way round."""
    board = conduct(tmp_path).run().board
    one = space_of(tmp_path, SEARCH, TAME.replace("[4_096, 12_288, 24_576], reports: 12",
                                                  "12_288, reports: 6"))  # fmt: skip
    for branch in board.branches:
        if branch.spec.budget_tokens == 12_288:
            spec: TrialSpec = one.spec(branch.draw, FACTS, 3)
            assert branch.spec == spec
            assert branch.spec.continues is None
            assert branch.shared_step == last_shared_report(spec)
