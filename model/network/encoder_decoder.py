"""Encoder–decoder: a stack of K Transformers that read one sequence and write another.

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
from model.network.block import AttentionContext
from model.network.dropout import Dropout
from model.network.head import Head
from model.network.layers import Weights
from model.network.transformer import Trunk, place_parameter
from model.spec.architecture import Architecture, parameter_shapes


class EncoderDecoder:
    """Computes a model with an encoder; source and target share one vocabulary.

    Args:
        architecture: architecture with an encoder.
        products: as for `LanguageModel`.

    Source: Vaswani et al. 2017, section 3 (arXiv:1706.03762).
    """

    def __init__(self, architecture: Architecture, products: torch.dtype | None = None) -> None:
        a = architecture
        self._decoder = Trunk(a, a.decoder, products=products)
        first = self._decoder.num_layers
        # An index that no layer has: masks of layers begin at 1, and a block of the encoder has 2.
        input_mask = 1 + first + 2 * a.n_encoder_layers
        self._encoder = Trunk(a, a.encoder, first, input_mask, products)
        self.head = Head.of(a, products)
        self._end_of_text = a.end_of_text

    def __call__(self, weights: Weights, ids: Tensor, sources: Tensor) -> Tensor:
        """Return the logits of the target's next token at every position, (K, B, T, V).

        Without dropout; for the arguments see `activations`.
        """
        return self.head(weights, self.activations(weights, ids, sources))

    def activations(
        self, weights: Weights, ids: Tensor, sources: Tensor, *, drop: Dropout | None = None
    ) -> Tensor:
        """Return the head's input at every position of the target.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K.
            ids: targets up to each position, (K, B, T), int64 in [0, V).
            sources: (K, B, S); tokens after the first end of text are padding.
            drop: dropout masks of this tick; None drops nothing.

        Returns:
            (K, B, T, D).
        """
        drop = drop or Dropout()
        return self.decode(weights, ids, *self.encode(weights, sources, drop), drop)

    def encode(self, weights: Weights, sources: Tensor, drop: Dropout) -> tuple[Tensor, Attend]:
        """Encode sources (K, B, S); return (K, B, S, D), and the targets' attention to it."""
        is_text = self._is_text(sources)
        bias = self._encoder.bias(weights, sources)
        mask = is_text if bias is None else torch.where(is_text, bias, -math.inf)
        memory = self._encoder(
            weights, sources, AttentionContext(attend_to(mask, drop.attention)), drop
        )
        return memory, attend_to(is_text, drop.attention)

    def decode(
        self, weights: Weights, ids: Tensor, memory: Tensor, attend: Attend, drop: Dropout
    ) -> Tensor:
        """Return (K, B, T, D) for targets (K, B, T), with the results of `encode`."""
        attend_target = attend_to(self._decoder.bias(weights, ids), drop.attention)
        context = AttentionContext(attend_target, memory, attend)
        return self._decoder(weights, ids, context, drop)

    def greedy(self, weights: Weights, sources: Tensor, length: int) -> Tensor:
        """Decode greedily: append the most probable next token until all targets end.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K.
            sources: (K, B, S), as for `activations`.
            length: most tokens of a target, T.

        Returns:
            (K, B, T) int64: the targets; tokens after an end of text are meaningless.
        """
        memory, attend = self.encode(weights, sources, Dropout())
        ids = sources.new_full((*sources.shape[:2], 1), self._end_of_text)  # starts each target
        for _ in range(length):
            last = self.decode(weights, ids, memory, attend, Dropout())[:, :, -1:]
            ids = torch.cat([ids, self.head(weights, last).argmax(-1)], -1)
            if (ids[..., 1:] == self._end_of_text).any(-1).all():
                break
        return ids[..., 1:]

    def _is_text(self, sources: Tensor) -> Tensor:
        """Return a mask, (KB, 1, 1, S), False at padding; the end of text is no padding."""
        is_end = sources == self._end_of_text
        before = is_end.cumsum(-1) - is_end.long()
        return (before == 0).flatten(0, 1)[:, None, None, :]


class TransformerPair(nn.Module):
    """A trained encoder–decoder as a torch module, K = 1.

    Args:
        architecture: architecture with an encoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self._compute = EncoderDecoder(architecture)

    @classmethod
    def of(cls, architecture: Architecture, weights: Mapping[str, Tensor]) -> Self:
        """Return a module with copies of weights.

        Args:
            architecture: architecture with an encoder.
            weights: by the names of `parameter_shapes`, without K.
        """
        model = cls(architecture)
        for name in parameter_shapes(architecture):
            place_parameter(model, name, nn.Parameter(weights[name].clone().unsqueeze(0)))
        return model

    def forward(self, ids: Tensor, sources: Tensor) -> Tensor:
        """Return the logits of the target's next token at every position.

        Args:
            ids: targets, (1, B, T) int64.
            sources: (1, B, S) int64.

        Returns:
            (1, B, T, V).
        """
        return self._compute(dict(self.named_parameters()), ids, sources)
