from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest
from optuna.trial import FrozenTrial, TrialState

from tuner.samplers.observation import Observation
from tuner.samplers.registry import SAMPLERS
from tuner.samplers.sampler import Sampler
from tuner.space.parameter import Value
from tuner.space.settings import SamplerName
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

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


# of which every parameter can be listed
LISTED = """\
hyperparameters:
  λ: {choice: [0.1, 0.2, 0.5, 1]}
  β2: {choice: [0.95, 0.98, 0.99]}
  optimizer: {choice: [adamw, momentum]}
  γ: {choice: [0.5, 0.9], when: {optimizer: momentum}}
  T_prune_start: {int: [0, 2]}
budget: {tokens: 18000, reports: 9}
search: {sampler: %s, trials: 1000, seed: 3}
"""


def make(tmp_path: Path, sampler: str = "tpe", text: str = SPACE) -> Sampler:
    if sampler == "bohb":
        sampler = "tpe, scheduler: bohb"
    elif sampler == "grid" and text == SPACE:
        text = LISTED
    return Sampler(space(tmp_path, sampler, text), REPORT, BUDGET)


def space(tmp_path: Path, sampler: str = "tpe", text: str = SPACE) -> SearchSpace:
    file = tmp_path / "space.yaml"
    file.write_text(text.replace("%s", sampler), encoding="utf-8")
    return load_space(file)


def loss(draw: Draw) -> float:
    """Best at a learning rate of 0.01."""
    rates = [float(v) for k, v in draw.items() if k.startswith("max_learning_rate")]
    return 3 + abs(math.log(rates[0] / 0.01)) if rates else 3.0


def finished(draw: Draw) -> Observation:
    return Observation(
        "finished", {t: loss(draw) + 1 - t / BUDGET for t in (REPORT, 3 * REPORT, BUDGET)}
    )


def outcome(number: int, draw: Draw) -> Observation:
    """One of every kind."""
    value = loss(draw)
    if number % 7 == 3:
        return Observation("diverged", {REPORT: value} if number % 2 else {})
    if number % 7 == 5:
        return Observation("failed", {})
    if number % 3 == 1:
        return Observation("stopped", {REPORT: value + 0.5})
    return finished(draw)


Event = tuple[str, int]


def events(trials: int, slots: int = 4) -> list[Event]:
    """Events of a search in which several trials train at a time and some are paused."""
    events: list[Event] = []
    for number in range(trials):
        events.append(("suggest", number))
        if number >= slots:
            events.append(("tell", number - slots))
        if number >= slots and number % 5 == 4:
            events.append(("tell", number - slots))
    return events


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
        else:
            sampler.observe(number, outcome(number, draws[number]))
    return draws


def run(sampler: Sampler, count: int, tell: Callable[[Draw], Observation] = finished) -> list[Draw]:
    """Suggest and tell in turn."""
    draws = []
    for number in range(count):
        draws.append(sampler.suggest(number))
        sampler.observe(number, tell(draws[-1]))
    return draws


ALL = [*sorted(SAMPLERS.keys() - {"grid"}), "bohb"]
LEARNING = [*(name for name, kind in SAMPLERS.items() if kind.uses_observations), "bohb"]
PAGE = (Path(__file__).parents[3] / "docs" / "schedulers.md").read_text(encoding="utf-8")
SLOW_GP = pytest.param("gp", marks=pytest.mark.slow)
TRIALS = dict.fromkeys([*ALL, "grid"], 50) | {"gp": 16}  # which needs 0.2 s for a suggestion


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_is_described(name: SamplerName) -> None:
    kind = SAMPLERS[name]
    assert [kind.make, kind.sequence, kind.points].count(None) == 2
    assert kind.says
    lines = PAGE.splitlines()
    (row,) = (line for line in lines if line.startswith("| `sampler` | `tpe`"))
    assert f"`{name}`" in row
    assert any(line.startswith(f"| `{name}` |") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALL, "grid"])
def test_sampler_repeats_itself(tmp_path: Path, name: str) -> None:
    script = events(TRIALS[name])
    first, second = (play(make(tmp_path, name), script) for _ in range(2))
    assert first == second
    if name != "nsga2":  # whose children may be equal to a parent
        assert len({tuple(draw.items()) for draw in first.values()}) == TRIALS[name]
    text = LISTED if name == "grid" else SPACE
    other = play(make(tmp_path, name, text.replace("seed: 3", "seed: 4")), script)
    assert all(first[number] != other[number] for number in (1, 10, 15))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALL, "grid"])
def test_sampler_restores_to_the_next_suggestion(tmp_path: Path, name: str) -> None:
    """A search that is cut at any event continues as without the cut."""
    script = events(TRIALS[name])
    whole = play(make(tmp_path, name), script)
    for cut in (13, 25) if name == "gp" else (1, 13, 30, 49, 77, 103):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [SLOW_GP, *(name for name in ALL if name != "gp")])
def test_sampler_draws_plain_values_where_conditions_hold(tmp_path: Path, name: str) -> None:
    searched = {p.label: p for p in space(tmp_path).searched}
    for draw in run(make(tmp_path, name), 15 if name == "gp" else 30):
        assert ("momentum" in draw) == (draw["optimizer"] == "momentum")
        for label, value in draw.items():
            assert searched[label].contains(value)
            assert type(value) in (int, float, str)


def trials_of(sampler: Sampler) -> list[FrozenTrial]:
    sampler._update_study()
    return sampler._study._study.trials


def test_observations_have_outcomes(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    for number in range(6):
        sampler.suggest(number)
    sampler.observe(0, Observation("finished", {5_000: 3.5, 20_000: 3.0}))
    sampler.observe(1, Observation("stopped", {5_000: 4.5, 10_000: 4.0}))
    sampler.observe(2, Observation("diverged", {5_000: 3.1}))
    sampler.observe(3, Observation("failed", {5_000: 3.1}))
    a, b, c, d, e, f = trials_of(sampler)
    assert (a.state, a.value) == (TrialState.COMPLETE, 3.0)
    assert (b.state, b.intermediate_values) == (TrialState.PRUNED, {5_000: 4.5, 10_000: 4.0})
    assert (c.state, c.intermediate_values) == (TrialState.PRUNED, {})
    assert d.state is TrialState.FAIL
    assert (e.state, f.state) == (TrialState.RUNNING, TrialState.RUNNING)
    sampler.observe(1, Observation("finished", {20_000: 2.0}))
    assert (trials_of(sampler)[1].state, trials_of(sampler)[1].value) == (TrialState.COMPLETE, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [SLOW_GP, *(name for name in LEARNING if name != "gp")])
def test_sampler_learns(tmp_path: Path, name: str) -> None:
    """Later suggestions lie nearer to the best learning rate than random ones."""

    def distance(method: str) -> float:
        count, last = (20, 8) if name == "gp" else (80, 15)
        draws = run(make(tmp_path, method), count)[-last:]
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


@pytest.mark.slow
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


def test_sampler_grid_visits_every_combination_once(tmp_path: Path) -> None:
    text = LISTED.replace("seed: 3", "seed: 3, try_first: [{λ: 0.5}]")
    sampler = make(tmp_path, "grid", text)
    assert sampler.num_configurations == 4 * 3 * (1 + 2) * 3
    draws = run(sampler, sampler.num_configurations)
    assert len({tuple(sorted(draw.items())) for draw in draws}) == sampler.num_configurations
    assert [draw["weight_decay"] for draw in draws[:2]] == [0.1, 0.5]
    # the first half is no corner of the space: it has about half of each value
    half = [draw["weight_decay"] for draw in draws[: sampler.num_configurations // 2]]
    assert all(7 <= half.count(value) <= 20 for value in (0.1, 0.2, 0.5, 1))
    assert sampler.suggest(sampler.num_configurations) == draws[0]  # and then again
    assert make(tmp_path, "tpe").num_configurations is None


def test_sampler_tries_named_points_first(tmp_path: Path) -> None:
    points = "[{α_max: 3e-3, batch_size: 8.0}, {γ: 0.9, optimizer: momentum}, {α_max: 1e-3}]"
    for name in ("tpe", "cmaes", "qmc"):
        text = SPACE.replace("seed: 3", f"seed: 3, try_first: {points}")
        draws = run(make(tmp_path, name, text), 5)
        defaults = draws[0]
        assert draws[1] == dict(defaults) | {"max_learning_rate": 3e-3, "batch_size": 8}
        assert draws[2] == dict(defaults) | {"optimizer": "momentum", "momentum": 0.9}
        assert draws[3] not in draws[:3]  # the third point is the defaults: the sampler's turn
        assert draws[4] not in draws[:4]


def test_sampler_leaves_out_the_defaults(tmp_path: Path) -> None:
    """With `defaults: off`, which YAML reads as false; not if they are the only point."""
    off = SPACE.replace("seed: 3", "seed: 3, defaults: off, try_first: [{α_max: 3e-3}]")
    full = run(make(tmp_path, "qmc", off.replace("defaults: off, ", "")), 2)
    assert run(make(tmp_path, "qmc", off), 1) == full[1:]
    raced = off.replace("defaults: off", "defaults: raced")
    assert run(make(tmp_path, "qmc", raced), 2) == full
    grid = LISTED.replace("seed: 3", "seed: 3, defaults: off")
    assert make(tmp_path, "grid", grid).num_configurations == 4 * 3 * (1 + 2) * 3


def test_sampler_tries_named_alternatives(tmp_path: Path) -> None:
    text = SPACE.replace(
        "{log: [1e-4, 1e-1]}",
        "[{log: [1e-4, 1e-3], when: {optimizer: adamw}}, "
        "{log: [1, 30], when: {optimizer: momentum}}]",
    ).replace("seed: 3", "seed: 3, try_first: [{α_max: 5, optimizer: momentum}]")
    draw = run(make(tmp_path, text=text), 2)[1]
    assert draw["max_learning_rate[2]"] == 5.0
    assert "max_learning_rate[1]" not in draw


def test_sampler_qmc_fills_the_space_evenly(tmp_path: Path) -> None:
    """Of 64 points, conditional parameters included, each eighth of a range has about eight."""
    places = space(tmp_path)
    by_label = {p.label: p for p in places.searched}

    def most_uneven(name: str) -> int:
        draws = [make(tmp_path, name).suggest(0)]
        draws = run(make(tmp_path, name), 65)[1:]
        counts = []
        for label in ("max_learning_rate", "min_learning_rate/max_learning_rate"):
            eighths = [int(8 * by_label[label].place_of(draw[label])) for draw in draws]
            counts += [abs(eighths.count(i) - 8) for i in range(8)]
        return max(counts)

    assert most_uneven("qmc") <= 1 < most_uneven("random")


@pytest.mark.slow
def test_sampler_with_several_objectives(tmp_path: Path) -> None:
    """NSGA-II and TPE come nearer to the front of two that pull apart than chance does."""
    text = SPACE.replace("sampler: %s", "sampler: %s, scheduler: none") + (
        "objective: [{metric: val_loss}, {metric: parameters}]\n"
    )

    def regret(name: str) -> float:
        """Rates from 1e-3 to 1e-2 are on the front; the warm share costs everybody."""
        total = 0.0
        sampler = make(tmp_path, name, text)
        for number in range(120):
            draw = sampler.suggest(number)
            rate = math.log10(float(draw["max_learning_rate"]))
            waste = float(draw["min_learning_rate/max_learning_rate"])
            values = abs(rate + 3) + waste, abs(rate + 2) + waste
            if number % 9 == 5:
                sampler.observe(number, Observation("diverged", {}))
            else:
                sampler.observe(number, Observation("finished", {BUDGET: values[0]}, values))
            total += sum(values) - 1 if number >= 80 else 0
        return total

    chance = regret("random")
    assert regret("nsga2") < 0.8 * chance
    assert regret("tpe") < 0.8 * chance


def test_sampler_makes_the_larger_better_where_it_is(tmp_path: Path) -> None:
    text = (
        "data: {source: python-docstrings, pairs: true}\nmodel: {n_encoder_layers: 1}\n"
        + SPACE.replace("sampler: %s", "sampler: %s, scheduler: none")
        + "objective: [{metric: val_loss}, {metric: bleu}]\n"
    )
    sampler = make(tmp_path, "nsga2", text)
    for number in range(3):
        sampler.suggest(number)
    sampler.observe(0, Observation("finished", {BUDGET: 3.0}, (3.0, 25.0)))
    sampler.observe(1, Observation("diverged", {}))
    sampler.observe(2, Observation("stopped", {REPORT: 2.0}))
    a, b, c = trials_of(sampler)
    assert a.values == [3.0, -25.0]
    assert b.values == [3.0, -25.0]  # the worst of all, which is the only one
    assert c.state is TrialState.FAIL


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "bohb", SLOW_GP])
def test_sampler_stays_away_from_where_trials_diverged(tmp_path: Path, name: str) -> None:
    """After ten divergences above a learning rate fewer suggestions lie above it.

    Compared with a search in which the same ten say nothing. All others are equally good but for
    noise, so that nothing else speaks for a rate.
    """
    spaces = space(tmp_path, "tpe, scheduler: bohb" if name == "bohb" else name)

    def share(state: Literal["diverged", "failed"], seed: int) -> float:
        search = spaces.search.model_copy(update={"seed": seed})
        a_space = spaces.model_copy(update={"search": search})
        sampler, rng = Sampler(a_space, REPORT, BUDGET), random.Random(seed)
        other = sampler  # a model for each of thirty trials costs the GP a minute
        if name == "gp":
            other = make(tmp_path, "random", SPACE.replace("seed: 3", f"seed: {seed}"))
        for number in range(30):
            rate = 10 ** (-4 + 3 * (number + 0.5) / 30)
            sampler.restore(number, {**other.suggest(number), "max_learning_rate": rate})
            finished = Observation("finished", {BUDGET: 4.0 + rng.random()})
            sampler.observe(number, Observation(state, {}) if rate > 0.01 else finished)
        rates = [float(sampler.suggest(number)["max_learning_rate"]) for number in range(30, 40)]
        return sum(rate > 0.01 for rate in rates) / 10

    seeds = range(2 if name == "gp" else 15)
    without = sum(share("failed", seed) for seed in seeds) / len(seeds)
    with_them = sum(share("diverged", seed) for seed in seeds) / len(seeds)
    assert without > 0.15
    # a third of BOHB's suggestions is random
    assert with_them < (0.8 if name == "bohb" else 0.6) * without, (with_them, without)


@pytest.mark.slow
def test_sampler_suggests_the_same_in_another_process(tmp_path: Path) -> None:
    """Nothing depends on how this process happens to hash texts."""
    names = ["tpe", "cmaes", "nsga2", "bohb", "qmc", "grid"]
    here = [list(play(make(tmp_path, name), events(24)).values()) for name in names]
    code = (
        "import json, sys; from pathlib import Path\n"
        "from tests.tuner.samplers import test_sampler as t\n"
        "print(json.dumps([list(t.play(t.make(Path(sys.argv[1]), name), t.events(24)).values())"
        " for name in sys.argv[2:]]))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path, *names],
            capture_output=True, text=True, check=True, env=environment,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert json.loads(done.stdout) == json.loads(json.dumps(here))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_sampler_with_little_to_search(tmp_path: Path, name: str) -> None:
    for rows in ("{λ: {log: [0.1, 1]}}", "{optimizer: {choice: [adamw, lion]}}", "{}"):
        text = f"hyperparameters: {rows}\nbudget: {{tokens: 18000}}\nsearch: {{sampler: %s}}\n"
        draws = run(
            make(tmp_path, name, text), 14, lambda draw: Observation("finished", {BUDGET: 3.0})
        )
        assert len(draws) == 14
        assert len({tuple(draw.items()) for draw in draws}) >= {"{}": 1}.get(rows, 2)


def test_sampler_ignores_what_it_never_suggested(tmp_path: Path) -> None:
    """Trials of an edited space may lie outside of it."""
    sampler = make(tmp_path)
    sampler.observe(7, Observation("finished", {BUDGET: 1.0}))
    draws = run(sampler, 3)
    assert draws == run(make(tmp_path), 3)
