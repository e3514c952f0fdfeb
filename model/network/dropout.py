"""Dropout in a stack: which slots drop where, and the masks of one tick.

K = slots in a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.randomness import DropoutMasks

PLACES = ("embedding", "attention", "residual")  # where a slot may drop


@dataclass(frozen=True)
class SlotMasks:
    """Masks for some slots of a stack, which are computed apart from the others.

    Attributes:
        slots: which, (A,) int64 in rising order.
        others: the slots without masks, (K − A,).
        order: where each slot is found after `slots` and `others` are put together, (K,).
        masks: of `slots`.
        drops: whether each of `slots` drops anything at all, (A,) bool; None: all do.
    """

    slots: Tensor
    others: Tensor
    order: Tensor
    masks: DropoutMasks
    drops: Tensor | None = None


@dataclass(frozen=True)
class Dropout:
    """What one tick of a stack drops; None where no slot drops anything.

    Attributes:
        embedding: masks of the token embeddings.
        attention: masks of the attention probabilities.
        residual: masks of what the branches of a block add to the residual stream.
    """

    embedding: DropoutMasks | None = None
    attention: SlotMasks | None = None
    residual: DropoutMasks | None = None


class Dropping:
    """Which slots of a stack drop where, with the indices that this takes on the device.

    Whether a slot drops attention follows from its own rate, so which path computes it does not
    depend on its neighbours.

    Args:
        embedding: whether a slot drops token embeddings.
        attention: the slots that drop attention probabilities, in rising order.
        residual: whether a slot drops what the branches add.
        width: K.
        device: of the stack.
        together: whether attention is computed in both ways for all slots, and one of them picked
            for each: how many slots drop is then no part of any tensor's shape.
    """

    def __init__(
        self,
        embedding: bool,
        attention: tuple[int, ...],
        residual: bool,
        width: int,
        device: torch.device,
        *,
        together: bool = False,
    ) -> None:
        self._embedding, self._attention, self._residual = embedding, attention, residual
        self._together = together
        if attention and together:
            attention = tuple(range(width))
        others = [slot for slot in range(width) if slot not in attention]
        order = np.argsort([*attention, *others])
        self._slots, self._others, self._order = (
            torch.tensor(index, dtype=torch.int64, device=device)
            for index in (attention, others, order.tolist())
        )

    def masks(self, keys: Tensor, rates: Tensor) -> Dropout:
        """The masks of a tick.

        Args:
            keys: one of each slot, (K,) int64.
            rates: (3, K): of dropping in each of `PLACES`, in [0, 1), float32.
        """
        embedding, attention, residual = rates
        own = None
        if self._attention:
            masks = DropoutMasks(keys[self._slots], attention[self._slots])
            drops = attention > 0 if self._together else None
            own = SlotMasks(self._slots, self._others, self._order, masks, drops)
        return Dropout(
            DropoutMasks(keys, embedding) if self._embedding else None,
            own,
            DropoutMasks(keys, residual) if self._residual else None,
        )
