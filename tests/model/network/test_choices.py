"""Every choice of the architecture against torch's own layers or a float64 formula."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from hypothesis import given, settings
from torch import Tensor, nn

from model.network.attention import Attention, attend_causally, attend_to, no_head_norm
from model.network.block import PLACEMENTS, AttentionContext, Block
from model.network.feed_forward import FEED_FORWARDS
from model.network.layers import soft_cap
from model.network.norms import NORMS, layernorm, rmsnorm
from model.network.positions import POSITIONS, Position, alibi_bias, alibi_slopes, sinusoids
from model.network.transformer import LanguageModel, Trunk, document_numbers, initial_weight
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import END_OF_TEXT
from model.spec.target import Target
from model.tokenizer.bpe import merge_pretokens
from model.tokenizer.tokenizer import Tokenizer
from tests.model.architectures import SINGLE, mixes
from tests.model.network.test_layers import STACKS, assert_near, normal, rope_one

SMALL: dict[str, Any] = {
    "vocab_size": 263, "d_model": 24, "n_heads": 2, "context_length": 7, "d_ff": 32,
}  # fmt: skip
ACTIVATIONS = {
    "swiglu": F.silu, "geglu": F.gelu, "relu": F.relu, "gelu": F.gelu, "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}  # fmt: skip


def weights_of(a: Architecture, k: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights in float64, also gains and biases: initial values would hide them."""
    weights = {}
    for number, (name, shape) in enumerate(parameter_shapes(a).items()):
        start = torch.stack([initial_weight(seed + i, name, shape) for i in range(k)]).double()
        noise = normal(k, *shape, seed=1000 * seed + number) / 5
        weights[name] = start + noise if len(shape) == 1 else start
    return weights


def ids_of(a: Architecture, k: int = 1, batch: int = 2) -> Tensor:
    """Return ids with few different values, so that some documents end."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(4, (k, batch, a.context_length), generator=generator)


# one model in float64, head by head -----------------------------------------------------------


def norm_one(a: Architecture, w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    gain = w[f"{name}.weight"]
    if a.norm == "rmsnorm":
        return F.rms_norm(x, gain.shape, gain, a.norm_eps)
    return F.layer_norm(x, gain.shape, gain, w[f"{name}.bias"], a.norm_eps)


def allowed_one(a: Architecture, tokens: Tensor) -> Tensor:
    """Return the mask (T, T), True = attend, token by token."""
    length = len(tokens)
    allowed = torch.zeros(length, length, dtype=torch.bool)
    for t in range(length):
        begins = [s for s in range(t + 1) if tokens[s] == 0]
        first = max(begins, default=0) if not a.attend_across_documents else 0
        allowed[t, first : t + 1] = True
    return allowed


def bucket_one(ahead: int, is_causal: bool) -> int:
    """Return the bucket of a distance, as in T5's published code."""
    count, begin = 32, 0
    if not is_causal:
        count, begin = 16, 16 if ahead > 0 else 0
    distance = abs(ahead) if not is_causal else max(0, -ahead)
    exact = count // 2
    if distance < exact:
        return begin + distance
    wide = math.log(distance / exact) / math.log(128 / exact) * (count - exact)
    return begin + min(count - 1, exact + int(wide))


def scaled_one(a: Architecture, frequency: float) -> float:
    """Return the angle of one position as llama3's published code does, by wave lengths."""
    if a.rope_scaling != "llama3":
        return frequency / a.rope_factor
    length, low, high = a.rope_original_length, a.rope_low_frequency, a.rope_high_frequency
    wave = 2 * math.pi / frequency
    if wave < length / high:
        return frequency
    if wave > length / low:
        return frequency / a.rope_factor
    smooth = (length / wave - low) / (high - low)
    return (1 - smooth) * frequency / a.rope_factor + smooth * frequency


def linear_one(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def attention_one(
    a: Architecture,
    w: dict[str, Tensor],
    x: Tensor,
    allowed: Tensor,
    seen: Tensor | None = None,
) -> Tensor:
    """x is (T, D); query head h uses key head h // (H / H′); with `seen` it is cross-attention."""
    name, seen = ("attn", x) if seen is None else ("cross", seen)
    d, at, turned = a.d_head, torch.arange(len(x)), partial(scaled_one, a)
    heads = []
    for h in range(a.n_heads):
        g = h // (a.n_heads // a.n_kv_heads)
        q = linear_one(w, f"{name}.q_proj", x)[:, h * d : (h + 1) * d]
        k, v = (linear_one(w, f"{name}.{n}_proj", seen)[:, g * d : (g + 1) * d] for n in "kv")
        if a.qk_norm:
            q = F.rms_norm(q, (d,), w[f"{name}.q_norm.weight"], a.norm_eps)
            k = F.rms_norm(k, (d,), w[f"{name}.k_norm.weight"], a.norm_eps)
        if a.position == "rope" and name == "attn":
            q, k = (rope_one(x, at, a.rope_theta, turned) for x in (q, k))
        # √d of the target: 1/d as d grows, and the usual 1/√d at the target
        base = a.target.d_model // a.target.n_heads if a.target and not a.head_width else d
        scores = q @ k.T * math.sqrt(base) / d
        if a.position == "alibi" and name == "attn":
            slope = alibi_slopes(a.n_heads)[h]
            scores = scores - slope * (at[:, None] - at[None, :]).abs()
        if a.position == "relative" and name == "attn":
            is_causal = not allowed.all() or len(x) == 1
            for t in range(len(x)):
                for s in range(len(x)):
                    scores[t, s] += w["relative"][bucket_one(s - t, is_causal), h]
        heads.append(scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v)
    return linear_one(w, f"{name}.output_proj", torch.cat(heads, -1))


def feed_forward_one(a: Architecture, w: dict[str, Tensor], x: Tensor) -> Tensor:
    inner = ACTIVATIONS[a.activation](linear_one(w, "ffn.w1", x))
    if a.activation.endswith("glu"):
        inner = inner * linear_one(w, "ffn.w3", x)
    return linear_one(w, "ffn.w2", inner)


def input_one(a: Architecture, w: dict[str, Tensor], tokens: Tensor, tower: str = "") -> Tensor:
    """(T,) → (T, D)."""
    x = w["token_embeddings.weight"][tokens]
    if a.position == "learned":
        x = x + w[f"{tower}position_embeddings.weight"][: len(tokens)]
    if a.position == "sinusoidal":
        for t in range(len(tokens)):
            for i in range(0, a.d_model, 2):
                angle = t / 10_000 ** (i / a.d_model)
                wave = torch.tensor([math.sin(angle), math.cos(angle)])
                x = torch.cat([
                    x[:t], torch.cat([x[t, :i], x[t, i : i + 2] + wave, x[t, i + 2 :]])[None],
                    x[t + 1 :],
                ])  # fmt: skip
    return x


def tower_one(
    a: Architecture,
    w: dict[str, Tensor],
    x: Tensor,
    allowed: Tensor,
    tower: str = "",
    memory: Tensor | None = None,
) -> Tensor:
    """(T, D) → (T, D) through all blocks of a tower."""
    for number in range(a.n_encoder_layers if tower else a.n_layers):
        block = f"{tower}layers.{number}."
        own = {n.removeprefix(block): t for n, t in w.items() if n.startswith(block)}
        own["relative"] = w.get(f"{tower}relative_bias.weight", x)
        for norm in ("ln1", "ln_cross", "ln2"):
            if norm == "ln_cross" and memory is None:
                continue
            y = norm_one(a, own, norm, x) if a.norm_placement == "pre" else x
            if norm == "ln1":
                y = attention_one(a, own, y, allowed)
            elif norm == "ln_cross":
                y = attention_one(a, own, y, torch.tensor(True), memory)
            else:
                y = feed_forward_one(a, own, y)
            if a.target is not None and tower:
                y = y * a.target.n_encoder_layers / a.n_encoder_layers
            elif a.target is not None:
                y = y * a.target.n_layers / a.n_layers
            x = x + y if a.norm_placement == "pre" else norm_one(a, own, norm, x + y)
    return norm_one(a, w, f"{tower}ln_final", x) if a.norm_placement == "pre" else x


def logits_one(
    a: Architecture, w: dict[str, Tensor], tokens: Tensor, source: Tensor | None = None
) -> Tensor:
    """One sequence of one model, (T,) → (T, V); of an encoder–decoder with its source (S,)."""
    memory = None
    if source is not None:
        every = torch.ones(len(source), len(source), dtype=torch.bool)
        read = input_one(a, w, source, "encoder.")
        memory = tower_one(a, w, read, every, "encoder.")
    allowed = allowed_one(a, tokens)
    x = tower_one(a, w, input_one(a, w, tokens), allowed, memory=memory)
    base = a.d_model if a.target is None else a.target.d_model
    if a.tied_embeddings:
        logits = x @ w["token_embeddings.weight"].T / (math.sqrt(base) if a.scaled_head else 1)
    else:
        logits = x @ w["lm_head.weight"].T
    logits = logits * base / a.d_model
    return logits if not a.logit_soft_cap else a.logit_soft_cap * (logits / a.logit_soft_cap).tanh()


def assert_equals_reference(a: Architecture, k: int = 2) -> None:
    assert_equals_reference_of(a, a, k)


def assert_equals_reference_of(a: Architecture, reference: Architecture, k: int = 2) -> None:
    weights, ids = weights_of(a, k), ids_of(a, k)
    logits = LanguageModel(a)(weights, ids)
    for slot in range(k):
        own = {name: w[slot] for name, w in weights.items()}
        for b in range(ids.shape[1]):
            # angles, slopes and sinusoids are kept in float32
            assert_near(logits[slot, b], logits_one(reference, own, ids[slot, b]), 1e-5)


@pytest.mark.parametrize("choice", SINGLE)
def test_choice_equals_a_plain_model(choice: str) -> None:
    assert_equals_reference(Architecture(**{**SMALL, **SINGLE[choice]}))


def as_proxy(a: Architecture) -> Architecture:
    """The same model as a proxy of one that is wider, deeper and has wider heads."""
    deeper = 1 if a.norm_placement == "post" else 2
    target = Target(
        d_model=3 * a.d_model, n_layers=deeper * a.n_layers, n_heads=a.n_heads,
        n_encoder_layers=2 * deeper * a.n_encoder_layers if deeper > 1 else a.n_encoder_layers,
        n_kv_heads=a.n_kv_heads, d_ff=2 * a.d_ff,
    )  # fmt: skip
    return Architecture.model_validate({**a.model_dump(), "target": target})


@pytest.mark.parametrize("choice", SINGLE)
def test_proxy_equals_a_plain_model_with_factors(choice: str) -> None:
    """Scores by 1/d, branches by the ratio of the blocks, logits by 1/width."""
    a = as_proxy(Architecture(**{**SMALL, **SINGLE[choice]}))
    assert_equals_reference(a)
    with pytest.raises(AssertionError):  # the factors are seen
        assert_equals_reference_of(a, a.model_copy(update={"target": None}))


@pytest.mark.slow
@settings(max_examples=30)
@given(mix=mixes())
def test_mix_equals_a_plain_model(mix: dict[str, Any]) -> None:
    assert_equals_reference(Architecture(vocab_size=263, **mix))


def test_choices_are_all_tested() -> None:
    """Each value of each choice appears alone, and has its function."""
    registries: dict[str, Any] = {
        "activation": FEED_FORWARDS, "position": POSITIONS, "norm": NORMS,
        "norm_placement": PLACEMENTS,
    }  # fmt: skip
    for name, registry in registries.items():
        values = set(get_args(Architecture.model_fields[name].annotation))
        assert set(registry) == values
        default = Architecture.model_fields[name].default
        assert values == {default, *(mix[name] for mix in SINGLE.values() if name in mix)}
    for name, field in Architecture.model_fields.items():
        if field.annotation is bool:
            assert any(mix.get(name) is not None for mix in SINGLE.values())


# torch's own layers ---------------------------------------------------------------------------


@STACKS
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_block_equals_torch_encoder_layer(k: int, placement: str, activation: str) -> None:
    """nn.TransformerEncoderLayer with a causal mask, its weights set, its linear biases 0."""
    a = Architecture(**SMALL, n_layers=1, norm="layernorm", norm_placement=placement,
                     activation=activation, position="none")  # fmt: skip
    weights, x = weights_of(a, k), normal(k, 2, 7, 24, seed=5)
    own = {n.removeprefix("layers.0."): w for n, w in weights.items()}
    y = Block.of(a, a.decoder, Position())(own, x, AttentionContext(attend_causally), None, 0)
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    for slot in range(k):
        theirs = nn.TransformerEncoderLayer(
            24, 2, 32, dropout=0.0, activation=ACTIVATIONS[activation], batch_first=True,
            norm_first=placement == "pre", dtype=torch.float64,
        )  # fmt: skip
        with torch.no_grad():
            for p in theirs.parameters():
                p.zero_()
            projections = [own[f"attn.{n}_proj.weight"][slot] for n in ("q", "k", "v")]
            theirs.self_attn.in_proj_weight.copy_(torch.cat(projections))
            theirs.self_attn.out_proj.weight.copy_(own["attn.output_proj.weight"][slot])
            theirs.linear1.weight.copy_(own["ffn.w1.weight"][slot])
            theirs.linear2.weight.copy_(own["ffn.w2.weight"][slot])
            for number, norm in ((1, theirs.norm1), (2, theirs.norm2)):
                norm.weight.copy_(own[f"ln{number}.weight"][slot])
                norm.bias.copy_(own[f"ln{number}.bias"][slot])
            expected = theirs(x[slot], src_mask=mask)
        assert_near(y[slot], expected, 1e-9)


@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 1), (4, 2), (6, 3), (6, 1), (2, 2)])
@pytest.mark.parametrize("position", ["none", "alibi"])
def test_attention_equals_torch_multihead(heads: int, kv_heads: int, position: str) -> None:
    """nn.MultiheadAttention, whose key heads are copies; biased scores as its mask."""
    a = Architecture(
        vocab_size=263, d_model=24, n_heads=heads, n_kv_heads=kv_heads, position=position,
        context_length=7, n_layers=1,
    )  # fmt: skip
    weights, x = weights_of(a, 2), normal(2, 3, 7, 24, seed=5)
    own = {n.removeprefix("layers.0."): w for n, w in weights.items()}
    attention = Attention("attn", heads, kv_heads, no_head_norm, Position().turn)
    y = attention(own, x, x, attend_to(Trunk(a, a.decoder).bias(weights, ids_of(a, 2, 3)), None))
    mask = torch.full((heads, 7, 7), -math.inf, dtype=torch.float64).triu(1)
    if position == "alibi":
        mask += alibi_bias(7, heads, mask.device)[0].nan_to_num(neginf=0.0)
    for slot in range(2):
        theirs = nn.MultiheadAttention(24, heads, bias=False, batch_first=True).double()
        q, *shared, out = (own[f"attn.{n}_proj.weight"][slot] for n in ("q", "k", "v", "output"))
        copies = [w.view(kv_heads, a.d_head, 24).repeat_interleave(heads // kv_heads, 0)
                  for w in shared]  # fmt: skip
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([q, *(w.flatten(0, 1) for w in copies)]))
            theirs.out_proj.weight.copy_(out)
            expected, _ = theirs(*[x[slot]] * 3, attn_mask=mask.repeat(3, 1, 1))
        assert_near(y[slot], expected, 1e-6)


@STACKS
@pytest.mark.parametrize("width", range(1, 9))
def test_layernorm_equals_torch(k: int, width: int) -> None:
    w, b, x = normal(k, width), normal(k, width, seed=1), normal(k, 2, 5, width, seed=2) * 3
    expected = torch.stack([F.layer_norm(x[i], (width,), w[i], b[i], 1e-5) for i in range(k)])
    assert_near(layernorm(w, b, x), expected, 1e-12)
    low = x.bfloat16()
    assert layernorm(w.float(), b.float(), low).dtype == torch.bfloat16


# positions --------------------------------------------------------------------------------------


def test_alibi_slopes_are_those_of_the_paper() -> None:
    """Section 3 gives those of 8 and 16 heads; 12 heads have those of 8 and four of 16."""
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(16) == [2 ** (-h / 2) for h in range(1, 17)]
    assert alibi_slopes(12) == [*alibi_slopes(8), *alibi_slopes(16)[:8:2]]
    assert alibi_slopes(1) == [2.0**-8]


def test_sinusoids_let_a_rotation_shift_them() -> None:
    """PE(t + s) is a rotation of PE(t) that depends on s only, as section 3.5 argues."""
    table = sinusoids(20, 6, torch.device("cpu")).double()
    shift = rope_one(table[:, [1, 0, 3, 2, 5, 4]][:15], torch.full((15,), 5), 10_000.0)
    assert_near(shift[:, [1, 0, 3, 2, 5, 4]], table[5:], 1e-6)


@pytest.mark.parametrize("position", ["rope", "sinusoidal", "learned", "alibi"])
def test_model_distinguishes_positions(position: str) -> None:
    """Permuting the earlier tokens changes the last logits, except without positions."""

    def last(position: str, order: list[int]) -> Tensor:
        a = Architecture(**SMALL, n_layers=1, position=position)
        return LanguageModel(a)(weights_of(a), torch.tensor(order).view(1, 1, -1))[0, 0, -1]

    assert not torch.allclose(last(position, [1, 2, 3, 4]), last(position, [2, 1, 3, 4]))
    assert_near(last("none", [1, 2, 3, 4]), last("none", [2, 1, 3, 4]), 1e-12)


# documents --------------------------------------------------------------------------------------


def test_document_numbers_begin_at_the_end_of_text() -> None:
    ids = torch.tensor([[[5, 0, 7, 7, 0, 0, 3]]])
    assert document_numbers(ids, 0).tolist() == [[[0, 1, 1, 1, 2, 3, 3]]]
    assert document_numbers(ids, 7).tolist() == [[[0, 0, 1, 2, 2, 2, 2]]]
    a = Architecture(**SMALL, attend_across_documents=False)
    weights = weights_of(a)
    by_end = [LanguageModel(a.model_copy(update={"end_of_text": end})).activations(weights, ids)
              for end in (0, 7)]  # fmt: skip
    by_number = [LanguageModel(a).activations(weights, ids, documents=document_numbers(ids, end))
                 for end in (0, 7)]  # fmt: skip
    assert all(torch.equal(x, y) for x, y in zip(by_end, by_number, strict=True))
    assert not torch.allclose(*by_end)


def test_end_of_text_is_where_documents_are_cut() -> None:
    vocabulary = merge_pretokens({b"a": 1, b" few": 1, b" words": 1}, 260, [END_OF_TEXT])
    tokenizer = Tokenizer(*vocabulary, [END_OF_TEXT])
    default = Architecture(**SMALL).end_of_text
    assert tokenizer.encode(f"few{END_OF_TEXT}a").count(default) == 1
    assert tokenizer.encode(END_OF_TEXT) == [default]


@pytest.mark.parametrize("position", ["rope", "alibi", "none"])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_documents_equal_each_piece_alone(position: str, kv_heads: int) -> None:
    """Relative positions do not depend on the start of a piece."""
    a = Architecture(
        **SMALL | {"context_length": 12}, position=position, n_kv_heads=kv_heads,
        attend_across_documents=False,
    )  # fmt: skip
    model, weights = LanguageModel(a), weights_of(a, 2)
    ids = torch.tensor([[5, 6, 0, 7, 8, 9, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 0]])
    logits = model(weights, ids.unsqueeze(1))
    for slot, cuts in ((0, [0, 2, 6, 7, 12]), (1, [0, 11, 12])):
        own = {name: w[slot : slot + 1] for name, w in weights.items()}
        for start, end in pairwise(cuts):
            alone = model(own, ids[slot, start:end].view(1, 1, -1))
            assert_near(logits[slot, :, start:end], alone[0], 1e-6)
    across = LanguageModel(a.model_copy(update={"attend_across_documents": True}))
    assert not torch.allclose(logits[0, :, 3:], across(weights, ids.unsqueeze(1))[0, :, 3:])


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_positions_count_on_across_documents(position: str) -> None:
    """Changing other pieces does not change a piece; moving it does."""
    a = Architecture(**SMALL, position=position, attend_across_documents=False)
    model, weights = LanguageModel(a), weights_of(a)
    original, other, moved = ([4, 5, 0, 6, 7], [8, 9, 0, 6, 7], [5, 0, 6, 7, 7])
    logits = [
        model(weights, torch.tensor(ids).view(1, 1, -1))[0, 0] for ids in (original, other, moved)
    ]
    assert torch.equal(logits[0][2:], logits[1][2:])
    assert not torch.allclose(logits[0][2:4], logits[2][1:3])


def test_documents_may_be_given() -> None:
    a = Architecture(**SMALL)
    given = torch.tensor([0, 0, 1, 1, 1, 2, 2]).expand(1, 2, 7)
    ids = torch.where(given.diff(prepend=given[..., :1], dim=-1) > 0, 0, 5)
    separate = LanguageModel(a.model_copy(update={"attend_across_documents": False}))
    weights = weights_of(a)
    by_number = LanguageModel(a).activations(weights, ids, documents=given)
    assert torch.equal(by_number, separate.activations(weights, ids))


# gradients --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("choice", SINGLE)
def test_gradient_of_a_choice_equals_finite_differences(choice: str) -> None:
    """All weights of one block and the head, in float64, along random directions."""
    heads = SINGLE[choice].get("n_heads", 2)
    a = Architecture.model_construct(**{
        **{n: f.default for n, f in Architecture.model_fields.items()}, "vocab_size": 5,
        "n_kv_heads": heads, **SINGLE[choice], "n_heads": heads, "d_model": 2 * heads, "d_ff": 4,
        "n_layers": 1, "context_length": 3,
    })  # fmt: skip
    weights, model = weights_of(a, 2), LanguageModel(a)
    ids = torch.tensor([[[1, 0, 2]], [[3, 3, 4]]])

    def logits(*values: Tensor) -> Tensor:
        return model(dict(zip(weights, values, strict=True)), ids)

    inputs = [w.requires_grad_() for w in weights.values()]
    assert torch.autograd.gradcheck(logits, inputs, fast_mode=True, atol=1e-6)


# bits -------------------------------------------------------------------------------------------

ROWS: dict[str, Any] = {  # (x (K, 3, n), w (K, n), b (K, n)) → (K, 3, n)
    "layernorm": lambda x, w, b: layernorm(w, b, x),
    "rmsnorm": lambda x, w, _: rmsnorm(w, x),
    "soft cap": lambda x, w, b: soft_cap(x, 2.0),
}


@pytest.mark.parametrize("layer", ROWS)
@pytest.mark.parametrize("n", [*range(1, 9), 15, 17, 31, 33, 257, 263])
def test_slot_keeps_its_bits_at_any_width(layer: str, n: int) -> None:
    """Forward and backward: the place of a kernel's tail must not change bits."""
    x = normal(5, 3, n, dtype=torch.float32).requires_grad_()
    w, b = (normal(5, n, seed=s, dtype=torch.float32).requires_grad_() for s in (1, 2))
    up = normal(5, 3, n, seed=3, dtype=torch.float32)
    inputs = (x, w, b)

    def run(slots: slice) -> list[Tensor | None]:
        y = ROWS[layer](*(t[slots] for t in inputs))
        return [y, *torch.autograd.grad(y, inputs, up[slots], allow_unused=True)]

    for k in range(1, 6):
        stacked = run(slice(k))
        for slot in range(k):
            alone = run(slice(slot, slot + 1))
            assert torch.equal(alone[0][0], stacked[0][slot])  # type: ignore[index]
            for a, s in zip(alone[1:], stacked[1:], strict=True):
                assert (a is None) == (s is None)
                assert a is None or torch.equal(a[slot], s[slot])  # type: ignore[index]


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
@pytest.mark.parametrize("d_ff", [32, 64, 96, 288])
def test_activation_keeps_its_bits_at_multiples_of_32(activation: str, d_ff: int) -> None:
    function: Any = ACTIVATIONS[activation]
    x, up = (normal(5, 7, d_ff, seed=s, dtype=torch.float32) for s in (0, 1))
    x.requires_grad_()
    y = function(x)
    (grad,) = torch.autograd.grad(y, x, up)
    for slot in range(5):
        own = x[slot : slot + 1].detach().clone().requires_grad_()
        alone = function(own)
        assert torch.equal(alone[0], y[slot])
        assert torch.equal(torch.autograd.grad(alone, own, up[slot : slot + 1])[0][0], grad[slot])
