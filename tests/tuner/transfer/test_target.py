"""The space of a target, and the sizes and trials of a sweep."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from model.spec.trial import TrialSpec
from tests.tuner.results.random_trials import FACTS
from tuner.space.settings import Proxy
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.transfer import sweep
from tuner.transfer.sweep import Trainer, Winner, measure, sizes_of
from tuner.transfer.target import read_factor, target_space, write_factor

SPACE = """
data: {source: python-stdlib}
tokenizer: {vocab_size: 300}
model:
  {d_model: 64, n_layers: 4, n_heads: 16, context_length: 16, activation: {choice: [gelu, relu]}}
proxy: {width: 1/8, depth: 1/2, tokens: 1/4}
hyperparameters:
  optimizer: {choice: [adamw, muon]}
  α_max: [{log: [1e-4, 3e-2], when: {optimizer: adamw}}, {log: [1e-3, 1], when: {optimizer: muon}}]
  α_min: {fraction_of: α_max, log: [0.01, 0.5]}
  λ: {log: [1e-3, 1]}
  B: {choice: [4, 8]}
budget: {tokens: 20_000, reports: 5}
search: {trials: 24, scheduler: asha, seed: 7}
"""
DRAWN = {
    "optimizer": "muon", "max_learning_rate[2]": 0.02, "activation": "relu",
    "min_learning_rate/max_learning_rate": 0.1, "weight_decay": 0.3, "batch_size": 8,
}  # fmt: skip


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return load_space(tmp_path / "space.yaml")


@pytest.fixture
def winner(space: SearchSpace) -> Winner:
    return Winner(space, DRAWN, FACTS)


def test_target_of_a_comparison_has_no_arms(tmp_path: Path) -> None:
    text = SPACE + "compare: {by: optimizer}\n"
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    assert target_space(load_space(tmp_path / "space.yaml"), DRAWN).compare is None


def test_target_has_the_values_of_the_winner_and_no_factors(space: SearchSpace) -> None:
    assert space.searched  # cached before the target is made
    proxy, target = space.spec(DRAWN, FACTS, 7), target_space(space, DRAWN)
    assert target.searched == []
    assert (target.search.trials, target.search.seed, target.confirm.top) == (1, 7, 0)
    spec = target.spec({}, FACTS, 7)
    assert spec.architecture == proxy.architecture.target_architecture
    assert spec.architecture.target is None
    assert (spec.architecture.d_model, spec.architecture.activation) == (64, "relu")
    drawn = ("optimizer", "max_learning_rate", "min_learning_rate", "weight_decay", "batch_size")
    h = spec.hyperparameters
    assert [getattr(h, name) for name in drawn] == ["muon", 0.02, 0.002, 0.3, 8]
    assert spec.budget_tokens == pytest.approx(20_000, rel=0.01)
    assert proxy.budget_tokens == pytest.approx(5_000, rel=0.03)


def test_rate_factor_multiplies_the_rates_only(space: SearchSpace) -> None:
    h, other = (
        target_space(space, DRAWN, factor).spec({}, FACTS, 7).hyperparameters
        for factor in (1.0, 0.5)
    )
    assert other.max_learning_rate == h.max_learning_rate / 2
    assert other.min_learning_rate == pytest.approx(h.min_learning_rate / 2)
    rates = {"max_learning_rate", "min_learning_rate"}
    assert other.model_dump(exclude=rates) == h.model_dump(exclude=rates)


@pytest.mark.parametrize("text", ["", "[]", '{"factor": "x"}', '{"factor": -1}', '{"factor": NaN}'])
def test_factor_of_a_verification_is_remembered(tmp_path: Path, text: str) -> None:
    assert read_factor(tmp_path) is None
    write_factor(tmp_path, 0.287)
    assert read_factor(tmp_path) == 0.287
    (tmp_path / "transfer.json").write_text(text, encoding="utf-8")
    assert read_factor(tmp_path) is None


def test_sizes_lie_on_the_way_to_the_target(winner: Winner) -> None:
    sizes = sizes_of(winner)
    assert [size.text for size in sizes] == [
        "d_model 8, 2 layers", "d_model 16, 4 layers", "d_model 32, 4 layers",
    ]  # fmt: skip
    assert [size.octaves for size in sizes] == [0, 1, 2]
    tokens = [size.shares.tokens for size in sizes]
    assert tokens == pytest.approx([1 / 4, (1 / 4) ** (2 / 3), (1 / 4) ** (1 / 3)])
    with pytest.raises(ValueError, match="only 2 sizes from the proxy to the target"):
        sizes_of(
            replace(winner, space=winner.space.model_copy(update={"proxy": Proxy(width=1 / 2)}))
        )


def test_trials_differ_in_rate_and_factors(winner: Winner) -> None:
    size = sizes_of(winner)[1]
    scaled, standard = (winner.spec(kind, size, 1.0, 3) for kind in sweep.KINDS)
    assert scaled.hyperparameters.max_learning_rate == 0.04
    assert scaled.hyperparameters.min_learning_rate == pytest.approx(0.004)
    assert scaled.architecture.target is not None
    assert standard.architecture.target is None
    assert standard.hyperparameters == scaled.hyperparameters
    assert standard.seed == scaled.seed == 3


class Formula(Trainer):
    """Losses of a formula: a minimum that lies elsewhere for each kind and size."""

    def losses(self, specs: list[TrialSpec], text: str) -> list[float]:  # type: ignore[override]
        self.trained = [*getattr(self, "trained", []), *specs]
        return [self._loss(spec) for spec in specs]

    def _loss(self, spec: TrialSpec) -> float:
        octaves = math.log2(spec.hyperparameters.max_learning_rate / 0.02)
        at = 0.2 if spec.architecture.target else 5 - math.log2(spec.architecture.d_model)
        return 3 + 0.1 * (octaves - at) ** 2 + 0.01 * spec.seed


def test_sweeps_grow_until_the_minimum_lies_inside(winner: Winner, tmp_path: Path) -> None:
    trainer = Formula(tmp_path, tmp_path / "losses", 1)
    sizes = sizes_of(winner)
    sweeps = measure(winner, sizes, trainer)
    assert [(s.kind, s.size.text) for s in sweeps] == [
        (kind, size.text) for kind in sweep.KINDS for size in sizes
    ]  # fmt: skip
    assert [sorted(s.losses) for s in sweeps[:3]] == [[-2, -1, 0, 1, 2]] * 3
    for each, middle in zip(sweeps[3:], (2, 1, 0), strict=True):
        means = {x: sum(losses) for x, losses in each.losses.items()}
        assert min(means, key=lambda x: means[x]) == middle
        assert min(means) < middle < max(means)
        assert all(len(losses) == 2 for losses in each.losses.values())


def test_losses_are_remembered(
    winner: Winner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def train(job: tuple[str, str]) -> float:
        calls.append(job[0])
        return math.inf if len(calls) == 2 else 3.0

    monkeypatch.setattr(sweep, "_train", train)
    size, file = sizes_of(winner)[0], tmp_path / "transfer.jsonl"
    specs = [winner.spec("scaled", size, x, 0) for x in (0, 1)]
    assert Trainer(tmp_path, file, 1).losses(specs, "") == [3.0, math.inf]
    with file.open("a", encoding="utf-8") as cut_off:
        cut_off.write('{"hash": "')
    assert Trainer(tmp_path, file, 1).losses(specs, "") == [3.0, math.inf]
    assert len(calls) == 2
    assert json.loads(file.read_text().splitlines()[1])["val_loss"] is None
