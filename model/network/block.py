"""Block of a Transformer: attention and a feed-forward layer on the residual stream.

K = slots in a stack, B = sequences, T = tokens, S = tokens of a source, D = width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from model.network.attention import Attend, Attention, attend_causally, no_head_norm, qk_norm
from model.network.feed_forward import FEED_FORWARDS, FeedForward
from model.network.layers import Weights
from model.network.norms import NORMS, Norm
from model.network.positions import Position, rope_both
from model.randomness import DropoutMasks
from model.spec.architecture import Architecture
from model.spec.choices import Tower
from model.spec.multipliers import branch_multiplier, query_multiplier

Observe = Callable[[str, Tensor], None]  # of a quantity by name
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
class AttentionContext:
    """Tokens that the tokens of a pass attend to.

    Attributes:
        attend: attention to tokens of the sequence.
        memory: output of the encoder for the sources, (K, B, S, D); None in a language model.
        attend_memory: attention to the source; None in a language model.
        positions: positions of the tokens, (K, B, T); None means 0 … T−1.
    """

    attend: Attend
    memory: Tensor | None = None
    attend_memory: Attend | None = None
    positions: Tensor | None = None


# (weights of a block, x, context, index of the layer) → value added to the residual stream
_Layer = Callable[[Weights, Tensor, AttentionContext, int], Tensor]


@dataclass(frozen=True)
class Block:
    """The block of a tower; its choices are made when the model is built.

    Attributes:
        layers: name of a layer's norm → layer, in order.
        norm: norm of activations.
        placement: order of norm and residual connection.
        branch_factor: factor of the values that layers add to the residual stream.
    """

    layers: Mapping[str, _Layer]
    norm: Norm
    placement: Placement
    branch_factor: float = 1.0

    @classmethod
    def of(cls, a: Architecture, tower: Tower, position: Position) -> Block:
        """Return the block of an architecture's tower."""
        head_norm = partial(qk_norm, eps=a.norm_eps) if a.qk_norm else no_head_norm
        sizes, queries = (a.n_heads, a.n_kv_heads), query_multiplier(a)
        attention = Attention("attn", *sizes, head_norm, position.turn, queries)
        layers = {"ln1": _self_attention(attention)}
        if tower.reads_memory:
            cross = Attention("cross", *sizes, head_norm, Position().turn, queries)
            layers["ln_cross"] = _cross_attention(cross)
        layers["ln2"] = _feed_forward(FEED_FORWARDS[a.activation])
        factor = branch_multiplier(a, tower)
        norm = NORMS[a.norm](a.norm_eps)
        return cls(layers, norm, PLACEMENTS[a.norm_placement], factor)

    def __call__(
        self,
        w: Weights,
        x: Tensor,
        context: AttentionContext,
        drop: DropoutMasks | None,
        layer_index: int,
        observe: Observe | None = None,
    ) -> Tensor:
        """Apply attention, cross-attention if there is a source, and the feed-forward layer.

        Args:
            w: weights of this block, `attn.…`, `cross.…`, `ffn.…`, `ln1.…`, `ln_cross.…`, `ln2.…`.
            x: (K, B, T, D).
            context: tokens to attend to.
            drop: dropout masks of the layers; None drops nothing.
            layer_index: index of the block's first layer in the model; no two layers share a mask.
            observe: receives the value that each layer adds, by the name of its norm.

        Returns:
            (K, B, T, D).
        """
        for index, (norm, layer) in enumerate(self.layers.items(), layer_index):

            def normalized(x: Tensor, norm: str = norm) -> Tensor:
                return self.norm(w, norm, x)

            def branch(
                x: Tensor, layer: _Layer = layer, index: int = index, norm: str = norm
            ) -> Tensor:
                y = layer(w, x, context, index)
                y = y if self.branch_factor == 1 else y * self.branch_factor
                if observe:
                    observe(norm, y)
                return drop(y, 1 + index) if drop else y  # 0 is the mask of the embedding

            x = self.placement(normalized, branch, x)
        return x


def _self_attention(attention: Attention) -> _Layer:
    return lambda w, x, context, layer_index: attention(
        w, x, x, context.attend, layer_index, context.positions
    )


def _cross_attention(attention: Attention) -> _Layer:
    """Attention from the target to the source."""

    def layer(w: Weights, x: Tensor, context: AttentionContext, layer_index: int) -> Tensor:
        assert context.memory is not None
        assert context.attend_memory is not None
        return attention(w, x, context.memory, context.attend_memory, layer_index)

    return layer


def _feed_forward(feed_forward: FeedForward) -> _Layer:
    return lambda w, x, context, layer_index: feed_forward(w, x)


def transformer_block(
    weights: Weights,
    x: Tensor,
    num_heads: int,
    theta: float | None,
    drop: DropoutMasks | None = None,
    place: int = 0,
) -> Tensor:
    """Apply one block of the default architecture: pre-norm, rmsnorm and SwiGLU.

    Args:
        weights: `attn.{q,k,v,output}_proj.weight`, `ffn.w{1,2,3}.weight`, `ln{1,2}.weight`.
        x: (K, B, T, D).
        num_heads: H.
        theta: base of the rotary angles; None for no rotary embedding.
        drop: dropout masks of the two branches; None drops nothing.
        place: index of the block's first layer; it has two, and no two layers share a mask.

    Returns:
        (K, B, T, D).
    """
    turn = Position().turn if theta is None else rope_both(theta)
    attention = Attention("attn", num_heads, num_heads, no_head_norm, turn)
    layers = {"ln1": _self_attention(attention), "ln2": _feed_forward(FEED_FORWARDS["swiglu"])}
    block = Block(layers, NORMS["rmsnorm"](1e-5), PLACEMENTS["pre"])
    return block(weights, x, AttentionContext(attend_causally), drop, place)
