"""Multi-head attention, and the masks that decide which tokens a token attends to.

K = slots in a stack, B = sequences, T = tokens, S = tokens attended to, D = width, H = heads,
d = width of a head. The heads of keys and values may be fewer, H′, each shared by H/H′ query heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from model.network.dropout import SlotMasks
from model.network.layers import Weights, dense_gradient, softmax
from model.network.lora import projections
from model.network.norms import rmsnorm
from model.network.positions import Position, Turn, rope_both
from model.randomness import DropoutMasks

# queries (KB, H, T, d), keys and values (KB, H′, S, d), index of the layer → (KB, H, T, d)
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
# weights of a block, name of the layer, queries (K, B, T, H, d), keys (K, B, S, H′, d) → both,
# normalized
HeadNorm = Callable[[Weights, str, Tensor, Tensor], tuple[Tensor, Tensor]]


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return softmax(q·kᵀ/√d)·v.

    Args:
        q: (..., T, d).
        k: (..., S, d).
        v: (..., S, e).
        mask: (..., T, S) bool, True = attend.

    Returns:
        (..., T, e).

    Source: Vaswani et al. 2017, equation 1 (arXiv:1706.03762).
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def no_head_norm(w: Weights, name: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys unchanged."""
    return q, k


def qk_norm(
    w: Weights, name: str, q: Tensor, k: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Normalize each head's queries and keys by rmsnorm, with gains that the heads share.

    Source: Henry et al. 2020 (arXiv:2010.04245); with rmsnorm and gains as in Qwen Team 2025
    (arXiv:2505.09388).
    """
    q = rmsnorm(w[f"{name}.q_norm.weight"], q, eps)
    k = rmsnorm(w[f"{name}.k_norm.weight"], k, eps)
    return dense_gradient(q), dense_gradient(k)


@dataclass(frozen=True)
class Attention:
    """Attention layer of the blocks of a model; its choices are made when the model is built.

    Attributes:
        name: name of the layer: `attn`, or `cross` if it attends to an encoder's output.
        num_heads: H.
        num_kv_heads: H′, a divisor of H.
        norm: norm of queries and keys, before positions are applied.
        turn: applies positions to queries and keys.
        query_factor: factor of the queries, and so of the scores.
    """

    name: str
    num_heads: int
    num_kv_heads: int
    norm: HeadNorm
    turn: Turn
    query_factor: float = 1.0

    def __call__(
        self,
        w: Weights,
        x: Tensor,
        context: Tensor,
        attend: Attend,
        layer_index: int = 0,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Project to heads, attend, project back.

        Args:
            w: `NAME.{q,k,v,output}_proj.weight`, the biases that there are, and gains
                `NAME.{q,k}_norm.weight` if normalized.
            x: (K, B, T, D), input of the queries.
            context: (K, B, S, D), input of the keys and values; `x` in self-attention.
            attend: attention with a mask.
            layer_index: index of the layer, unique in a model.
            positions: (K, B, T) or (T,); None means 0 … T−1.

        Returns:
            (K, B, T, D).
        """
        d = w[f"{self.name}.q_proj.weight"].shape[1] // self.num_heads
        lead, few = (*x.shape[:3], self.num_heads, d), (*context.shape[:3], self.num_kv_heads, d)
        names = [f"{self.name}.{part}_proj" for part in "qkv"]
        if context is x:
            q, k, v = projections(w, names, x)
        else:
            (q,), (k, v) = projections(w, names[:1], x), projections(w, names[1:], context)
        q = q.view(lead)  # (K, B, T, H, d)
        k, v = k.view(few), v.view(few)  # (K, B, S, H′, d)
        q, k = self.norm(w, self.name, q, k)
        if self.query_factor != 1:
            q = q * self.query_factor
        q, k, v = (heads.flatten(0, 1).transpose(1, 2) for heads in (q, k, v))  # (KB, H, T, d)
        q, k = self.turn(q, k, positions)
        y = attend(q, k, v, layer_index)  # (KB, H, T, d)
        y = y.transpose(1, 2).reshape(*x.shape[:3], -1)
        return projections(w, [f"{self.name}.output_proj"], y)[0]


def attend_causally(q: Tensor, k: Tensor, v: Tensor, layer_index: int = 0) -> Tensor:
    """Let each token attend to itself and all earlier ones."""
    shared = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)


def attend_by(mask: Tensor) -> Attend:
    """Return attention with a mask.

    Args:
        mask: (1 or KB, 1 or H, 1 or T, S): bool, True = attend; or floating, added to the scores.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, layer_index: int) -> Tensor:
        shared = k.shape[1] != q.shape[1]
        cast = mask if mask.dtype == torch.bool else mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=cast, enable_gqa=shared)

    return attend


@cache
def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return a mask, (1, 1, T, T), True where a token may attend: itself and earlier tokens."""
    with torch.inference_mode(False):  # the cached tensor must serve training as well
        return torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()


def within_documents(documents: Tensor, bias: Tensor | None) -> Tensor:
    """Return a mask, or a bias, that keeps attention within documents.

    Args:
        documents: number of each token's document, (K, B, T).
        bias: (1 or KB, H, T, T), added to the scores, later tokens at −∞; None for no bias.

    Returns:
        (KB, 1, T, T) bool, True = attend; with a bias (KB, H, T, T) float.
    """
    number = documents.flatten(0, 1)  # (KB, T)
    same = (number.unsqueeze(-1) == number.unsqueeze(-2)).unsqueeze(1)  # (KB, 1, T, T)
    if bias is None:
        return same & causal_mask(number.shape[-1], number.device)
    return torch.where(same, bias, -math.inf)


def of_each_sequence(bias: Tensor, num_sequences: int) -> Tensor:
    """Repeat a bias for each sequence of a stack.

    Args:
        bias: (1 or K, H, T, T), of all slots or of each.
        num_sequences: B.

    Returns:
        (1 or KB, H, T, T); a bias that all slots share is returned unchanged.
    """
    # A learned bias is repeated even in a stack of one slot: its gradient is a sum over sequences,
    # and the order of this sum must not depend on the width.
    is_shared = len(bias) == 1 and not bias.requires_grad
    return bias if is_shared else bias.repeat_interleave(num_sequences, 0)


def attend_to(mask: Tensor | None, drop: SlotMasks | None) -> Attend:
    """Return the attention of one pass.

    Args:
        mask: as for `attend_by`; None is causal.
        drop: slots that drop probabilities, and their masks; None if none does.
    """
    if drop:
        return attend_with_dropout(mask, drop)
    return attend_causally if mask is None else attend_by(mask)


def observed(attend: Attend, observe: Callable[[str, Tensor], None]) -> Attend:
    """Return an attention that shows its scores q·kᵀ/√d, without mask and bias, (KB, H, T, S)."""

    def attend_observed(q: Tensor, k: Tensor, v: Tensor, layer_index: int) -> Tensor:
        keys = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        observe("scores", q @ keys.mT * q.shape[-1] ** -0.5)
        return attend(q, k, v, layer_index)

    return attend_observed


def attend_with_dropout(mask: Tensor | None, drop: SlotMasks) -> Attend:
    """Return the attention of a stack in which some slots drop probabilities.

    These slots are computed operation by operation, since torch's fused attention has no keyed
    dropout; the others use it as if they were alone.

    Args:
        mask: as for `attend_by`; None is causal.
        drop: slots that drop, and their masks.
    """
    num = len(drop.order)
    dropping = _attend_explicitly(_masks(mask, num, drop.slots), drop.masks)
    if drop.drops is not None:
        return _pick_of_both(dropping, attend_to(mask, None), drop.drops)
    if not len(drop.others):
        return dropping
    plain = attend_to(_masks(mask, num, drop.others), None)

    def attend(q: Tensor, k: Tensor, v: Tensor, layer_index: int) -> Tensor:
        def part(path: Attend, slots: Tensor) -> Tensor:
            slot_q, slot_k, slot_v = (_heads(x, num, slots) for x in (q, k, v))
            return path(slot_q, slot_k, slot_v, layer_index).transpose(1, 2)  # (AB, T, H, d)

        both = torch.cat([part(dropping, drop.slots), part(plain, drop.others)])
        return _pick(both, num, drop.order).transpose(1, 2)  # (KB, H, T, d)

    return attend


def _pick_of_both(dropping: Attend, plain: Attend, drops: Tensor) -> Attend:
    """Compute both attentions for all slots, and pick one for each; `drops` is (K,) bool."""

    def attend(q: Tensor, k: Tensor, v: Tensor, layer_index: int) -> Tensor:
        each = drops.repeat_interleave(len(q) // len(drops)).view(-1, 1, 1, 1)  # (KB, 1, 1, 1)
        return torch.where(each, dropping(q, k, v, layer_index), plain(q, k, v, layer_index))

    return attend


def _pick(x: Tensor, num: int, slots: Tensor) -> Tensor:
    """Return the rows of some slots of (KB, ...), where K is `num`."""
    return x.view(num, -1, *x.shape[1:]).index_select(0, slots).flatten(0, 1)


def _masks(mask: Tensor | None, num: int, slots: Tensor) -> Tensor | None:
    """Return the masks of some slots; a mask that all slots share is returned unchanged."""
    return mask if mask is None or len(mask) == 1 else _pick(mask, num, slots)


def _heads(x: Tensor, num: int, slots: Tensor) -> Tensor:
    """Return some slots of (KB, H, T, d) with the same memory layout: bits may depend on it."""
    if x.is_contiguous():
        return _pick(x, num, slots)
    return _pick(x.transpose(1, 2), num, slots).transpose(1, 2)


def _attend_explicitly(mask: Tensor | None, drop: DropoutMasks) -> Attend:
    """Return softmax(q·kᵀ/√d + bias)·v with dropout of probabilities, which are all in memory.

    Source: Vaswani et al. 2017, section 5.4 and its published code (arXiv:1706.03762).
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, layer_index: int) -> Tensor:
        shared = q.shape[1] // k.shape[1]
        if shared > 1:
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        allowed = causal_mask(q.shape[-2], q.device) if mask is None else mask
        scores = q @ k.mT * q.shape[-1] ** -0.5  # (AB, H, T, T)
        if allowed.dtype == torch.bool:
            scores = scores.masked_fill(~allowed, -math.inf)
        else:
            scores = scores + allowed
        probabilities = softmax(scores, -1).view(drop.num_slots, -1, *scores.shape[1:])
        # a negative number: those from 0 on are the masks of embeddings and branches
        probabilities = drop(probabilities, -1 - layer_index).flatten(0, 1).to(v.dtype)
        return dense_gradient(probabilities @ v)

    return attend


def multihead_self_attention(
    wq: Tensor,
    wk: Tensor,
    wv: Tensor,
    wo: Tensor,
    x: Tensor,
    num_heads: int,
    theta: float | None = None,
    token_positions: Tensor | None = None,
) -> Tensor:
    """Causal self-attention with several heads.

    Args:
        wq: projection of the queries, (K, D, D), rows head-major.
        wk: projection of the keys, (K, H′·d, D); with H′ < H, groups of queries share a head.
        wv: projection of the values, (K, H′·d, D).
        wo: projection of the output, (K, D, D).
        x: (K, B, T, D).
        num_heads: H, a divisor of D.
        theta: base of the rotary angles; None for no rotary embedding.
        token_positions: (K, B, T) or (T,); None means 0 … T−1.

    Returns:
        (K, B, T, D).

    Source: Vaswani et al. 2017, section 3.2.2 (arXiv:1706.03762); shared key heads: Ainslie et
    al. 2023 (arXiv:2305.13245).
    """
    num_kv_heads = wk.shape[1] * num_heads // wq.shape[1]
    turn = Position().turn if theta is None else rope_both(theta)
    projections = {"q": wq, "k": wk, "v": wv, "output": wo}
    weights = {f"attn.{name}_proj.weight": w for name, w in projections.items()}
    layer = Attention("attn", num_heads, num_kv_heads, no_head_norm, turn)
    return layer(weights, x, x, attend_causally, positions=token_positions)
