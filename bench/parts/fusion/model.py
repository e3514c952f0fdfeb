"""The language model as a user writes it, of torch's own parts, to compare ours with.

Names and values of its weights are those of `TransformerLM` of model/network/transformer.py, so
that both models start equal. B = sequences, T = tokens, D = width, H = heads, V = vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from model.network.transformer import initial_weight
from model.spec.architecture import Architecture, parameter_shapes


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.n_heads = a.n_heads
        for name in ("q_proj", "k_proj", "v_proj", "output_proj"):
            self.add_module(name, nn.Linear(a.d_model, a.d_model, bias=False))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map activations (B, T, D) to (B, T, D)."""
        q, k, v = (
            project(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, D/H)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output_proj(y.transpose(1, 2).flatten(2))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of (B, H, T, d) by its angle, (T, d/2)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    both = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return both.flatten(-2).type_as(x)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.w1 = nn.Linear(a.d_model, a.d_ff, bias=False)
        self.w2 = nn.Linear(a.d_ff, a.d_model, bias=False)
        self.w3 = nn.Linear(a.d_model, a.d_ff, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map activations (B, T, D) to (B, T, D)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.attn, self.ffn = Attention(a), FeedForward(a)
        self.ln1, self.ln2 = (nn.RMSNorm(a.d_model, eps=1e-5) for _ in range(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map activations (B, T, D) to (B, T, D)."""
        x = x + self.attn(self.ln1(x), cos, sin)
        return x + self.ffn(self.ln2(x))


class PlainModel(nn.Module):
    """Language model of an architecture with all choices at their defaults."""

    def __init__(self, a: Architecture, seed: int) -> None:
        super().__init__()
        self.token_embeddings = nn.Embedding(a.vocab_size, a.d_model)
        self.layers = nn.ModuleList(Block(a) for _ in range(a.n_layers))
        self.ln_final = nn.RMSNorm(a.d_model, eps=1e-5)
        self.lm_head = nn.Linear(a.d_model, a.vocab_size, bias=False)
        pairs = torch.arange(0, a.d_head, 2) / a.d_head
        angles = torch.arange(a.context_length)[:, None] * a.rope_theta**-pairs  # (T, d/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        shapes = parameter_shapes(a)
        self.load_state_dict({n: initial_weight(seed, n, shape) for n, shape in shapes.items()})

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) of token ids (B, T)."""
        x = self.token_embeddings(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.lm_head(self.ln_final(x))
