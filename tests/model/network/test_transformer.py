"""The language model: names, shapes, initial weights, and its forward pass in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from model.corpus.dataset import Batch
from model.network.dropout import Dropout, SlotMasks
from model.network.losses import cross_entropy
from model.network.transformer import LanguageModel, TransformerLM, initial_weight
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.parameter_names import is_decayed
from model.stack.stack import Stack
from tests.model.network.test_layers import assert_near, block_one, rmsnorm_one

SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "context_length": 7,
    "d_model": 12,
    "num_layers": 2,
    "num_heads": 2,
    "d_ff": 32,
    "rope_theta": 50.0,
}


def architecture() -> Architecture:
    return Architecture(
        vocab_size=260, context_length=7, d_model=12, n_layers=2, n_heads=2, d_ff=32,
        rope_theta=50.0,
    )  # fmt: skip


def ids(k: int, batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(260, (k, batch, length), generator=torch.Generator().manual_seed(1))


def logits_one(w: dict[str, Tensor], tokens: Tensor, theta: float | None = 50.0) -> Tensor:
    """One model, one sequence, in float64."""
    x = w["token_embeddings.weight"][tokens]
    for i in range(2):
        prefix = f"layers.{i}."
        block = {n.removeprefix(prefix): t for n, t in w.items() if n.startswith(prefix)}
        x = block_one(block, x, 2, theta)
    return rmsnorm_one(w["ln_final.weight"], x) @ w["lm_head.weight"].T


@pytest.mark.parametrize("k", [1, 3])
def test_state_has_the_names_and_shapes_of_the_contract(k: int) -> None:
    """Section 4 of the design, written out."""
    expected: dict[str, tuple[int, ...]] = {
        "token_embeddings.weight": (k, 260, 12),
        "ln_final.weight": (k, 12),
        "lm_head.weight": (k, 260, 12),
    }
    for i in range(2):
        for name in ("q", "k", "v", "output"):
            expected[f"layers.{i}.attn.{name}_proj.weight"] = (k, 12, 12)
        expected[f"layers.{i}.ffn.w1.weight"] = expected[f"layers.{i}.ffn.w3.weight"] = (k, 32, 12)
        expected[f"layers.{i}.ffn.w2.weight"] = (k, 12, 32)
        expected[f"layers.{i}.ln1.weight"] = expected[f"layers.{i}.ln2.weight"] = (k, 12)
    state = TransformerLM(k, **SIZES).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == expected
    assert {n: (k, *shape) for n, shape in parameter_shapes(architecture()).items()} == expected


@pytest.mark.parametrize("k", [1, 3])
def test_forward_equals_a_single_model_in_float64(k: int) -> None:
    model = TransformerLM(k, **SIZES, seed=tuple(range(k)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".ln" in f".{name}":  # gains of 1 would hide errors
                p.add_(torch.rand(p.shape, generator=torch.Generator().manual_seed(len(name))))
    logits = model(ids(k))
    assert logits.shape == (k, 3, 7, 260)
    for slot in range(k):
        slot_weights = {name: t[slot].double() for name, t in model.state_dict().items()}
        for b in range(3):
            assert_near(logits[slot, b], logits_one(slot_weights, ids(k)[slot, b]), 2e-5)
    assert k == 1 or not torch.allclose(logits[0], logits[1])


def test_forward_takes_shorter_texts_and_refuses_longer_ones() -> None:
    model = TransformerLM(2, **SIZES)
    short = model(ids(2)[:, :, :4])
    torch.testing.assert_close(short, model(ids(2))[:, :, :4])
    with pytest.raises(ValueError, match="8 tokens exceed the context of 7"):
        model(ids(2, length=8))


def test_model_takes_the_choices_of_the_architecture() -> None:
    odd = {**SIZES, "d_model": 6}
    model = TransformerLM(2, **odd, position="learned", norm="layernorm", tied_embeddings=True)
    assert model(ids(2)).shape == (2, 3, 7, 260)
    state = model.state_dict()
    assert "lm_head.weight" not in state
    assert torch.equal(state["ln_final.bias"], torch.zeros(2, 6))
    assert state["position_embeddings.weight"].shape == (2, 7, 6)
    with pytest.raises(ValueError, match="must be a whole even number, got 6 / 2"):
        TransformerLM(2, **odd)
    with pytest.raises(ValueError, match="unknown choices: n_layers, positions"):
        TransformerLM(2, **SIZES, positions="learned", n_layers=3)
    with pytest.raises(ValueError, match=r"position must be one of rope, .*, got 'rotary'"):
        TransformerLM(2, **SIZES, position="rotary")


@pytest.mark.parametrize("seed", [(1,), (1, 2, 3), ()])
def test_model_wants_a_seed_per_slot(seed: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"seed needs 2 entries, one per slot, got {len(seed)}"):
        TransformerLM(2, **SIZES, seed=seed)


def test_model_slots_depend_on_their_seed_only() -> None:
    stacked = TransformerLM(3, **SIZES, seed=(5, 6, 5)).state_dict()
    single = TransformerLM(1, **SIZES, seed=5).state_dict()
    for name, weight in stacked.items():
        assert torch.equal(weight[0], weight[2])
        assert torch.equal(weight[0], single[name][0])
        assert torch.equal(weight[0], weight[1]) == (weight.dim() == 2), "gains are all ones"


@pytest.mark.parametrize(
    ("name", "shape", "variance"),
    [
        ("token_embeddings.weight", (500, 64), 1.0),
        ("lm_head.weight", (500, 64), 2 / 564),
        ("layers.0.attn.q_proj.weight", (150, 150), 2 / 300),
        ("layers.1.ffn.w2.weight", (64, 512), 2 / 576),
    ],
)
def test_initial_weight_has_the_stated_distribution(
    name: str, shape: tuple[int, ...], variance: float
) -> None:
    """N(0, variance), cut at three standard deviations, by Kolmogorov and Smirnov's test."""
    weight = initial_weight(3, name, shape).double().numpy().ravel()
    std = math.sqrt(variance)
    assert 2.9 * std < np.abs(weight).max() <= 3 * std * (1 + 1e-6)
    theory = stats.truncnorm(-3, 3, scale=std)
    assert weight.std() == pytest.approx(theory.std(), rel=0.02)
    assert stats.kstest(weight, theory.cdf).statistic < 2 / math.sqrt(weight.size)


def test_initial_weight_of_a_gain_is_one() -> None:
    assert torch.equal(initial_weight(3, "ln_final.weight", (9,)), torch.ones(9))


def test_initial_weights_of_names_and_seeds_are_uncorrelated() -> None:
    names = ["layers.0.ffn.w1.weight", "layers.0.ffn.w3.weight", "layers.1.ffn.w1.weight"]
    rows = torch.stack(
        [initial_weight(seed, name, (100, 100)).flatten() for seed in range(3) for name in names]
    )
    assert (torch.corrcoef(rows) - torch.eye(9)).abs().max() < 5 / 100


def test_is_decayed_are_the_matrices_and_a_prefix() -> None:
    decayed = [name for name in parameter_shapes(architecture()) if is_decayed(name)]
    matrices = [
        name
        for name, shape in parameter_shapes(architecture()).items()
        if len(shape) == 2 and name != "token_embeddings.weight"
    ]
    assert decayed == matrices == list(parameter_shapes(architecture()))[: len(decayed)]


def test_language_model_drops_at_places_of_their_own() -> None:
    """The embedding; attention and both branches of each block. Each mask reaches the logits."""
    seen: list[tuple[int, tuple[int, ...]]] = []

    class Record:
        num_slots = 2

        def __call__(self, x: Tensor, place: int) -> Tensor:
            seen.append((place, tuple(x.shape)))
            return x if place != silent else torch.zeros_like(x)

    silent, record, order = -9, Record(), torch.arange(2)
    weights = TransformerLM(2, **SIZES).state_dict()
    model = LanguageModel(architecture())
    drop: Any = Dropout(record, SlotMasks(order, order[:0], order, record), record)  # type: ignore[arg-type]
    plain = model(weights, ids(2))

    def logits_with_dropout() -> Tensor:
        return model.head(weights, model.activations(weights, ids(2), drop=drop))

    torch.testing.assert_close(plain, logits_with_dropout())
    places = [place for place, _ in seen]
    assert len(set(places)) == len(places) == 1 + 2 * 3
    assert {shape for place, shape in seen if place >= 0} == {(2, 3, 7, 12)}
    assert {shape for place, shape in seen if place < 0} == {(2, 3, 2, 7, 7)}
    for silent in places:  # noqa: B007 - read by `record`
        assert not torch.allclose(plain, logits_with_dropout())


@pytest.mark.parametrize("slots", [[0], [2], [0, 1, 2], [2, 0]])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_stack_evaluates_as_the_module_does(slots: list[int], batch: int) -> None:
    """With equal seeds; the last chunk may be smaller than the others."""
    stack = Stack(architecture(), 3, "cpu")
    seeds = (4, 9, 2)
    for slot, seed in enumerate(seeds):
        stack.load(slot, seed)
    x, y = ids(1, batch=5)[0], ids(1, batch=6)[0, 1:]
    model = TransformerLM(3, **SIZES, seed=seeds)
    expected = cross_entropy(model(x.expand(3, -1, -1)), y.expand(3, -1, -1))
    losses, *shares = stack.evaluate(slots, Batch(x.numpy(), y.numpy()), batch)
    assert shares == [None, None]
    torch.testing.assert_close(
        torch.from_numpy(losses).float(), expected.detach()[slots], rtol=1e-5, atol=1e-5
    )


def test_stack_snapshot_is_the_state_of_one_model() -> None:
    stack = Stack(architecture(), 2, "cpu")
    stack.load(0, 1)
    stack.load(1, 7)
    snapshot = stack.snapshot(1)
    expected = TransformerLM(1, **SIZES, seed=7).state_dict()
    assert {n.split(".", 1)[1] for n in snapshot} == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(snapshot[f"weights.{name}"], weight[0])
        assert not snapshot[f"m.{name}"].any()
        assert not snapshot[f"v.{name}"].any()
    other = Stack(architecture(), 3, "cpu")
    other.load(2, 99, snapshot)
    again = other.snapshot(2)
    assert all(torch.equal(again[name], tensor) for name, tensor in snapshot.items())
    snapshot["weights.lm_head.weight"].zero_()
    assert other.snapshot(2)["weights.lm_head.weight"].any(), "a snapshot is a copy"
