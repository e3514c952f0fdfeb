"""The encoder–decoder against plain models, torch's own layers and its own specification."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from model.network.dropout import Dropping
from model.network.encoder_decoder import EncoderDecoder
from model.network.losses import cross_entropy
from model.network.positions import sinusoids
from model.randomness import DropoutMasks
from model.spec.architecture import Architecture, parameter_shapes
from tests.model.architectures import PAIRED, paired_mixes
from tests.model.network.test_choices import SMALL, as_proxy, logits_one, weights_of
from tests.model.network.test_layers import assert_near

CPU = torch.device("cpu")


def pairs_of(a: Architecture, k: int = 1, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Return targets (K, B, T), and sources (K, B, S) of different lengths; 0 ends a text."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, (k, batch, a.context_length), generator=generator)
    sources = torch.randint(1, 5, (k, batch, a.source_length), generator=generator)
    lengths = torch.randint(a.source_length, (k, batch, 1), generator=generator)
    return ids, sources.where(torch.arange(a.source_length) < lengths, 0)


def text_of(source: Tensor) -> Tensor:
    """Return a source up to its end of text."""
    return source[: source.tolist().index(0) + 1]


def assert_equals_reference(a: Architecture, k: int = 2) -> None:
    """Each pair alone and without padding."""
    weights, (ids, sources) = weights_of(a, k), pairs_of(a, k)
    logits = EncoderDecoder(a)(weights, ids, sources)
    assert logits.shape == (*ids.shape, a.vocab_size)
    for slot in range(k):
        slot_weights = {name: w[slot] for name, w in weights.items()}
        for b in range(ids.shape[1]):
            expected = logits_one(a, slot_weights, ids[slot, b], text_of(sources[slot, b]))
            assert_near(logits[slot, b], expected, 1e-5)


@pytest.mark.parametrize("choice", PAIRED)
def test_choice_equals_a_plain_model(choice: str) -> None:
    assert_equals_reference(Architecture(**{**SMALL, **PAIRED[choice]}))


@pytest.mark.parametrize("choice", ["default", "qk-norm", "original"])
def test_proxy_equals_a_plain_model_with_factors(choice: str) -> None:
    """Encoder and decoder have the factors of their own depths."""
    assert_equals_reference(as_proxy(Architecture(**{**SMALL, **PAIRED[choice]})))


@pytest.mark.slow
@settings(max_examples=30)
@given(mix=paired_mixes())
def test_mix_equals_a_plain_model(mix: dict[str, Any]) -> None:
    assert_equals_reference(Architecture(vocab_size=263, **mix))


def original() -> Architecture:
    """The architecture of Vaswani et al. 2017, except for its size."""
    return Architecture(
        **SMALL, n_encoder_layers=2, source_length=6, norm_placement="post", norm="layernorm",
        activation="relu", position="sinusoidal",
    )  # fmt: skip


def load(layer: nn.Module, weights: dict[str, Tensor], block: str) -> None:
    """Copy the weights of a block into torch's layer; set its biases to 0."""
    names = {"self_attn": "attn", "multihead_attn": "cross"}
    for theirs, ours in names.items():
        attention = getattr(layer, theirs, None)
        if attention is not None:
            rows = [weights[f"{block}{ours}.{n}_proj.weight"][0] for n in ("q", "k", "v")]
            attention.in_proj_weight.data = torch.cat(rows)
            attention.out_proj.weight.data = weights[f"{block}{ours}.output_proj.weight"][0]
            attention.in_proj_bias.data.zero_()
            attention.out_proj.bias.data.zero_()
    norms = ["ln1", "ln_cross", "ln2"] if hasattr(layer, "norm3") else ["ln1", "ln2"]
    for number, norm in enumerate(norms, 1):
        theirs = getattr(layer, f"norm{number}")
        theirs.weight.data = weights[f"{block}{norm}.weight"][0]
        theirs.bias.data = weights[f"{block}{norm}.bias"][0]
    for number in (1, 2):
        linear = getattr(layer, f"linear{number}")
        linear.weight.data = weights[f"{block}ffn.w{number}.weight"][0]
        linear.bias.data.zero_()


def test_original_equals_torch() -> None:
    """Masks of padding and of later tokens included."""
    a = original()
    weights, (ids, sources) = weights_of(a), pairs_of(a)
    table = weights["token_embeddings.weight"][0]
    options: dict[str, Any] = {
        "d_model": a.d_model, "nhead": a.n_heads, "dim_feedforward": a.d_ff, "dropout": 0.0,
        "batch_first": True, "dtype": torch.float64,
    }  # fmt: skip
    is_padding = torch.ones(sources[0].shape, dtype=torch.bool)
    for b, source in enumerate(sources[0]):
        is_padding[b, : len(text_of(source))] = False
    memory = table[sources[0]] + sinusoids(a.source_length, a.d_model, CPU)
    for number in range(a.n_encoder_layers):
        encoder = nn.TransformerEncoderLayer(**options)
        load(encoder, weights, f"encoder.layers.{number}.")
        memory = encoder(memory, src_key_padding_mask=is_padding)
    x = table[ids[0]] + sinusoids(a.context_length, a.d_model, CPU)
    later = torch.ones(a.context_length, a.context_length, dtype=torch.bool).triu(1)
    for number in range(a.n_layers):
        decoder = nn.TransformerDecoderLayer(**options)
        load(decoder, weights, f"layers.{number}.")
        x = decoder(x, memory, tgt_mask=later, memory_key_padding_mask=is_padding)
    logits = EncoderDecoder(a)(weights, ids, sources)[0]
    assert_near(logits, x @ weights["lm_head.weight"][0].T, 1e-6)


def test_gradient_equals_finite_differences() -> None:
    a = Architecture(
        vocab_size=257, d_model=4, n_heads=2, n_layers=1, n_encoder_layers=1, context_length=3,
        source_length=4, d_ff=32, position="relative", norm="layernorm", qk_norm=True,
    )  # fmt: skip
    weights, (ids, sources) = weights_of(a), pairs_of(a, batch=2)
    big = ("token_embeddings.weight", "lm_head.weight")
    names = [name for name in weights if name not in big]
    targets = torch.tensor([[[1, 2, 0], [3, 0, -100]]])

    def loss(*values: Tensor) -> Tensor:
        given = weights | dict(zip(names, values, strict=True))
        logits = EncoderDecoder(a)(given, ids, sources)
        log_p = logits.log_softmax(-1)
        counts = targets >= 0
        return -log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1))[counts].mean()

    inputs = [weights[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_no_two_places_share_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    a = Architecture(**SMALL, n_layers=3, n_encoder_layers=2, source_length=6)
    places: list[int] = []
    call = DropoutMasks.__call__

    def record(masks: DropoutMasks, x: Tensor, place: int) -> Tensor:
        places.append(place)
        return call(masks, x, place)

    monkeypatch.setattr(DropoutMasks, "__call__", record)
    drop = Dropping(True, (0,), True, 1, CPU).masks(torch.tensor([1]), torch.full((4, 1), 0.1))
    weights = {name: w.float() for name, w in weights_of(a).items()}
    EncoderDecoder(a).activations(weights, *pairs_of(a), drop=drop)
    # two embeddings; three layers of a decoder's block, two of an encoder's; attention too
    assert len(places) == len(set(places)) == 2 + 3 * 3 + 2 * 2 + 3 * 2 + 2


def test_names_follow_the_language_model() -> None:
    """Parameters that a decoder shares with a language model have equal names."""
    plain = parameter_shapes(Architecture(**SMALL))
    shapes = parameter_shapes(Architecture(**SMALL, n_encoder_layers=1))
    assert plain.items() <= shapes.items()
    assert {n.split(".")[0] for n in shapes if n not in plain and ".cross." not in n} == {
        "encoder", "layers",
    }  # fmt: skip


def test_ignored_targets_take_no_part() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 9, generator=generator, dtype=torch.float64)
    targets = torch.randint(9, (2, 3, 4), generator=generator)
    targets[0, 1, 2:], targets[1, :, 3] = -100, -100
    for smoothing in (None, torch.tensor([0.0, 0.2])):
        given = logits.float().requires_grad_()
        loss = cross_entropy(given, targets, smoothing, ignore_index=-100)
        (grad,) = torch.autograd.grad(loss, given, torch.tensor([1.0, 0.5]))
        for slot, weight in enumerate((1.0, 0.5)):
            slot_logits = logits[slot].clone().requires_grad_()
            expected = nn.functional.cross_entropy(
                slot_logits.flatten(0, 1), targets[slot].flatten(),
                label_smoothing=0.0 if smoothing is None else float(smoothing[slot]),
            )  # fmt: skip
            assert_near(loss[slot].double(), expected, 1e-6)
            (expected_grad,) = torch.autograd.grad(expected * weight, slot_logits)
            assert_near(grad[slot].double(), expected_grad, 1e-6)
