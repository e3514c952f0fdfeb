"""Products in bfloat16, all else in float32: beside float64, and beside torch's autocast."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from model.device.precision import Precision
from model.network.dropout import Dropout
from model.network.layers import linear, linears
from model.network.transformer import LanguageModel, TransformerLM
from model.spec.architecture import Architecture, parameter_shapes
from model.stack.gradients import Gradients
from tests.model.architectures import SINGLE
from tests.model.network.test_transformer import SIZES, architecture, ids, logits_one

BFLOAT16 = torch.bfloat16
HALF = 2.0**-8  # largest relative error of rounding to bfloat16


def weights_of(a: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Weights of one slot, (1, *shape), of a size that activations keep theirs."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 1.0 + 0.1 * torch.randn(1, *shape, generator=generator)
        if len(shape) == 1
        else 0.3 * torch.randn(1, *shape, generator=generator)
        for name, shape in parameter_shapes(a).items()
    }


def gradients(
    a: Architecture,
    weights: dict[str, Tensor],
    tokens: Sequence[Tensor],
    products: torch.dtype | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    (loss,), grads = Gradients(a, products)(leaves, tokens, torch.ones(1), Dropout(), None, None)
    return loss, grads


def distance(grads: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Length of the difference of all gradients, relative."""
    off = sum(
        float((g.double() - e.double()).square().sum()) for g, e in zip(grads, exact, strict=True)
    )
    return (off / sum(float(e.double().square().sum()) for e in exact)) ** 0.5


def test_gradients_are_as_near_to_float64_as_those_of_autocast() -> None:
    """The reference is another implementation, one sequence at a time."""
    tokens = ids(2, batch=8)
    # the reference turns by float64 tables, which autocast does not multiply with bfloat16
    a = architecture().model_copy(update={"position": "none"})
    inputs, targets = tokens[:1], tokens[1:]
    weights = {n: w.detach() for n, w in TransformerLM(1, **SIZES).state_dict().items()}

    def reference(dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, ...]]:
        leaves = {n: w[0].to(dtype, copy=True).requires_grad_() for n, w in weights.items()}
        logits = torch.stack([logits_one(leaves, row, None) for row in inputs[0]])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).to(dtype), targets.flatten())
        return loss, torch.autograd.grad(loss, [leaves[name] for name in parameter_shapes(a)])

    loss, exact = reference(torch.float64)
    with torch.autocast("cpu", BFLOAT16):
        cast = reference(torch.float32)[1]
    ordered = {name: weights[name] for name in parameter_shapes(a)}
    ours_loss, ours = gradients(a, ordered, [inputs, targets], BFLOAT16)
    ours = tuple(g[0] for g in ours)
    assert {g.dtype for g in ours} == {torch.float32}
    assert abs(ours_loss.item() - loss.item()) < HALF * loss.item()
    assert 0 < distance(ours, exact) < 4 * HALF
    assert distance(ours, exact) < 1.1 * distance(cast, exact)


@pytest.mark.parametrize("choice", SINGLE)
def test_every_architecture_has_the_gradients_of_float32(choice: str) -> None:
    sizes = {"vocab_size": 260, "context_length": 8, "d_model": 48, "n_layers": 1, "n_heads": 4}
    a = Architecture(**{**sizes, "d_ff": 32, **SINGLE[choice]})
    generator = torch.Generator().manual_seed(2)
    lengths = [a.context_length] * 2 + [a.source_length] * (a.n_encoder_layers > 0)
    tokens = [torch.randint(260, (1, 4, n), generator=generator) for n in lengths]
    exact_loss, exact = gradients(a, weights_of(a), tokens, None)
    loss, grads = gradients(a, weights_of(a), tokens, BFLOAT16)
    assert {g.dtype for g in grads} == {torch.float32}
    assert loss.item() == pytest.approx(exact_loss.item(), rel=4 * HALF)
    assert loss.item() != exact_loss.item()
    assert distance(grads, exact) < 12 * HALF


def test_only_products_are_rounded() -> None:
    """Operands that bfloat16 holds exactly have float32's results; the residual stream is exact."""
    x, w, v = torch.ones(1, 3, 4), torch.full((1, 8, 4), 0.5), torch.full((1, 4, 4), 2.0)
    low = [each.to(BFLOAT16) for each in (w, v)]
    for y, expected in zip(linears(low, x), linears([w, v], x), strict=True):
        assert y.dtype == torch.float32
        assert torch.equal(y, expected)
    assert torch.equal(linear(low[0], x), linear(w, x))
    a = architecture()
    weights = {
        n: torch.zeros_like(w) if w.dim() == 3 and "embeddings" not in n else w
        for n, w in weights_of(a).items()
    }
    streams = [LanguageModel(a, dtype).activations(weights, ids(1)) for dtype in (None, BFLOAT16)]
    assert torch.equal(*streams), "branches add nothing, so that no product reaches the stream"


def test_linear_maps_of_one_input_have_the_bits_of_each_alone() -> None:
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    ws = [torch.ones(2, 32, 64, dtype=BFLOAT16) / 3, torch.ones(2, 64, 64, dtype=BFLOAT16) / 7]
    for y, w in zip(linears(ws, x), ws, strict=True):
        assert torch.equal(y, linear(w, x))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_mixed_bfloat16_is_for_cpus(device: str) -> None:
    assert Precision.of("mixed_bfloat16", torch.device("cpu")).products == BFLOAT16
    with pytest.raises(ValueError, match=f"only CPUs compute in mixed_bfloat16.* is {device}"):
        Precision.of("mixed_bfloat16", torch.device(device))
    assert Precision("bfloat16").products is None
