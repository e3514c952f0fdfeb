"""One block of a Transformer: attention and a feed-forward layer on the residual stream.

K = slots in a stack, B = sequences, T = tokens, D = width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from model.architecture import Architecture
from model.attention import Attend, SelfAttention, attend_causally, no_head_norm, qk_norm
from model.feed_forward import FEED_FORWARDS, FeedForward
from model.layers import Weights
from model.norms import NORMS, Norm
from model.positions import Position, rope_both
from model.randomness import DropoutMasks

Branch = Callable[[Tensor], Tensor]
# (norm, branch, x) → the residual stream after the branch
Placement = Callable[[Branch, Branch, Tensor], Tensor]

PLACEMENTS: Mapping[str, Placement] = {
    # Source: Xiong et al. 2020, figure 1b (arXiv:2002.04745).
    "pre": lambda norm, branch, x: x + branch(norm(x)),
    # Source: Vaswani et al. 2017, section 3.1 (arXiv:1706.03762).
    "post": lambda norm, branch, x: norm(x + branch(x)),
}


@dataclass(frozen=True)
class Block:
    """How every block of a model computes, picked when the model is built."""

    attention: SelfAttention
    feed_forward: FeedForward
    norm: Norm
    place: Placement

    @classmethod
    def of(cls, a: Architecture, position: Position) -> Block:
        """The block that an architecture asks for."""
        head_norm = qk_norm if a.qk_norm else no_head_norm
        attention = SelfAttention(a.n_heads, a.n_kv_heads, head_norm, position.turn)
        feed_forward = FEED_FORWARDS[a.activation]
        return cls(attention, feed_forward, NORMS[a.norm], PLACEMENTS[a.norm_placement])

    def __call__(
        self, w: Weights, x: Tensor, attend: Attend, drop: DropoutMasks | None, number: int
    ) -> Tensor:
        """Attention, then the feed-forward layer.

        Args:
            w: weights of this block, `attn.…`, `ffn.…`, `ln1.…`, `ln2.…`.
            x: (K, B, T, D).
            attend: what lets a token see another one.
            drop: masks of the two branches; None drops nothing.
            number: of the block, so that no two places share a mask.

        Returns:
            (K, B, T, D).
        """

        def attention(x: Tensor) -> Tensor:
            branch = self.attention(w, x, attend, number)
            return drop(branch, 2 * number + 1) if drop else branch

        def feed_forward(x: Tensor) -> Tensor:
            branch = self.feed_forward(w, x)
            return drop(branch, 2 * number + 2) if drop else branch

        x = self.place(lambda x: self.norm(w, "ln1", x), attention, x)
        return self.place(lambda x: self.norm(w, "ln2", x), feed_forward, x)


def transformer_block(
    weights: Weights,
    x: Tensor,
    num_heads: int,
    theta: float | None,
    drop: DropoutMasks | None = None,
    place: int = 0,
) -> Tensor:
    """One block of the default kind: pre-norm, rmsnorm and SwiGLU.

    Args:
        weights: `attn.{q,k,v,output}_proj.weight`, `ffn.w{1,2,3}.weight`, `ln{1,2}.weight`.
        x: (K, B, T, D).
        num_heads: H.
        theta: base of the rotary angles; None for no rotary embedding.
        drop: masks for the two branches; None drops nothing.
        place: number of the block, so that no two places share a mask.

    Returns:
        (K, B, T, D).
    """
    turn = Position().turn if theta is None else rope_both(theta)
    attention = SelfAttention(num_heads, num_heads, no_head_norm, turn)
    block = Block(attention, FEED_FORWARDS["swiglu"], NORMS["rmsnorm"], PLACEMENTS["pre"])
    return block(weights, x, attend_causally, drop, place)
