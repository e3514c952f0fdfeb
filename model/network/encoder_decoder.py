"""The encoder–decoder: a stack of K Transformers that read one sequence and write another.

K = slots in a stack, B = pairs, S = tokens of a source, T = tokens of a target, D = width,
V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from model.network.attention import Attend, attend_to
from model.network.block import Sight
from model.network.dropout import Dropout
from model.network.head import Head
from model.network.layers import Weights
from model.network.transformer import Trunk, place_parameter
from model.spec.architecture import Architecture, parameter_shapes


class EncoderDecoder:
    """The computation of one architecture with an encoder; both sides share one vocabulary.

    Args:
        architecture: what to compute.

    Source: Vaswani et al. 2017, section 3 (arXiv:1706.03762).
    """

    def __init__(self, architecture: Architecture) -> None:
        a = architecture
        self._decoder = Trunk(a, a.decoder)
        first = self._decoder.num_places
        # a place that no layer has: they begin at 1, and a block of the encoder has two
        self._encoder = Trunk(a, a.encoder, first, input_place=1 + first + 2 * a.n_encoder_layers)
        self.head = Head.of(a)
        self._end_of_text = a.end_of_text

    def __call__(
        self, weights: Weights, ids: Tensor, sources: Tensor, *, drop: Dropout | None = None
    ) -> Tensor:
        """Logits of the next token of the target at every position, (K, B, T, V).

        See `activations`.
        """
        return self.head(weights, self.activations(weights, ids, sources, drop=drop))

    def activations(
        self, weights: Weights, ids: Tensor, sources: Tensor, *, drop: Dropout | None = None
    ) -> Tensor:
        """What the head is given at every position of the target, from those before it.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K.
            ids: targets so far, (K, B, T), int64 in [0, V).
            sources: (K, B, S); what follows the first end of text is padding.
            drop: what this tick drops; None drops nothing.

        Returns:
            (K, B, T, D).
        """
        drop = drop or Dropout()
        return self.decode(weights, ids, *self.encode(weights, sources, drop), drop)

    def encode(self, weights: Weights, sources: Tensor, drop: Dropout) -> tuple[Tensor, Attend]:
        """What is made of the sources (K, B, S): (K, B, S, D), and what lets a target see it."""
        is_text = self._is_text(sources)
        bias = self._encoder.bias(weights, sources)
        mask = is_text if bias is None else torch.where(is_text, bias, -math.inf)
        memory = self._encoder(weights, sources, Sight(attend_to(mask, drop.attention)), drop)
        return memory, attend_to(is_text, drop.attention)

    def decode(
        self, weights: Weights, ids: Tensor, memory: Tensor, attend: Attend, drop: Dropout
    ) -> Tensor:
        """From targets so far, (K, B, T), given what `encode` made, to (K, B, T, D)."""
        own = attend_to(self._decoder.bias(weights, ids), drop.attention)
        sight = Sight(own, memory, attend)
        return self._decoder(weights, ids, sight, drop)

    def greedy(self, weights: Weights, sources: Tensor, length: int) -> Tensor:
        """The most probable next token, again and again.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K.
            sources: (K, B, S), as for a pass.
            length: the most tokens of a target, T.

        Returns:
            (K, B, T) int64: each target up to its end of text, if it has one; what follows it
            means nothing.
        """
        memory, attend = self.encode(weights, sources, Dropout())
        ids = sources.new_full((*sources.shape[:2], 1), self._end_of_text)  # begins each target
        for _ in range(length):
            last = self.decode(weights, ids, memory, attend, Dropout())[:, :, -1:]
            ids = torch.cat([ids, self.head(weights, last).argmax(-1)], -1)
            if (ids[..., 1:] == self._end_of_text).any(-1).all():
                break
        return ids[..., 1:]

    def _is_text(self, sources: Tensor) -> Tensor:
        """Which tokens are no padding, their end of text included: (KB, 1, 1, S)."""
        is_end = sources == self._end_of_text
        before = is_end.cumsum(-1) - is_end.long()
        return (before == 0).flatten(0, 1)[:, None, None, :]


class TransformerPair(nn.Module):
    """One trained encoder–decoder as a torch module, K = 1.

    Args:
        architecture: one with an encoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self._compute = EncoderDecoder(architecture)

    @classmethod
    def of(cls, architecture: Architecture, weights: Mapping[str, Tensor]) -> Self:
        """The module with given weights, by the names of `parameter_shapes` and without K."""
        model = cls(architecture)
        for name in parameter_shapes(architecture):
            place_parameter(model, name, nn.Parameter(weights[name].clone().unsqueeze(0)))
        return model

    def forward(self, ids: Tensor, sources: Tensor) -> Tensor:
        """Logits of the next token of targets so far, (1, B, T), whose sources are (1, B, S).

        Returns:
            (1, B, T, V).
        """
        return self._compute(dict(self.named_parameters()), ids, sources)
