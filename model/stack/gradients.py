"""Forward and backward pass of a tick, as a function of weights, token ids and numbers.

K = slots, b = sequences of a micro-batch, T = tokens, S = tokens of a source.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.corpus.dataset import IGNORED
from model.network.dropout import Dropout
from model.network.encoder_decoder import EncoderDecoder
from model.network.layers import Weights
from model.network.transformer import LanguageModel
from model.spec.architecture import Architecture


class Gradients:
    """Computes losses and gradients of a model.

    Args:
        architecture: architecture of the model.
        products: dtype to which linear layers and head convert their operands; None for no
            conversion.
        masks_targets: True if some targets do not count, as in rows of examples; those of an
            encoder–decoder never all do.

    Attributes:
        model: the model.
        ignored: target id that does not count; None counts all.
    """

    def __init__(
        self,
        architecture: Architecture,
        products: torch.dtype | None = None,
        *,
        masks_targets: bool = False,
    ) -> None:
        has_encoder = architecture.n_encoder_layers > 0
        kind = EncoderDecoder if has_encoder else LanguageModel
        self.model = kind(architecture, products)
        self.ignored = IGNORED if has_encoder or masks_targets else None

    def __call__(
        self,
        weights: Weights,
        ids: Sequence[Tensor],
        share: Tensor,
        drop: Dropout,
        label_smoothing: Tensor | None,
        z_loss: Tensor | None,
        frozen: Weights | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run both passes.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K, which require grad.
            ids: inputs and targets (K, b, T), and for an encoder–decoder sources (K, b, S), or of
                several examples in a sequence their begins (K, b, T).
            share: factor of each slot's gradients, (K,).
            drop: dropout masks of the tick.
            label_smoothing: ε_ls, (K,); None for no smoothing.
            z_loss: λ_z, (K,); None for no z-loss.
            frozen: further weights, which get no gradients.

        Returns:
            Losses (K,), with smoothing or a z-loss also the plain ones (K,); and gradients in the
            order of `weights`.
        """
        inputs, targets, *others = ids
        every = weights if frozen is None else {**frozen, **weights}
        x = self.model.activations(every, inputs, *others, drop=drop)
        loss, *plain = self.model.head.losses(
            every, x, targets, label_smoothing, z_loss, ignore_index=self.ignored
        )
        grads = torch.autograd.grad(loss, list(weights.values()), share)
        return (loss.detach(), *plain), grads
