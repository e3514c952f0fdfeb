from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from model.report import Report, Status
from model.spec import TrialSpec
from tuner.corpus_facts import CorpusFacts
from tuner.searcher import SAMPLERS, OptunaSearcher
from tuner.space import SearchSpace
from tuner.space_file import load_space

FACTS = CorpusFacts(300, 100_000, 10_000, "data", "tokenizer")
SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  α_min: {fraction_of: α_max, uniform: [0, 0.5]}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  B: {choice: [8, 16]}
budget: {tokens: 20000, reports: 4}
search: {trials: 30, sampler: %s, seed: 3}
"""


def space(tmp_path: Path, sampler: str = "tpe", text: str = SPACE) -> SearchSpace:
    file = tmp_path / "space.yaml"
    file.write_text(text.replace("%s", sampler), encoding="utf-8")
    return load_space(file)


def result(loss: float, tokens: int, status: Status) -> dict[str, Any]:
    report = Report("0", status, tokens // 512, tokens, loss, loss, 1.0, 0.1)
    return {**report.metrics(), "report": report}


def run(searcher: OptunaSearcher, count: int) -> list[TrialSpec]:
    """Ask and tell in turn, with a loss that prefers learning rates near 0.01."""
    specs = []
    for number in range(count):
        spec = TrialSpec.model_validate_json(searcher.suggest(str(number))["spec"])  # type: ignore[index]
        specs.append(spec)
        loss = 3 + abs(math.log(spec.hyperparameters.max_learning_rate / 0.01))
        searcher.on_trial_complete(str(number), result(loss, 20_000, Status.FINISHED))
    return specs


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_searcher_begins_with_the_defaults_and_repeats_itself(tmp_path: Path, sampler: str) -> None:
    first, second = (run(OptunaSearcher(space(tmp_path, sampler), FACTS), 15) for _ in range(2))
    assert first == second
    h = first[0].hyperparameters
    assert (h.max_learning_rate, h.min_learning_rate, h.batch_size) == (1e-3, 1e-4, 16)
    assert h.optimizer == "adamw"
    assert len({spec.hash for spec in first}) == 15


def test_searcher_draws_conditionals_only_where_they_hold(tmp_path: Path) -> None:
    for spec in run(OptunaSearcher(space(tmp_path), FACTS), 30):
        h = spec.hyperparameters
        assert h.min_learning_rate <= 0.5 * h.max_learning_rate
        if h.optimizer == "adamw":
            assert h.momentum == 0.9  # untouched


def test_searcher_draws_one_alternative(tmp_path: Path) -> None:
    text = SPACE.replace(
        "{log: [1e-4, 1e-1]}",
        "[{log: [1e-4, 1e-3], when: {optimizer: adamw}}, "
        "{log: [1, 30], when: {optimizer: momentum}}]",
    )
    specs = run(OptunaSearcher(space(tmp_path, text=text), FACTS), 30)
    rates: dict[str, list[float]] = {"adamw": [], "momentum": []}
    for spec in specs:
        rates[spec.hyperparameters.optimizer].append(spec.hyperparameters.max_learning_rate)
    assert all(1e-4 <= rate <= 1e-3 for rate in rates["adamw"])
    assert all(1 <= rate <= 30 for rate in rates["momentum"])
    assert len(set(rates["adamw"])) > 3 < len(set(rates["momentum"]))


def test_searcher_tpe_learns(tmp_path: Path) -> None:
    """Later suggestions lie nearer to the best learning rate than random ones."""

    def distance(sampler: str) -> float:
        specs = run(OptunaSearcher(space(tmp_path, sampler), FACTS), 60)[30:]
        rates = [spec.hyperparameters.max_learning_rate for spec in specs]
        return sum(abs(math.log(rate / 0.01)) for rate in rates)

    assert distance("tpe") < 0.7 * distance("random")


def test_searcher_tells_how_trials_ended(tmp_path: Path) -> None:
    searcher = OptunaSearcher(space(tmp_path), FACTS)
    for trial_id in "abcde":
        searcher.suggest(trial_id)
    searcher.on_trial_result("a", result(3.5, 5_000, Status.TRAINING))
    searcher.on_trial_complete("a", result(3.0, 20_000, Status.FINISHED))
    searcher.on_trial_result("b", result(4.5, 5_000, Status.TRAINING))
    searcher.on_trial_complete("b", result(4.0, 10_000, Status.TRAINING))
    searcher.on_trial_complete("c", result(math.nan, 5_000, Status.DIVERGED))
    searcher.on_trial_complete("d", None, error=True)
    searcher.on_trial_complete("unknown", None)
    a, b, c, d, e = searcher._study.trials
    assert (a.state, a.value, a.intermediate_values[5_000]) == (TrialState.COMPLETE, 3.0, 3.5)
    assert (b.state, b.intermediate_values) == (TrialState.PRUNED, {5_000: 4.5, 10_000: 4.0})
    assert (c.state, c.intermediate_values) == (TrialState.PRUNED, {})
    assert d.state is TrialState.FAIL
    assert e.state is TrialState.RUNNING


def test_searcher_visits_every_grid_point(tmp_path: Path) -> None:
    text = SPACE.replace("{choice: [8, 16]}", "{grid: [8, 16, 32]}").replace(
        "{choice: [adamw, momentum]}", "{grid: [adamw, momentum]}"
    )
    specs = run(OptunaSearcher(space(tmp_path, text=text), FACTS), 12)
    points = [(s.hyperparameters.batch_size, s.hyperparameters.optimizer) for s in specs]
    assert points[0] == (16, "adamw")
    assert len(set(points[:6])) == 6
    assert points[:6] == points[6:]
