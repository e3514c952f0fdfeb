"""One block of a Transformer: attention and a feed-forward layer on the residual stream.

K = slots in a stack, B = sequences, T = tokens, S = tokens of a source, D = width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from model.network.attention import Attend, Attention, attend_causally, no_head_norm, qk_norm
from model.network.feed_forward import FEED_FORWARDS, FeedForward
from model.network.layers import Weights
from model.network.norms import NORMS, Norm
from model.network.positions import Position, rope_both
from model.randomness import DropoutMasks
from model.spec.architecture import Architecture, Tower

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
class Sight:
    """What the tokens of a pass may look at.

    Attributes:
        attend: what lets a token see another one of its sequence.
        memory: what an encoder made of the source, (K, B, S, D); None in a language model.
        attend_memory: what lets a token see the source; None in a language model.
        at: where the tokens stand, (K, B, T); None means 0 … T−1.
    """

    attend: Attend
    memory: Tensor | None = None
    attend_memory: Attend | None = None
    at: Tensor | None = None


# (weights of a block, x, what may be seen, number of the place) → what is added to the stream
_Layer = Callable[[Weights, Tensor, Sight, int], Tensor]


@dataclass(frozen=True)
class Block:
    """How every block of a tower computes, picked when the model is built.

    Attributes:
        layers: name of its norm → each layer, in order.
        norm: of activations.
        place: where the norm stands.
    """

    layers: Mapping[str, _Layer]
    norm: Norm
    place: Placement

    @classmethod
    def of(cls, a: Architecture, tower: Tower, position: Position) -> Block:
        """The block that an architecture asks for."""
        head_norm = qk_norm if a.qk_norm else no_head_norm
        attention = Attention("attn", a.n_heads, a.n_kv_heads, head_norm, position.turn)
        layers = {"ln1": _attending(attention)}
        if tower.reads_memory:
            cross = Attention("cross", a.n_heads, a.n_kv_heads, head_norm, Position().turn)
            layers["ln_cross"] = _reading(cross)
        layers["ln2"] = _feeding(FEED_FORWARDS[a.activation])
        return cls(layers, NORMS[a.norm], PLACEMENTS[a.norm_placement])

    def __call__(
        self, w: Weights, x: Tensor, sight: Sight, drop: DropoutMasks | None, place: int
    ) -> Tensor:
        """Attention, to the source as well if there is one, then the feed-forward layer.

        Args:
            w: weights of this block, `attn.…`, `cross.…`, `ffn.…`, `ln1.…`, `ln_cross.…`, `ln2.…`.
            x: (K, B, T, D).
            sight: what may be seen.
            drop: masks of the layers; None drops nothing.
            place: number of its first layer in the model, so that no two share a mask.

        Returns:
            (K, B, T, D).
        """
        for number, (norm, layer) in enumerate(self.layers.items(), place):

            def normed(x: Tensor, norm: str = norm) -> Tensor:
                return self.norm(w, norm, x)

            def branch(x: Tensor, layer: _Layer = layer, number: int = number) -> Tensor:
                y = layer(w, x, sight, number)
                return drop(y, 1 + number) if drop else y  # 0 is the embedding's

            x = self.place(normed, branch, x)
        return x


def _attending(attention: Attention) -> _Layer:
    return lambda w, x, sight, place: attention(w, x, x, sight.attend, place, sight.at)


def _reading(attention: Attention) -> _Layer:
    """Attention from the target to the source."""

    def layer(w: Weights, x: Tensor, sight: Sight, place: int) -> Tensor:
        assert sight.memory is not None
        assert sight.attend_memory is not None
        return attention(w, x, sight.memory, sight.attend_memory, place)

    return layer


def _feeding(feed_forward: FeedForward) -> _Layer:
    return lambda w, x, sight, place: feed_forward(w, x)


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
        place: number of its first layer, so that no two share a mask; it has two.

    Returns:
        (K, B, T, D).
    """
    turn = Position().turn if theta is None else rope_both(theta)
    attention = Attention("attn", num_heads, num_heads, no_head_norm, turn)
    layers = {"ln1": _attending(attention), "ln2": _feeding(FEED_FORWARDS["swiglu"])}
    block = Block(layers, NORMS["rmsnorm"], PLACEMENTS["pre"])
    return block(weights, x, Sight(attend_causally), drop, place)
