"""Dropout in a stack: which slots drop where, and the masks of one tick.

K = slots in a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.randomness import DropoutMasks

Floats = npt.NDArray[np.float64]

PLACES = ("embedding", "attention", "residual")  # the rows of `DropoutRates`


@dataclass(frozen=True)
class SlotMasks:
    """Masks for some slots of a stack, which are computed apart from the others.

    Attributes:
        slots: which, (A,) int64 in rising order.
        others: the slots without masks, (K − A,).
        order: where each slot is found after `slots` and `others` are put together, (K,).
        masks: of `slots`.
    """

    slots: Tensor
    others: Tensor
    order: Tensor
    masks: DropoutMasks


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


class DropoutRates:
    """The probabilities of one quantum, on the device.

    Args:
        rates: (3, K): of dropping in each of `PLACES`, in [0, 1).
        device: of the stack.
    """

    def __init__(self, rates: Floats, device: torch.device) -> None:
        self._embedding, self._attention, self._residual = (
            torch.from_numpy(rate).to(device, torch.float32) if rate.any() else None
            for rate in rates
        )
        # Whether a slot drops attention follows from its own rate, so which path computes it does
        # not depend on its neighbours.
        slots, others = np.flatnonzero(rates[1]), np.flatnonzero(rates[1] == 0)
        self._slots, self._others, self._order = (
            torch.from_numpy(index).to(device)
            for index in (slots, others, np.argsort(np.concatenate([slots, others])))
        )

    def masks(self, keys: Tensor) -> Dropout:
        """The masks of a tick, given a key of each slot, (K,) int64."""
        embedding, residual = (
            None if rate is None else DropoutMasks(keys, rate)
            for rate in (self._embedding, self._residual)
        )
        attention = None
        if self._attention is not None:
            own = DropoutMasks(keys[self._slots], self._attention[self._slots])
            attention = SlotMasks(self._slots, self._others, self._order, own)
        return Dropout(embedding, attention, residual)
