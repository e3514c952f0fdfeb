from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.samplers.observation import Observation
from tuner.samplers.priors import prior_draw, prior_share
from tuner.samplers.sampler import Sampler
from tuner.space.parameter import Choice, Parameter, Prior, Range, Value
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]%s}
  λ: {log: [1e-3, 1]%s}
  p_drop: {uniform: [0, 0.5]%s}
  β1: {uniform: [0.8, 0.99]}
budget: {tokens: 20000, reports: 4}
search: {sampler: tpe, scheduler: none}
"""
RIGHT = ("8.9e-3", "1.1e-2", "0.15")  # near the best, not at it
WRONG = ("2e-4", "0.5", "0.45")
# weight of each parameter in the loss, and the place of its best value
BOWL = {
    "max_learning_rate": (8, 0.7), "weight_decay": (3, 0.3), "dropout": (2, 0.25),
    "beta1": (1, 0.5),
}  # fmt: skip


def load(tmp_path: Path, centres: tuple[str, ...], confidence: str = "medium") -> SearchSpace:
    priors = [f", prior: {{centre: {c}, confidence: {confidence}}}" for c in centres]
    file = tmp_path / "space.yaml"
    file.write_text(SPACE % tuple(priors or ["", "", ""]), encoding="utf-8")
    return load_space(file)


def losses(space: SearchSpace, seed: int, trials: int) -> list[float]:
    """Loss of each trial but the defaults."""
    search = space.search.model_copy(update={"seed": seed})
    sampler = Sampler(space.model_copy(update={"search": search}), 5_000, 20_000)
    parameters, noise = {p.label: p for p in space.searched}, random.Random(seed)
    found = []
    for number in range(trials):
        draw = sampler.suggest(number)
        places = {label: parameters[label].place_of(value) for label, value in draw.items()}
        loss = sum(w * (places[label] - best) ** 2 for label, (w, best) in BOWL.items())
        found.append(loss + 0.01 * noise.random())
        sampler.observe(number, Observation("finished", {20_000: found[-1]}))
    return found[1:]


@pytest.mark.slow
def test_right_prior_helps_and_wrong_prior_costs_little(tmp_path: Path) -> None:
    """Median regret over 15 searches, after 8 trials and after 40."""

    def regret(space: SearchSpace) -> tuple[float, float]:
        runs = [losses(space, seed, 41) for seed in range(15)]
        return (
            statistics.median(min(run[:8]) for run in runs),
            statistics.median(min(run) for run in runs),
        )

    early, late = regret(load(tmp_path, ()))
    right_early, right_late = regret(load(tmp_path, RIGHT))
    _, wrong_late = regret(load(tmp_path, WRONG))
    assert right_early < 0.4 * early
    assert right_late < 1.3 * late
    assert wrong_late < 1.7 * late


def test_prior_is_tried_right_after_the_defaults(tmp_path: Path) -> None:
    sampler = Sampler(load(tmp_path, RIGHT, "high"), 5_000, 20_000)
    defaults, centre, other = (sampler.suggest(number) for number in range(3))
    assert defaults["max_learning_rate"] == 1e-3
    expected: dict[str, Value] = {"max_learning_rate": 8.9e-3, "weight_decay": 1.1e-2}
    assert centre == {**defaults, **expected, "dropout": 0.15}
    assert other not in (defaults, centre)


@pytest.mark.parametrize("sampler", ["random", "qmc", "cmaes", "gp", "nsga2"])
def test_prior_pulls_every_sampler(tmp_path: Path, sampler: str) -> None:
    """The first ten suggestions lie nearer to the centre."""

    def distance(centres: tuple[str, ...]) -> float:
        space = load(tmp_path, centres, "high")
        search = space.search.model_copy(update={"sampler": sampler})
        suggested = Sampler(space.model_copy(update={"search": search}), 5_000, 20_000)
        (rate,) = (p for p in space.searched if p.name == "max_learning_rate")
        draws = [suggested.suggest(number) for number in range(12)][2:]
        return sum(abs(rate.place_of(draw[rate.label]) - 0.65) for draw in draws)

    assert distance(RIGHT) < 0.7 * distance(())


def test_prior_fades() -> None:
    rate = Parameter(
        name="max_learning_rate",
        distribution=Range(kind="log", low=1e-4, high=1e-1),
        prior=Prior(centre=1e-3, confidence=0.75),
    )
    few, many = (
        [draw for number in range(2000) if (draw := prior_draw([rate], 0, number, count))]
        for count in (0, 90)
    )
    assert len(few) == pytest.approx(2000 * prior_share(0.75, 0), rel=0.05)
    assert len(many) == pytest.approx(len(few) / 10, rel=0.2)

    def spread(draws: list[dict[str, Value]]) -> float:
        return statistics.pstdev(rate.place_of(draw[rate.label]) for draw in draws)

    assert spread(few) == pytest.approx(0.3 * 0.25, rel=0.1)
    assert spread(many) > 2.5 * spread(few)


def test_prior_of_a_choice() -> None:
    batch = Parameter(
        name="batch_size",
        distribution=Choice(kind="choice", values=(8, 16, 32, 64)),
        prior=Prior(centre=32, confidence=0.5),
    )
    drawn = [d["batch_size"] for n in range(4000) if (d := prior_draw([batch], 1, n, 0))]
    shares = [drawn.count(value) / len(drawn) for value in (8, 16, 32, 64)]
    assert shares == pytest.approx([1 / 8, 1 / 8, 5 / 8, 1 / 8], abs=0.03)


RANGES = st.one_of(
    st.builds(Range, kind=st.sampled_from(["uniform", "int"]), low=st.just(-3), high=st.just(11)),
    st.builds(Range, kind=st.sampled_from(["log", "int_log"]), low=st.just(1), high=st.just(500)),
    st.builds(Choice, kind=st.just("choice"), values=st.just(("a", 1, 2.5, True))),
)


@given(RANGES, st.floats(0, 1))
def test_place_inverts_value(distribution: Range | Choice, place: float) -> None:
    parameter = Parameter(name="beta1", distribution=distribution)
    value = parameter.at(place)
    assert parameter.contains(value)
    there = parameter.place_of(value)
    assert parameter.at(there) == (pytest.approx(value) if isinstance(value, float) else value)
    if isinstance(distribution, Range) and not distribution.is_whole:
        assert there == pytest.approx(place, abs=1e-9)


def test_whole_numbers_are_drawn_evenly() -> None:
    parameter = Parameter(name="beta1", distribution=Range(kind="int", low=1, high=4))
    values = [parameter.at((i + 0.5) / 1000) for i in range(1000)]
    assert [values.count(n) for n in (1, 2, 3, 4)] == [250] * 4
    assert (parameter.at(0.0), parameter.at(1.0)) == (1, 4)
