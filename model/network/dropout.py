"""Dropout in a stack: the slots that drop at each place, and the masks of one tick.

K = slots in a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.device.async_copy import begin_upload
from model.randomness import DropoutMasks

PLACES = ("embedding", "attention", "residual", "lora")  # of dropout, each with its rate


@dataclass(frozen=True)
class SlotMasks:
    """Masks of some slots of a stack, which are computed apart from the others.

    Attributes:
        slots: slots with masks, (A,) int64 in rising order.
        others: slots without masks, (K − A,).
        order: index of each slot in the concatenation of `slots` and `others`, (K,).
        masks: masks of `slots`.
        drops: True for those of `slots` that drop anything, (A,) bool; None: all do.
    """

    slots: Tensor
    others: Tensor
    order: Tensor
    masks: DropoutMasks
    drops: Tensor | None = None


@dataclass(frozen=True)
class Dropout:
    """Dropout masks of one tick of a stack; None for a place at which no slot drops.

    Attributes:
        embedding: masks of the token embeddings.
        attention: masks of the attention probabilities.
        residual: masks of the values that the branches of a block add to the residual stream.
        lora: masks of the inputs of LoRA's matrices.
    """

    embedding: DropoutMasks | None = None
    attention: SlotMasks | None = None
    residual: DropoutMasks | None = None
    lora: DropoutMasks | None = None


class Dropping:
    """Makes the masks of a stack's ticks; keeps the indices for it on the device.

    A slot's own rate decides if it drops attention, and with it the path that computes the
    attention: the path does not depend on the slot's neighbours.

    Args:
        embedding: True if a slot drops token embeddings.
        attention: slots that drop attention probabilities, in rising order.
        residual: True if a slot drops what the branches add.
        width: K.
        device: device of the stack.
        adapters: True if a slot drops inputs of LoRA's matrices.
        together: True to compute attention both with and without dropout for all slots, and pick
            one for each: no shape of a tensor then depends on the number of slots that drop.
    """

    def __init__(
        self,
        embedding: bool,
        attention: tuple[int, ...],
        residual: bool,
        width: int,
        device: torch.device,
        *,
        adapters: bool = False,
        together: bool = False,
    ) -> None:
        self._embedding, self._attention, self._residual = embedding, attention, residual
        self._adapters = adapters
        self._together = together
        if attention and together:
            attention = tuple(range(width))
        others = [slot for slot in range(width) if slot not in attention]
        order = np.argsort([*attention, *others])
        self._slots, self._others, self._order = (
            begin_upload(np.array(index, np.int64), device) for index in (attention, others, order)
        )

    def masks(self, keys: Tensor, rates: Tensor) -> Dropout:
        """Return the masks of a tick.

        Args:
            keys: random key of each slot, (K,) int64.
            rates: (4, K), rate at each of `PLACES`, in [0, 1), float32.
        """
        embedding, attention, residual, adapters = rates
        slot_masks = None
        if self._attention:
            masks = DropoutMasks(keys[self._slots], attention[self._slots])
            drops = attention > 0 if self._together else None
            slot_masks = SlotMasks(self._slots, self._others, self._order, masks, drops)
        return Dropout(
            DropoutMasks(keys, embedding) if self._embedding else None,
            slot_masks,
            DropoutMasks(keys, residual) if self._residual else None,
            DropoutMasks(keys, adapters) if self._adapters else None,
        )
