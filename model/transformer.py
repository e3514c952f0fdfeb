"""The language model: a stack of K decoder-only Transformers of one shape.

`language_model` is the computation, a function of named weights, so that the stack may keep them
in whatever memory layout is fastest. `TransformerLM` is its face as a torch module.

K = slots in a stack, B = sequences, T = tokens, D = width, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.architecture import Architecture
from model.layers import embedding, linear, rmsnorm, transformer_block
from model.randomness import DropoutMasks, derive_key, truncated_normal

_BOUND = 3.0  # initial weights are cut at three standard deviations
_BLOCK_MATRICES = (
    "attn.q_proj.weight",
    "attn.k_proj.weight",
    "attn.v_proj.weight",
    "attn.output_proj.weight",
    "ffn.w1.weight",
    "ffn.w2.weight",
    "ffn.w3.weight",
)
_BLOCK_GAINS = ("ln1.weight", "ln2.weight")


def parameter_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Name → shape of every parameter of one model, without the leading K.

    The matrices come first, then the embedding and the gains: weight decay touches a prefix.
    """
    matrices = ((a.d_model, a.d_model),) * 4 + (
        (a.d_ff, a.d_model),
        (a.d_model, a.d_ff),
        (a.d_ff, a.d_model),
    )
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(a.n_layers):
        for name, shape in zip(_BLOCK_MATRICES, matrices, strict=True):
            shapes[f"layers.{i}.{name}"] = shape
    shapes["lm_head.weight"] = (a.vocab_size, a.d_model)
    shapes["token_embeddings.weight"] = (a.vocab_size, a.d_model)
    for i in range(a.n_layers):
        for name in _BLOCK_GAINS:
            shapes[f"layers.{i}.{name}"] = (a.d_model,)
    shapes["ln_final.weight"] = (a.d_model,)
    return shapes


def is_decayed(name: str) -> bool:
    """Whether λ touches a parameter: the matrices, not the embedding and the gains."""
    return not name.startswith("token_embeddings") and ".ln" not in f".{name}"


def initial_weight(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that a trial starts from, a function of its seed and the weight's name.

    Gains are 1; the embedding is N(0, 1) and a matrix N(0, 2/(d_in + d_out)), both cut at three
    standard deviations.

    Returns:
        float32 on the CPU, of the given shape.

    Source: Glorot and Bengio 2010, equation 16, as a normal distribution.
    """
    if len(shape) == 1:
        return torch.ones(shape)
    std = 1.0 if name.startswith("token_embeddings") else math.sqrt(2 / sum(shape))
    return truncated_normal(derive_key(seed, "weights", name), shape, std, _BOUND)


def language_model(
    weights: Mapping[str, Tensor],
    ids: Tensor,
    n_layers: int,
    n_heads: int,
    theta: float | None,
    drop: DropoutMasks | None = None,
) -> Tensor:
    """Logits of the next token at every position.

    Args:
        weights: by the names of `parameter_shapes`, each with a leading K.
        ids: (K, B, T), int64 in [0, V).
        n_layers: blocks.
        n_heads: attention heads.
        theta: base of the rotary angles.
        drop: dropout masks for this tick; None drops nothing.

    Returns:
        (K, B, T, V).
    """
    x = embedding(weights["token_embeddings.weight"], ids)  # (K, B, T, D)
    if drop:
        x = drop(x, 0)
    for i in range(n_layers):
        block = {name: weights[f"layers.{i}.{name}"] for name in _BLOCK_MATRICES + _BLOCK_GAINS}
        x = transformer_block(block, x, n_heads, theta, drop, place=i)
    return linear(weights["lm_head.weight"], rmsnorm(weights["ln_final.weight"], x))


class TransformerLM(nn.Module):
    """K Transformer language models as one torch module; K = 1 for a single one.

    Args:
        k: slots.
        vocab_size: V.
        context_length: longest sequence, in tokens.
        d_model: D.
        num_layers: blocks.
        num_heads: attention heads.
        d_ff: inner width of SwiGLU.
        rope_theta: base of the rotary angles.
        seed: key of the initial weights, one for all slots or one each.

    Raises:
        ValueError: if the sizes do not fit, or `seed` is a sequence without k entries.
    """

    def __init__(
        self,
        k: int,
        vocab_size: int,
        context_length: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        d_ff: int,
        rope_theta: float = 10_000.0,
        *,
        seed: int | tuple[int, ...] = 0,
    ) -> None:
        super().__init__()
        if d_model % num_heads or d_model // num_heads % 2:
            raise ValueError(
                f"d_model / num_heads must be a whole even number, got {d_model} / {num_heads}"
            )
        # not validated: a module may be as small as one likes, which a trial may not
        self.architecture = Architecture.model_construct(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=d_model,
            n_layers=num_layers,
            n_heads=num_heads,
            d_ff=d_ff,
            rope_theta=rope_theta,
        )
        seeds = (seed,) * k if isinstance(seed, int) else seed
        if len(seeds) != k:
            raise ValueError(f"seed needs {k} entries, one per slot, got {len(seeds)}")
        for name, shape in parameter_shapes(self.architecture).items():
            weight = torch.stack([initial_weight(each, name, shape) for each in seeds])
            self._place(name, nn.Parameter(weight))

    def _place(self, name: str, parameter: nn.Parameter) -> None:
        """Register a parameter under a dotted name, making the modules on the way."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token: ids (K, B, T) int64 → (K, B, T, V).

        Raises:
            ValueError: if T exceeds the context length.
        """
        a = self.architecture
        if ids.shape[-1] > a.context_length:
            raise ValueError(f"{ids.shape[-1]} tokens exceed the context of {a.context_length}")
        weights = dict(self.named_parameters())
        return language_model(weights, ids, a.n_layers, a.n_heads, a.rope_theta)
