"""Trust in proposals: its statistics, by simulation, and what a search does once it is lost."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.engine.report import Report
from tests.tuner.simulated_search import FACTS, Simulation, outcomes, space_of, trained
from tuner.conductor import trust
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.conductor.trust import log_ratio, strength
from tuner.journal.events import Event, Reported, SearchBegun, as_json, read_event
from tuner.journal.fold import Search
from tuner.journal.repeat import repeat, restored_decisions
from tuner.schedulers.scheduler import Decision
from tuner.space.first_draws import fitted
from tuner.space.parameter import Value
from tuner.space.proposals import NOTHING, Proposals, SourceUsed
from tuner.space.space import SearchSpace

SOURCES = (SourceUsed("earlier", "search", "ab" * 32, 24),)


def proposals(space: SearchSpace, *rates: float, confidence: float = 0.75) -> Proposals:
    """Draws with some learning rates, the first of which is the centre; best is 0.01."""
    draws: list[dict[str, Value]] = [
        {**space.defaults(), "max_learning_rate": rate, "weight_decay": 0.99} for rate in rates
    ]
    return Proposals(tuple(draws), draws[0], confidence, SOURCES, (), "learned from earlier")


# statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [1.0, 4.0, 16.0])
def test_probabilities_of_all_orders_sum_to_one(theta: float) -> None:
    kinds = [True, True, False, False, False]
    orders = list(itertools.permutations(range(5)))
    ratios = [
        log_ratio([(float(o.index(i)), k) for i, k in enumerate(kinds)], theta) for o in orders
    ]
    hold = [math.exp(-ratio) / len(orders) for ratio in ratios]
    assert sum(hold) == pytest.approx(1)
    assert (ratios == [0] * len(orders)) == (theta == 1)


def test_ratio_of_an_order_is_that_of_lehmann_alternatives() -> None:
    theta, generator = 4.0, np.random.default_rng(0)
    proposed = 1 - (1 - generator.random((200_000, 2))) ** (1 / theta)
    others = generator.random((200_000, 2))
    last = (proposed.min(1) > others.max(1)).mean()  # of 24 orders, 4 have the proposals last
    losses = [(0.0, False), (1.0, False), (2.0, True), (3.0, True)]
    assert 4 / 24 * math.exp(-log_ratio(losses, theta)) == pytest.approx(last, rel=0.1)


def test_diverged_trials_have_no_order() -> None:
    one = [(1.0, True), (math.inf, False), (math.inf, True)]
    assert log_ratio(one, 4.0) == log_ratio([one[0], one[2], one[1]], 4.0)
    assert log_ratio([(1.0, False), (math.inf, True)], 4.0) > 0


def lost(proposed: np.ndarray, others: np.ndarray, theta: float) -> float:
    """Share of searches that lose trust at any of their reports, the proposals coming second."""
    count = 0
    for own, rest in zip(proposed, others, strict=True):
        losses = [(rest[0], False), *((v, True) for v in own), *((v, False) for v in rest[1:])]
        ratios = [log_ratio(losses[:n], theta) for n in range(1, len(losses) + 1)]
        count += max(ratios) >= math.log(trust._RATIO)
    return count / len(proposed)


@pytest.mark.parametrize("confidence", [0.5, 0.75])
def test_sources_that_hold_are_rarely_doubted(confidence: float) -> None:
    theta, generator = strength(confidence), np.random.default_rng(1)
    proposed = 1 - (1 - generator.random((2000, 3))) ** (1 / theta)
    assert lost(proposed, generator.random((2000, 11)), theta) < 0.1  # Ville's bound


@pytest.mark.parametrize(("confidence", "least"), [(0.5, 0.2), (0.75, 0.6)])
def test_sources_that_know_nothing_are_doubted(confidence: float, least: float) -> None:
    generator = np.random.default_rng(2)
    shape = generator.random((1000, 3)), generator.random((1000, 11))
    assert lost(*shape, strength(confidence)) > least


def test_adverse_sources_are_always_doubted() -> None:
    generator = np.random.default_rng(3)
    worst = 0.9 + 0.1 * generator.random((500, 3))
    assert lost(worst, generator.random((500, 11)), strength(0.5)) > 0.95
    assert lost(worst, generator.random((500, 11)), strength(0.75)) > 0.99


# searches -----------------------------------------------------------------------------------------

KINDS = (
    "scheduler: asha, asha: promote", "scheduler: asha, asha: stop", "scheduler: hyperband",
    "scheduler: bohb", "scheduler: median", "scheduler: none",
)  # fmt: skip


def searched(folder: Path, search: str, *rates: float, slots: int = 2) -> Simulation:
    space = space_of(folder, f"trials: 16, {search}")
    learned = proposals(space, *rates) if rates else NOTHING
    simulation = Simulation(Conductor(space, FACTS, slots, proposals=learned))
    simulation.run()
    return simulation


GOOD, BAD = (0.012, 0.008, 0.03), (1.3e-4, 1.2e-4, 1.1e-4)


def rates_of(conductor: Conductor) -> list[Value]:
    return [trial.draw["max_learning_rate"] for trial in conductor.board.searched]


@pytest.mark.parametrize("kind", KINDS)
def test_comparisons_come_before_proposals_where_they_are_cheap(tmp_path: Path, kind: str) -> None:
    conductor = searched(tmp_path, kind, *GOOD).conductor
    are_cheap = kind in KINDS[:1] + KINDS[2:4]
    before = 2 if are_cheap else 1
    assert rates_of(conductor)[before : before + 3] == list(GOOD)
    trials, cold = conductor.board.searched, searched(tmp_path, kind).conductor.board.searched
    assert [trial.draw for trial in trials[:before]] == [trial.draw for trial in cold[:before]]
    assert cold[0].has_finished
    assert not (are_cheap and trials[0].has_finished)  # the defaults are raced


@pytest.mark.parametrize("kind", KINDS)
def test_two_proposals_are_never_cut(tmp_path: Path, kind: str) -> None:
    simulation = searched(tmp_path, kind, *GOOD)
    conductor = simulation.conductor
    numbers = [rates_of(conductor).index(rate) for rate in GOOD[:2]]
    assert conductor.trust.never_stopped == set(numbers)
    assert not conductor.trust.is_lost
    decisions = {
        e.decision for e in simulation.events if isinstance(e, Reported) and e.number in numbers
    }
    assert Decision.PAUSE not in decisions
    assert all(conductor.board.trials[number].has_finished for number in numbers)


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2]])
def test_bad_proposals_are_cut_at_their_first_report(tmp_path: Path, kind: str, slots: int) -> None:
    conductor = searched(tmp_path, kind, *BAD, slots=slots).conductor
    assert conductor.trust.is_lost
    assert "contradicted the sources" in conductor.trust.sentence
    assert not conductor.trust.never_stopped
    proposed = [t for t in conductor.board.searched if t.draw["max_learning_rate"] in BAD]
    assert len(proposed) <= slots  # those that began before the first of them had reported
    assert not any(trial.has_finished for trial in proposed)


def test_doubted_proposals_wait(tmp_path: Path) -> None:
    """The first proposal lies between the comparisons, and is better than all later ones."""
    space = space_of(tmp_path, "trials: 16, scheduler: asha, sampler: random")

    def train(trial: Trial, step: int) -> Report:
        is_proposed = trial.draw["max_learning_rate"] in GOOD
        loss = {0: 5.0, 1: 2.0}.get(trial.number, 3.0 if is_proposed else 4.0)
        return replace(trained(trial, step), val_loss=loss)

    conductor = Conductor(space, FACTS, 1, proposals=proposals(space, *GOOD))
    Simulation(conductor, train=train).run()
    assert not conductor.trust.is_lost
    assert conductor.board.trials[2].has_finished
    cold = Simulation(Conductor(space, FACTS, 1), train=train).run()
    rates = rates_of(conductor)
    # the ratio of six trials, (1/6 · 1/5) / (1/21 · 16/20), is the first one below 1
    assert [rates.index(rate) for rate in GOOD] == [2, 6, 7]
    assert rates[3:6] == rates_of(cold)[3:6]


def test_sampler_asks_the_centre_until_trust_is_lost(tmp_path: Path) -> None:
    space = space_of(tmp_path, "trials: 16, sampler: random")

    cold = Simulation(Conductor(space, FACTS, 1)).run()
    for rates in (GOOD, BAD):
        learned = proposals(space, *rates)
        conductor = Simulation(Conductor(space, FACTS, 1, proposals=learned)).run()
        # with one slot, trust is lost at the report of the first proposal, the third trial
        is_cold = rates_of(conductor)[5:] == rates_of(cold)[5:]
        assert is_cold == conductor.trust.is_lost == (rates == BAD)


@pytest.mark.parametrize("rates", [(0.012, 0.008), (1.1e-4, 1.2e-4, 1.3e-4)])
@pytest.mark.parametrize("kind", [KINDS[0], "scheduler: hyperband, sampler: cmaes"])
def test_journal_repeats_without_the_sources(
    tmp_path: Path, kind: str, rates: tuple[float, ...]
) -> None:
    whole = searched(tmp_path, kind, *rates)
    written: list[Event] = [read_event(as_json(event)) for event in whole.events]
    begun = written[0]
    assert isinstance(begun, SearchBegun)
    assert begun == whole.events[0]
    search = Search.of(written)
    assert search is not None
    assert search.trust.is_lost == whole.conductor.trust.is_lost
    assert search.trust.ratio == whole.conductor.trust.ratio
    for cut in range(3, len(written), 17):
        events = written[:cut]
        restored = restored_decisions(events, lambda _: ())
        conductor = Conductor(begun.space, FACTS, 2, restored, proposals=begun.proposals)
        repeat(conductor, events, "again")
        again = Simulation(conductor, events)
        assert outcomes(again.run()) == outcomes(whole.conductor)


def test_edited_search_keeps_its_proposals(tmp_path: Path) -> None:
    space = space_of(tmp_path, "trials: 3, scheduler: asha")
    conductor = Conductor(space, FACTS, 2, proposals=proposals(space, 0.012, 0.008, 0.03))
    simulation = Simulation(conductor)
    simulation.step()
    conductor.edit(space_of(tmp_path, "trials: 8, scheduler: asha"), 2)
    simulation.run()
    trials = conductor.board.searched
    assert [t.draw["max_learning_rate"] for t in trials[2:5]] == [0.012, 0.008, 0.03]
    assert all(trial.has_finished for trial in trials[2:4])


def test_own_prior_of_the_file_is_kept(tmp_path: Path) -> None:
    text = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1], prior: {centre: 1e-3}}
  λ: {log: [1e-3, 1]}
budget: {tokens: 27_000, reports: 9}
search: {%s}
"""
    space = space_of(tmp_path, "trials: 4", text)
    learned = Proposals((), {"max_learning_rate": 0.02, "weight_decay": 0.5}, 0.75, SOURCES)
    centres = {p.label: p.prior for p in learned.believed(space.searched)}
    assert centres["max_learning_rate"] == space.searched[0].prior
    assert centres["weight_decay"] is not None
    assert centres["weight_decay"].centre == 0.5


def test_values_outside_the_space_are_moved_into_it(tmp_path: Path) -> None:
    space = space_of(tmp_path, "trials: 4")
    draw = {**space.defaults(), "max_learning_rate": 3.0, "batch_size": 9}
    found = fitted(Proposals((draw, draw), {**draw, "dropout": 0.1}, 0.5, SOURCES), space)
    (moved,) = found.draws
    assert (moved["max_learning_rate"], moved["batch_size"]) == (0.1, 8)
    assert "dropout" not in found.centre
