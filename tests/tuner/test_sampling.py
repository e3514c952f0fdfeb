from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from tuner.optuna_study import METHODS
from tuner.parameters import Value
from tuner.sampling import Sampler, Told
from tuner.space import SearchSpace
from tuner.space_file import load_space

SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  α_min: {fraction_of: α_max, uniform: [0, 0.5]}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  B: {choice: [8, 16]}
  T_prune_start: {int: [0, 5]}
budget: {tokens: 18000, reports: 9}
search: {sampler: %s, seed: 3}
"""
REPORT, BUDGET = 2_000, 18_000
Draw = Mapping[str, Value]


def make(tmp_path: Path, sampler: str = "tpe", text: str = SPACE) -> Sampler:
    return Sampler(space(tmp_path, sampler, text), REPORT, BUDGET)


def space(tmp_path: Path, sampler: str = "tpe", text: str = SPACE) -> SearchSpace:
    file = tmp_path / "space.yaml"
    file.write_text(text.replace("%s", sampler), encoding="utf-8")
    return load_space(file)


def loss(draw: Draw) -> float:
    """Best at a learning rate of 0.01."""
    rates = [float(v) for k, v in draw.items() if k.startswith("max_learning_rate")]
    return 3 + abs(math.log(rates[0] / 0.01))


def finished(draw: Draw) -> Told:
    return Told("finished", {t: loss(draw) + 1 - t / BUDGET for t in (REPORT, 3 * REPORT, BUDGET)})


def outcome(number: int, draw: Draw) -> Told:
    """One of every kind."""
    value = loss(draw)
    if number % 7 == 3:
        return Told("diverged", {REPORT: value} if number % 2 else {})
    if number % 7 == 5:
        return Told("failed", {})
    if number % 3 == 1:
        return Told("stopped", {REPORT: value + 0.5})
    return finished(draw)


Event = tuple[str, int]


def events(trials: int, slots: int = 4) -> list[Event]:
    """What happens in a search in which several trials train at a time and some are parked."""
    told: list[Event] = []
    for number in range(trials):
        told.append(("suggest", number))
        if number >= slots:
            told.append(("tell", number - slots))
        if number >= slots and number % 5 == 4:
            told += [("forget", number - slots), ("tell", number - slots)]
    return told


def play(
    sampler: Sampler, script: list[Event], recorded: Mapping[int, Draw] | None = None
) -> dict[int, Draw]:
    """Let the events happen; of a recorded trial the draw is restored, not suggested."""
    draws: dict[int, Draw] = {}
    for kind, number in script:
        if kind == "suggest" and recorded and number in recorded:
            sampler.restore(number, recorded[number])
            draws[number] = recorded[number]
        elif kind == "suggest":
            draws[number] = sampler.suggest(number)
        elif kind == "tell":
            sampler.tell(number, outcome(number, draws[number]))
        else:
            sampler.forget(number)
    return draws


def run(sampler: Sampler, count: int, tell: Callable[[Draw], Told] = finished) -> list[Draw]:
    """Suggest and tell in turn."""
    draws = []
    for number in range(count):
        draws.append(sampler.suggest(number))
        sampler.tell(number, tell(draws[-1]))
    return draws


ALL = sorted(METHODS)
SLOW_GP = pytest.param("gp", marks=pytest.mark.slow)
TRIALS = dict.fromkeys(ALL, 50) | {"gp": 23}  # which takes a quarter of a second to think


@pytest.mark.parametrize("name", ALL)
def test_sampler_repeats_itself(tmp_path: Path, name: str) -> None:
    script = events(TRIALS[name])
    first, second = (play(make(tmp_path, name), script) for _ in range(2))
    assert first == second
    if name != "nsga2":  # whose children may be equal to a parent
        assert len({tuple(draw.items()) for draw in first.values()}) == TRIALS[name]
    other = play(make(tmp_path, name, SPACE.replace("seed: 3", "seed: 4")), script)
    assert all(first[number] != other[number] for number in (1, 10, 20))


@pytest.mark.parametrize("name", ALL)
def test_sampler_restores_to_the_next_suggestion(tmp_path: Path, name: str) -> None:
    """Wherever a search is cut, it goes on as if it had not been."""
    script = events(TRIALS[name])
    whole = play(make(tmp_path, name), script)
    for cut in (1, 13, 30, 48) if name == "gp" else (1, 13, 30, 49, 77, 103):
        recorded = {number: whole[number] for kind, number in script[:cut] if kind == "suggest"}
        resumed = play(make(tmp_path, name), script, recorded)
        assert resumed == whole, cut


@pytest.mark.parametrize("name", ALL)
def test_sampler_begins_with_the_defaults(tmp_path: Path, name: str) -> None:
    assert make(tmp_path, name).suggest(0) == {
        "max_learning_rate": 1e-3,
        "min_learning_rate/max_learning_rate": 0.1,
        "optimizer": "adamw",
        "batch_size": 16,
        "prune_start_steps": 4,
    }


@pytest.mark.parametrize("name", [SLOW_GP, *(name for name in ALL if name != "gp")])
def test_sampler_draws_plain_values_where_conditions_hold(tmp_path: Path, name: str) -> None:
    searched = {p.label: p for p in space(tmp_path).searched}
    for draw in run(make(tmp_path, name), 30):
        assert ("momentum" in draw) == (draw["optimizer"] == "momentum")
        for label, value in draw.items():
            assert searched[label].contains(value)
            assert type(value) in (int, float, str)


def trials_of(sampler: Sampler) -> list[FrozenTrial]:
    sampler._teach()
    return sampler._study._study.trials


def test_sampler_tells_how_trials_ended(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    for number in range(6):
        sampler.suggest(number)
    sampler.tell(0, Told("finished", {5_000: 3.5, 20_000: 3.0}))
    sampler.tell(1, Told("stopped", {5_000: 4.5, 10_000: 4.0}))
    sampler.tell(2, Told("diverged", {5_000: 3.1}))
    sampler.tell(3, Told("failed", {5_000: 3.1}))
    sampler.tell(5, Told("stopped", {5_000: 4.5}))
    sampler.forget(5)
    a, b, c, d, e, f = trials_of(sampler)
    assert (a.state, a.value) == (TrialState.COMPLETE, 3.0)
    assert (b.state, b.intermediate_values) == (TrialState.PRUNED, {5_000: 4.5, 10_000: 4.0})
    assert (c.state, c.intermediate_values) == (TrialState.PRUNED, {})
    assert d.state is TrialState.FAIL
    assert (e.state, f.state) == (TrialState.RUNNING, TrialState.RUNNING)
    sampler.tell(1, Told("finished", {20_000: 2.0}))
    assert (trials_of(sampler)[1].state, trials_of(sampler)[1].value) == (TrialState.COMPLETE, 2.0)


@pytest.mark.parametrize("name", ["tpe", SLOW_GP, "cmaes", "nsga2"])
def test_sampler_learns(tmp_path: Path, name: str) -> None:
    """Later suggestions lie nearer to the best learning rate than random ones."""

    def distance(method: str) -> float:
        count = 30 if name == "gp" else 80
        draws = run(make(tmp_path, method), count)[-15:]
        return sum(loss(draw) - 3 for draw in draws)

    assert distance(name) < 0.7 * distance("random")


def test_sampler_draws_one_alternative(tmp_path: Path) -> None:
    text = SPACE.replace(
        "{log: [1e-4, 1e-1]}",
        "[{log: [1e-4, 1e-3], when: {optimizer: adamw}}, "
        "{log: [1, 30], when: {optimizer: momentum}}]",
    )
    rates: dict[Value, list[Value]] = {"adamw": [], "momentum": []}
    for draw in run(make(tmp_path, text=text), 30):
        (label,) = (label for label in draw if label.startswith("max_learning_rate"))
        assert label == f"max_learning_rate[{1 if draw['optimizer'] == 'adamw' else 2}]"
        rates[draw["optimizer"]].append(draw[label])
    assert all(1e-4 <= float(rate) <= 1e-3 for rate in rates["adamw"])
    assert all(1 <= float(rate) <= 30 for rate in rates["momentum"])
    assert len(set(rates["adamw"])) > 3 < len(set(rates["momentum"]))


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_sampler_takes_grid_parameters_in_turn(tmp_path: Path, name: str) -> None:
    text = SPACE.replace("{choice: [8, 16]}", "{grid: [8, 16, 32]}").replace(
        "{choice: [adamw, momentum]}", "{grid: [adamw, momentum]}"
    )
    draws = run(make(tmp_path, name, text), 12)
    points = [(draw["batch_size"], draw["optimizer"]) for draw in draws]
    assert points[0] == (16, "adamw")
    assert len(set(points[:6])) == 6
    assert points[:6] == points[6:]
