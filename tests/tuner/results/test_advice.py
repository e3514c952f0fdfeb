"""Recommendations for simulated searches with known optima."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tuner.results.random_trials import HEAD, SPACE, Loss, Made, load
from tuner.results.importance import _evaluate, importance
from tuner.space.objective import Objective
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

RATE = "max_learning_rate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spaces")


def bowl(optimum: float, label: str = RATE) -> Loss:
    return lambda d: 3 + 0.3 * (math.log10(float(d[label])) - math.log10(optimum)) ** 2


def with_text(advice: Sequence[str], text: str) -> list[str]:
    return [sentence for sentence in advice if text in sentence]


# edges --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("optimum", "end"), [(1.0, "upper"), (1e-6, "lower")])
def test_optimum_outside_of_the_range_moves_it_there(
    folder: Path, optimum: float, end: str, seed: int
) -> None:
    made = Made(load(folder), bowl(optimum), trials=60, seed=seed)
    (edge,) = with_text(made.advise(), " lie at ")
    assert re.match(rf"α_max: .*best \d+ trials lie at the {end} end of 1e-4 … 0.03; try", edge)
    low, high = map(float, re.findall(r"log: \[(.*), (.*)\]", edge)[0])
    assert (high > 0.03) if end == "upper" else (low < 1e-4)
    assert high / low == pytest.approx(300, rel=0.3)
    assert low < 0.03
    assert high > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_optimum_inside_of_the_range_is_left_alone(folder: Path, seed: int) -> None:
    made = Made(load(folder), bowl(2e-3), trials=60, seed=seed)
    assert with_text(made.advise(), " lie at ") == []


@pytest.mark.slow
def test_single_good_trial_at_the_edge_gives_no_advice(folder: Path) -> None:
    fixed = [{RATE: 0.0299}, *({RATE: 10 ** -(2.2 + i / 20)} for i in range(23))]
    made = Made(load(folder), bowl(1.0), fixed=fixed)
    assert with_text(made.advise(), " lie at ") == []
    fixed = [*({RATE: 0.0299 - i / 1e4} for i in range(6)), *fixed[6:]]
    assert len(with_text(Made(load(folder), bowl(1.0), fixed=fixed).advise(), " lie at ")) == 1


@pytest.mark.slow
def test_best_of_all_is_among_the_crowd(folder: Path) -> None:
    """Four of the best five lie at the end; but the very best lies in the middle."""
    fixed = [{RATE: 2e-3}, *({RATE: 0.0299 - i / 1e4} for i in range(4))]
    fixed += [{RATE: 1e-3 + i / 1e5} for i in range(19)]
    loss: Loss = lambda d: 1.0 if d[RATE] == 2e-3 else bowl(1.0)(d)  # noqa: E731 - a rule's line
    assert with_text(Made(load(folder), loss, fixed=fixed).advise(), "α_max: ") == []
    last = Made(load(folder), bowl(1.0), fixed=fixed)
    assert with_text(last.advise(), "α_max: the best 4 trials lie at the upper end")


@pytest.mark.slow
def test_range_is_not_widened_to_where_trials_diverge(folder: Path) -> None:
    fixed = [{RATE: 0.0299 - i / 1e5} for i in range(6)]  # these diverge
    fixed += [{RATE: 0.022 - i / 1e4} for i in range(6)]  # the best: above 0.017 is the upper tenth
    fixed += [{RATE: 1e-3 + i / 1e5} for i in range(12)]
    loss: Loss = lambda d: math.nan if float(d[RATE]) > 0.023 else bowl(1.0)(d)  # noqa: E731
    advice = Made(load(folder), loss, fixed=fixed).advise()
    assert with_text(advice, "6 of the 6 with α_max above ")
    assert with_text(advice, " lie at ") == []
    assert with_text(Made(load(folder), bowl(1.0), fixed=fixed).advise(), " lie at ")


@pytest.mark.slow
def test_stopped_trials_are_not_among_the_best(folder: Path) -> None:
    """Early losses of stopped trials, however low, say nothing about the full budget."""
    fixed = [{RATE: 0.029 if i < 8 else 1e-2 / i} for i in range(24)]
    space = load(folder)
    full = Made(space, bowl(1.0), fixed=fixed, trials=24)
    cut = Made(space, bowl(1.0), fixed=fixed, trials=24, reports=lambda i: 1 if i < 8 else 99)
    assert with_text(full.advise(), "α_max: ")
    assert with_text(cut.advise(), "α_max: the best") == []


def test_edge_of_a_choice_adds_a_value(folder: Path) -> None:
    made = Made(load(folder), lambda d: 4 - 0.05 * int(d["batch_size"]), trials=40)
    (edge,) = with_text(made.advise(), " lie at ")
    assert "B: the best 10 trials lie at 32, the largest of 8, 16, 32" in edge
    assert edge.endswith("try B: {choice: [8, 16, 32, 64]}.")


@pytest.mark.slow
def test_edge_that_cannot_move_proposes_a_constant(folder: Path) -> None:
    space = load(folder, "hyperparameters: {p_drop: {uniform: [0, 0.3]}, α_max: {log: [1e-3, 1]}}")
    made = Made(space, lambda d: 3 + float(d["dropout"]), trials=80)
    (edge,) = with_text(made.advise(), "p_drop: ")
    assert edge.endswith("a constant would do: p_drop: 0.")


@pytest.mark.slow
def test_parameter_that_the_best_trial_lacks_is_not_moved(folder: Path) -> None:
    space = load(
        folder,
        """hyperparameters:
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.9], when: {optimizer: momentum}}
""",
    )
    high = Made(space, lambda d: 3 - float(d.get("momentum", 0)), trials=120)
    (edge,) = with_text(high.advise(), " lie at ")
    assert edge.startswith("γ (optimizer: momentum): the best")
    assert edge.endswith("try γ: {uniform: [0.63, 0.97], when: {optimizer: momentum}}.")
    low = Made(space, lambda d: 3 + 1 - float(d.get("momentum", 1.5)), trials=120)
    assert with_text(low.advise(), " lie at ") == []


# divergence ---------------------------------------------------------------------------------


def test_divergence_finds_the_learning_rate_it_starts_at(folder: Path) -> None:
    loss = bowl(2e-3)
    made = Made(load(folder), lambda d: math.nan if float(d[RATE]) > 8e-3 else loss(d), trials=40)
    rates = sorted(float(d[RATE]) for d in made.draws.values())
    bad = sum(rate > 8e-3 for rate in rates)
    advice = made.advise()
    (sentence,) = with_text(advice, "diverged")
    assert sentence.startswith(f"{bad} of 40 trials diverged: {bad} of the {bad} with α_max above ")
    limit = float(re.findall(r"above (\S+),", sentence)[0])
    assert max(r for r in rates if r <= 8e-3) <= limit < min(r for r in rates if r > 8e-3)
    assert f"none of the other {40 - bad}; try α_max: {{log: [1e-4, " in sentence
    assert with_text(advice, " lie at ") == []


def test_divergence_by_another_parameter_names_it(folder: Path) -> None:
    made = Made(load(folder), lambda d: math.nan if float(d["beta1"]) < 0.84 else 3.0, trials=40)
    (sentence,) = with_text(made.advise(), "diverged")
    assert " with β1 below 0.8" in sentence
    assert "try β1: {uniform: [0.8" in sentence


def test_divergence_by_name_leaves_it_out(folder: Path) -> None:
    space = load(
        folder, "hyperparameters: {optimizer: {choice: [adamw, sgd, lion]}, λ: {log: [0.01, 1]}}"
    )
    made = Made(space, lambda d: math.nan if d["optimizer"] == "sgd" else 3.0, trials=24)
    (sentence,) = with_text(made.advise(), "diverged")
    assert re.search(r"(\d+) of the \1 with optimizer sgd, none of the other", sentence)
    assert sentence.endswith("leave it out or lower its learning rate.")


def test_divergence_without_a_cause_names_none(folder: Path) -> None:
    bad = iter(i % 6 == 0 for i in range(24))
    made = Made(load(folder), lambda _: math.nan if next(bad) else 3.0)
    (sentence,) = with_text(made.advise(), "diverged")
    assert sentence.startswith("4 of 24 trials diverged, at no particular value")


def test_divergence_leaves_out_trials_that_were_stopped_before(folder: Path) -> None:
    """Every second trial ends at its first report, where none has diverged yet."""
    space = load(folder)
    loss: Loss = lambda d: math.nan if float(d[RATE]) > 8e-3 else 3.0  # noqa: E731 - a line's rule
    made = Made(space, loss, trials=60, reports=lambda i: 1 if i % 2 else 99)
    (sentence,) = with_text(made.advise(), "diverged")
    bad = sum(float(d[RATE]) > 8e-3 for i, d in made.draws.items() if i % 2 == 0)
    assert f"{bad} of the {bad} with α_max above " in sentence
    assert (
        f"none of the other {30 - bad} (30 were stopped too early to tell); try α_max" in sentence
    )


def test_divergence_of_one_or_of_all(folder: Path) -> None:
    space = load(folder)
    one = Made(space, lambda d: math.nan if d[RATE] == 0.03 else 3.0, fixed=[{RATE: 0.03}])
    assert "1 of 24 trials diverged, with α_max 0.03." in one.advise()
    every = Made(space, lambda _: math.nan, trials=5).advise()
    assert every[0].startswith("5 of 5 trials diverged: α_max was ")
    assert "try α_max: {log: [1e-5, 3e-3]}" in every[0]


def falling(values: Sequence[float]) -> Loss:
    rest = iter(values)
    return lambda _: next(rest)


# importance ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("label", [RATE, "weight_decay"])
def test_importance_finds_the_one_parameter_that_matters(folder: Path, label: str) -> None:
    made = Made(load(folder), bowl(1e-2, label))
    (sentence,) = with_text(made.advise(), "Share of the gain")
    symbol = {"max_learning_rate": "α_max", "weight_decay": "λ"}[label]
    share = re.findall(rf"tokens: {symbol} (\d+) ± (\d+) %", sentence)
    assert int(share[0][0]) > 70
    assert "over 24 trials at 20,000 tokens" in sentence
    assert "a constant would do for " in sentence


def test_importance_names_the_budget_as_it_was_given(folder: Path) -> None:
    text = SPACE + "budget: {tokens: 20000, reports: 9}\n"  # a report is due each 2,223 tokens
    (folder / "nine.yaml").write_text(HEAD.replace("budget:", "#") + text, encoding="utf-8")
    made = Made(load_space(folder / "nine.yaml"), bowl(1e-2))
    assert "at 20,000 tokens" in with_text(made.advise(), "Share of the gain")[0]


@pytest.mark.slow
def test_importance_compares_equal_budgets_only(folder: Path) -> None:
    """Most trials stop at the first report: later losses are lower whatever the draw."""
    made = Made(load(folder), bowl(1e-2), reports=lambda i: 99 if i % 4 == 0 else 1)
    (sentence,) = with_text(made.advise(), "Share of the gain")
    assert "over 24 trials at 4,000 tokens: α_max" in sentence


def test_importance_does_not_wait_for_the_shortest_trial(folder: Path) -> None:
    made = Made(load(folder), bowl(1e-2), reports=lambda i: 1 if i % 8 == 0 else 99)
    (sentence,) = with_text(made.advise(), "Share of the gain")
    assert "over 21 trials at 20,000 tokens: α_max" in sentence


def test_importance_counts_a_diverged_trial_as_bad(folder: Path) -> None:
    made = Made(
        load(folder), lambda d: math.nan if float(d[RATE]) > 3e-3 else 3.0 + float(d["beta1"]) / 9
    )
    (sentence,) = with_text(made.advise(), "Share of the gain")
    assert "tokens: α_max " in sentence


@pytest.mark.slow
def test_importance_gives_no_advice_without_clear_parameter(folder: Path) -> None:
    space = load(folder)
    assert with_text(Made(space, lambda _: 3.0).advise(), "Share of the gain") == []
    noise = random.Random(1).random
    sentences = [
        with_text(Made(space, lambda _: noise(), seed=s).advise(), "Share of") for s in range(6)
    ]
    assert sum(map(bool, sentences)) <= 2  # 5 of 100 were measured


@pytest.mark.slow
def test_importance_is_the_same_in_any_unit(folder: Path) -> None:
    """Perplexities reach 1e304, whose squares are beyond a double."""
    space = load(folder)
    draws = list(Made(space, bowl(1e-2)).draws.values())
    plain, huge, tiny = (
        importance(space, [(d, scale * bowl(1e-2)(d)) for d in draws])
        for scale in (1.0, 2.0**1000, 2.0**-600)
    )
    assert plain[0].shares[0].parameter.name == RATE
    assert plain == huge == tiny


@pytest.mark.slow
def test_importance_is_computed_once_for_equal_trials(folder: Path) -> None:
    """The recommendations and the report of a search ask for the same fANOVA."""
    first, second = (Made(load(folder), bowl(1e-2)) for _ in range(2))
    _evaluate.cache_clear()
    assert first.advise() == second.advise()
    assert (_evaluate.cache_info().misses, _evaluate.cache_info().hits) == (1, 1)
    Made(load(folder), bowl(1e-2), seed=1).advise()
    assert _evaluate.cache_info().misses == 2


def test_importance_needs_two_trials_for_each_parameter(folder: Path) -> None:
    space = load(folder)
    assert with_text(Made(space, bowl(1e-3), trials=14).advise(), "Share of the gain")
    assert with_text(Made(space, bowl(1e-3), trials=13).advise(), "Share of the gain") == []


def test_importance_of_a_conditional_parameter_counts_its_own_trials(folder: Path) -> None:
    space = load(
        folder,
        """hyperparameters:
  optimizer: {choice: [adamw, momentum]}
  λ: {log: [5e-3, 1.0]}
  γ: {uniform: [0.5, 0.9], when: {optimizer: momentum}}
""",
    )
    made = Made(space, lambda d: 3 + 2 * abs(float(d.get("momentum", 0.2)) - 0.7), trials=40)
    (sentence,) = with_text(made.advise(), "Share of the gain")
    inside = sum("momentum" in d for d in made.draws.values())
    assert "tokens: optimizer " in sentence
    assert f"where it is drawn ({inside} trials), γ (optimizer: momentum) " in sentence


# number of trials, form ---------------------------------------------------------------------


@pytest.mark.slow
def test_too_few_trials_for_the_parameters_are_reported(folder: Path) -> None:
    space = load(folder)
    (few,) = with_text(Made(space, bowl(2e-3), trials=8).advise(), "are few for")
    assert few.startswith("8 trials are few for 7 searched parameters")
    assert "the learning rate alone" in few
    assert "β1" in with_text(Made(space, bowl(2e-3), trials=15).advise(), "are few for")[0]
    assert with_text(Made(space, bowl(2e-3), trials=21).advise(), "are few for") == []


@pytest.mark.slow
def test_advice_is_short_and_always_the_same(folder: Path) -> None:
    made = Made(load(folder), bowl(1.0), trials=60)
    first = made.advise()
    _evaluate.cache_clear()
    assert made.advise() == first
    assert len(made.advise()) <= 6


@pytest.mark.slow
def test_maximized_metric_inverts_the_advice(folder: Path) -> None:
    """Sparsity is set by hand: the reports of made-up trials have none."""
    space = load(folder, SPACE + "  s_final: 0.5\nobjective: {metric: sparsity}\n")
    made = Made(space, bowl(1.0), trials=60)
    for row in made.rows:
        row.reports = [replace(r, sparsity=r.val_loss) for r in row.reports]
    (edge,) = with_text(made.advise(), " lie at ")
    assert "at the lower end" in edge


@pytest.mark.slow
def test_several_objectives_have_no_best_to_advise_on(folder: Path) -> None:
    made = Made(load(folder), lambda d: math.nan if float(d[RATE]) > 8e-3 else bowl(1e-6)(d), 60)
    more = (Objective(metric="train_loss"),)
    fields = {name: getattr(made.space, name) for name in SearchSpace.model_fields}
    made.space = SearchSpace(**fields | {"further_objectives": more})
    (sentence,) = made.advise()
    assert "trials diverged" in sentence


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "seconds"), [(24, 1.0), (1000, 3.0)])
def test_advice_takes_little_time(folder: Path, trials: int, seconds: float) -> None:
    loss = bowl(1.0)
    made = Made(load(folder), lambda d: math.nan if float(d[RATE]) > 8e-3 else loss(d), trials)
    made.advise()  # imports
    _evaluate.cache_clear()
    start = time.process_time()
    assert made.advise()
    assert time.process_time() - start < seconds


ODD = st.sampled_from([3.0, 3.0, 2.5, 3.0 + 1e-15, 1e304, math.nan, math.inf])
SPACES = [
    SPACE,
    "hyperparameters: {α_max: 0.01}",
    "hyperparameters: {α_max: {log: [1e-4, 30]}, B: {grid: [8, 16]}, p_drop: {choice: [0, 0.1]}}",
    """hyperparameters:
  optimizer: {choice: [adamw, momentum, lion]}
  schedule: {choice: [cosine, constant, noam]}
  α: {log: [1e-4, 1], when: {schedule: constant}}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  τ: {choice: [off, 1.0]}
  T_warmup: {int: [0, 3]}
""",
]


@pytest.mark.slow
@given(st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_advice_never_raises(folder: Path, data: st.DataObject) -> None:
    space = load(folder, data.draw(st.sampled_from(SPACES)))
    trials = data.draw(st.sampled_from([0, 1, 2, 3, 7, 12]))
    losses = data.draw(st.lists(ODD, min_size=trials, max_size=trials))
    reports = data.draw(st.lists(st.sampled_from([0, 1, 2, 99]), min_size=trials, max_size=trials))
    made = Made(space, falling(losses), trials, reports=lambda i: reports[i])
    if data.draw(st.booleans()):
        for row in made.rows:
            row.draw = {}
    advice = made.advise()
    assert all(sentence.endswith(".") for sentence in advice)
    assert len(advice) <= 6
    if trials == 0:
        assert advice == []
