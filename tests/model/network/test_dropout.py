"""Dropout in its three places, and attention with dropped probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.engine.engine import Engine
from model.network.attention import (
    attend_by,
    attend_causally,
    attend_with_dropout,
    within_documents,
)
from model.network.dropout import PLACES, Dropout, Dropping
from model.network.positions import alibi_bias
from model.spec.derive import derive
from tests.conftest import MakeSpec
from tests.model.network.test_layers import assert_near, normal

CPU = torch.device("cpu")
Tokens = tuple[np.ndarray, np.ndarray]


def masks(keys: Tensor, **places: list[float]) -> Dropout:
    """Return the masks of a tick whose slots drop at some places."""
    rates = torch.tensor([places.get(place, [0.0] * len(keys)) for place in PLACES])
    embedding, attention, residual, _ = rates
    slots = tuple(attention.nonzero().flatten().tolist())
    has = bool(embedding.any()), slots, bool(residual.any())
    return Dropping(*has, len(keys), CPU).masks(keys, rates)


def test_dropout_of_a_place_follows_p_drop_unless_set_apart() -> None:
    def derived(**values: float) -> list[float]:
        h = derive({"total_steps": 10, **values}, train_sequences=50, context_length=8)
        assert h.lora_dropout == 0  # a place that p_drop does not set
        return [getattr(h, f"{place}_dropout") for place in PLACES[:3]]

    assert derived() == [0, 0, 0]
    assert derived(dropout=0.3) == [0.3, 0.3, 0.3]
    assert derived(dropout=0.3, attention_dropout=0.0) == [0.3, 0, 0.3]
    assert derived(embedding_dropout=0.1, residual_dropout=0.2) == [0.1, 0, 0.2]


def test_places_that_no_slot_drops_at_have_no_masks() -> None:
    keys = torch.arange(3)
    drop = masks(keys, residual=[0.0, 0.2, 0.0])
    assert (drop.embedding, drop.attention) == (None, None)
    assert drop.residual is not None
    drop = masks(torch.arange(4), attention=[0.0, 0.2, 0.0, 0.1])
    assert (drop.embedding, drop.residual) == (None, None)
    assert drop.attention is not None
    assert drop.attention.slots.tolist() == [1, 3]
    assert drop.attention.others.tolist() == [0, 2]
    assert drop.attention.order.tolist() == [2, 0, 3, 1]


def masks_of(kind: str, k: int, batch: int, heads: int, length: int) -> Tensor | None:
    documents = torch.randint(3, (k, batch, length), generator=torch.Generator().manual_seed(1))
    bias = alibi_bias(length, heads, CPU)
    return {
        "causal": None, "alibi": bias, "documents": within_documents(documents, None),
        "both": within_documents(documents, bias),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["causal", "alibi", "documents", "both"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("rate", [[0.5, 0.5], [0.0, 0.6, 0.0], [0.3]])
def test_attention_dropout_equals_formula(kind: str, kv_heads: int, rate: list[float]) -> None:
    """Slot by slot and head by head, with the masks applied to ones; without p, SDPA's bits."""
    k, batch, heads, length, d = len(rate), 2, 4, 5, 6
    q = normal(k * batch, heads, length, d)
    keys, values = (normal(k * batch, kv_heads, length, d, seed=s) for s in (1, 2))
    mask = masks_of(kind, k, batch, heads, length)
    drop = masks(torch.arange(k) + 7, attention=rate).attention
    assert drop is not None
    y = attend_with_dropout(mask, drop)(q, keys, values, 3).view(k, batch, heads, length, d)
    ones = torch.ones(len(drop.slots), batch, heads, length, length, dtype=torch.float64)
    factors = dict(zip(drop.slots.tolist(), drop.masks(ones, -4), strict=True))
    complete = attend_causally(q, keys, values) if mask is None else attend_by(mask)(
        q, keys, values, 0
    )  # fmt: skip
    for slot in range(k):
        if slot not in factors:
            assert torch.equal(y[slot], complete.view_as(y)[slot])
            continue
        for b in range(batch):
            row = slot * batch + b
            for h in range(heads):
                g = h // (heads // kv_heads)
                scores = q[row, h] @ keys[row, g].T / math.sqrt(d)
                if kind in ("alibi", "both"):
                    scores = scores + alibi_bias(length, heads, CPU)[0, h]
                allowed = torch.ones(length, length, dtype=torch.bool).tril()
                if mask is not None:
                    slot_mask = mask[0 if len(mask) == 1 else row, 0 if mask.shape[1] == 1 else h]
                    allowed = slot_mask if slot_mask.dtype == torch.bool else slot_mask.isfinite()
                p = scores.masked_fill(~allowed, -math.inf).softmax(-1)
                assert_near(y[slot, b, h], (p * factors[slot][b, h]) @ values[row, g], 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [[0.5, 0.5], [0.0, 0.6]])
def test_attention_dropout_gradient_equals_finite_differences(rate: list[float]) -> None:
    drop = masks(torch.arange(2), attention=rate).attention
    assert drop is not None
    inputs = [normal(2, 2, 3, 4, seed=s).requires_grad_() for s in range(3)]
    attend = attend_with_dropout(None, drop)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, 0), inputs)


@pytest.mark.parametrize("layout", ["by head", "by token"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 8), (1, 4, 4, 8, 7), (2, 4, 2, 5, 16), (1, 8, 1, 8, 8)]
)
def test_attention_of_a_slot_ignores_its_neighbours(
    layout: str, shape: tuple[int, int, int, int, int]
) -> None:
    """Bits of outputs and gradients, for slots that drop and slots that do not."""
    batch, heads, kv_heads, length, d = shape
    rate = np.array([0.3, 0.0, 0.5, 0.0])

    def heads_of(h: int, seed: int) -> Tensor:
        return normal(4, batch, length, h, d, seed=seed, dtype=torch.float32)

    data = [heads_of(heads, 0), heads_of(kv_heads, 1), heads_of(kv_heads, 2)]
    up = normal(4, batch, length, heads * d, seed=3, dtype=torch.float32)

    def run(slots: list[int]) -> list[Tensor]:
        inputs = [x[slots].requires_grad_() for x in data]
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in inputs)
        if layout == "by head":
            q, k = q.contiguous(), k.contiguous()
        drop = masks(torch.tensor(slots), attention=rate[slots].tolist()).attention
        attend = attend_with_dropout(None, drop) if drop else attend_causally
        y = attend(q, k, v, 0).transpose(1, 2).reshape(len(slots), batch, length, heads * d)
        return [y, *torch.autograd.grad(y, inputs, up[slots])]

    together = run([0, 1, 2, 3])
    for slot in range(4):
        for alone, stacked in zip(run([slot]), together, strict=True):
            assert torch.equal(alone[0], stacked[slot])


@pytest.mark.parametrize("place", PLACES[:3])
def test_dropout_of_each_place_changes_training(
    tokens: Tokens, make_spec: MakeSpec, place: str
) -> None:
    """A slot that drops at another place, or nowhere, is unaffected."""
    rows: list[dict[str, Any]] = [{}, {f"{place}_dropout": 0.5}, {"dropout": 0.5}]
    specs = [make_spec(steps=2, reports=1, **row) for row in rows]
    losses = [report.train_loss for report in Engine(*tokens, slots=3, width=3).run(specs)]
    assert len(set(losses)) == 3
    only = make_spec(steps=2, reports=1, dropout=0.5, **{f"{place}_dropout": 0.0})
    (report,) = Engine(*tokens).run([only])
    assert report.train_loss not in losses
