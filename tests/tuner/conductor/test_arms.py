"""Searches with `compare:`: every arm is tuned alone, by its own sampler and scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.conductor.test_conductor import again
from tests.tuner.simulated_search import FACTS, Simulation, outcomes, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.errors import TunerError
from tuner.journal.edit import check_edit, kept_overrides
from tuner.samplers.arms import arms_of
from tuner.samplers.arms import space_of as space_of_arm
from tuner.space.parameter import Choice
from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import YamlFile

SPACE = """\
hyperparameters:
  optimizer: {choice: [lion, adamw, momentum]}
  α_max:
    - {log: [1e-4, 1e-2], when: {optimizer: lion}}
    - {log: [1e-4, 4e-2], when: {optimizer: adamw}}
    - {log: [1e-3, 4e-2], prior: {centre: 1e-2}, when: {optimizer: momentum}}
  λ: {log: [1e-3, 1]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
model: {context_length: 32}
budget: {tokens: 27_000, reports: 9}
compare: {by: optimizer}
confirm: {seeds: 2}
search: {%s, seed: 3}
"""


def conduct(folder: Path, search: str, slots: int = 3) -> Simulation:
    return Simulation(Conductor(space_of(folder, search, SPACE), FACTS, slots))


def of_arm(simulation: Simulation, value: str) -> list[Trial]:
    trials = simulation.conductor.board.searched
    return [trial for trial in trials if trial.draw["optimizer"] == value]


def decided(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [(t.spec, t.outcome, [report.step for report in t.reports]) for t in trials]


def test_arms_have_spaces_of_their_own(tmp_path: Path) -> None:
    space = space_of(tmp_path, "trials: 12", SPACE)
    arms = arms_of(space)
    assert [(arm.value, arm.is_default) for arm in arms] == [
        ("adamw", True), ("lion", False), ("momentum", False)
    ]  # fmt: skip
    spaces = {arm.value: space_of_arm(space, arm, 3) for arm in arms}
    assert [p.label for p in spaces["adamw"].searched] == [
        "optimizer", "weight_decay", "max_learning_rate[2]"
    ]  # fmt: skip
    assert len(spaces["momentum"].searched) == 4
    assert {own.search.trials for own in spaces.values()} == {4}
    assert spaces["lion"].defaults()["optimizer"] == "lion"


@pytest.mark.parametrize("scheduler", ["asha", "asha, asha: stop", "hyperband", "bohb", "median"])
def test_arm_is_a_search_alone(tmp_path: Path, scheduler: str) -> None:
    """With one slot; with more, other arms change which of an arm's reports comes first."""
    together = conduct(tmp_path, f"trials: 27, scheduler: {scheduler}", slots=1)
    together.run()
    space = together.conductor.space
    for arm in arms_of(space):
        alone = Simulation(Conductor(space_of_arm(space, arm, 3), FACTS, 1))
        alone.run()
        assert decided(of_arm(together, str(arm.value))) == decided(alone.conductor.board.searched)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "none", "median"])
@pytest.mark.parametrize("slots", [1, 4])
def test_arms_get_the_same(tmp_path: Path, scheduler: str, slots: int) -> None:
    simulation = conduct(tmp_path, f"trials: 27, scheduler: {scheduler}", slots)
    board = simulation.run().board
    assert [t.draw["optimizer"] for t in board.searched[:3]] == ["adamw", "lion", "momentum"]
    assert all(trial.has_finished for trial in board.searched[:3]), "the defaults of each arm"
    for value in ("adamw", "lion", "momentum"):
        trials = of_arm(simulation, value)
        assert len(trials) == 9
        assert len({t.spec.hash for t in trials}) == 9
    confirmed = Counter(board.trials[t.confirms or 0].draw["optimizer"] for t in board.confirming)
    assert confirmed == {"adamw": 2, "lion": 2, "momentum": 2}
    seeds = {t.spec.seed for t in board.confirming}
    assert len(seeds) == 2, "paired"
    assert not seeds & {t.spec.seed for t in board.searched}, "fresh"


def test_arms_take_turns_by_tokens(tmp_path: Path) -> None:
    """At any time no arm is more than one complete trial ahead."""
    simulation = conduct(tmp_path, "trials: 27, sampler: random", 1)
    board = simulation.conductor.board
    while simulation.step():
        if board.confirming:
            break
        arms = [of_arm(simulation, value) for value in ("adamw", "lion", "momentum")]
        tokens = [sum(trial.tokens for trial in trials) for trials in arms]
        if all(len(trials) < 9 for trials in arms):
            assert max(tokens) - min(tokens) <= board.trials[0].spec.budget_tokens


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "qmc", "random", "nsga2"])
def test_arms_resumed_make_the_same_search(tmp_path: Path, sampler: str) -> None:
    whole = conduct(tmp_path, f"trials: 15, sampler: {sampler}")
    whole.run()
    resumed = again(whole, len(whole.events) // 2, 3)
    resumed.run()
    assert outcomes(resumed.conductor) == outcomes(whole.conductor)
    assert resumed.events == whole.events


def test_arms_go_on_with_more_trials_and_other_ranges(tmp_path: Path) -> None:
    search = "trials: %d, sampler: random, scheduler: none"
    simulation = conduct(tmp_path, search % 9)
    simulation.run()
    text = SPACE.replace("λ: {log: [1e-3, 1]}", "λ: {log: [1e-2, 1]}")
    new = space_of(tmp_path, search % 15, text)
    check_edit(simulation.conductor.space, new, "lm-1")
    simulation.conductor.edit(new, 3)
    simulation._fill()
    board = simulation.run().board
    counts = Counter(trial.draw["optimizer"] for trial in board.searched)
    assert counts == {"adamw": 5, "lion": 5, "momentum": 5}
    assert len({trial.spec.hash for trial in board.searched}) == 15, "no draw is repeated"
    assert all(float(trial.draw["weight_decay"]) >= 1e-2 for trial in board.searched[9:])


def with_settings(space: SearchSpace, part: str, **settings: Any) -> SearchSpace:
    return space.model_copy(update={part: getattr(space, part).model_copy(update=settings)})


def with_values(space: SearchSpace, *values: str) -> SearchSpace:
    optimizer = space.hyperparameters["optimizer"]
    changed = optimizer.model_copy(update={"distribution": Choice(kind="choice", values=values)})
    parameters = {**space.hyperparameters, "optimizer": changed}
    return SearchSpace(**{**fields_of(space), "hyperparameters": parameters})


def fields_of(space: SearchSpace) -> dict[str, Any]:
    return {name: getattr(space, name) for name in SearchSpace.model_fields}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: with_settings(s, "search", trials=10), "10 trials, which 3 arms cannot share"),
        (lambda s: with_values(s, "lion", "adamw", "sgd"), "other values of optimizer, the arms"),
        (lambda s: s.model_copy(update={"compare": None}), "another compare"),
        (lambda s: with_settings(s, "confirm", top=0), "confirm (with compare)"),
        (lambda s: with_settings(s, "search", patience=2), "search.patience (with compare)"),
    ],
)
def test_edit_may_not_favour_an_arm(
    tmp_path: Path, change: Callable[[SearchSpace], SearchSpace], message: str
) -> None:
    old = space_of(tmp_path, "trials: 9", SPACE)
    with pytest.raises(TunerError) as raised:
        check_edit(old, change(old), "lm-1")
    assert message in str(raised.value)


def test_command_line_keeps_the_defaults_of_arms(tmp_path: Path) -> None:
    """A file without `confirm:` says one of each arm and five seeds."""
    text = SPACE.replace("confirm: {seeds: 2}\n", "")
    space = space_of(tmp_path, "trials: 9", text)
    file = YamlFile(tmp_path / "space.yaml")
    assert kept_overrides(file, file.text, space, []) == []
    told = kept_overrides(file, file.text, with_settings(space, "confirm", seeds=7), [])
    assert [".".join(override.path) for override in told] == ["confirm.seeds"]
