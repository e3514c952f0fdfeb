"""A corpus on the device: sequences are cut out there, by their numbers.

K = slots in a stack, b = sequences of a micro-batch, T = tokens, S = tokens of a source, N = pairs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.corpus.dataset import IGNORED, Dataset, TextDataset, Tokens
from model.corpus.pairs import PairDataset
from model.spec.architecture import Architecture

# Of the memory that is free, what a corpus may take; a larger one stays with the host.
_SHARE = 0.25


class DeviceDataset(Protocol):
    """As `reading.Reading`, but of tensors."""

    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        """Inputs and targets, (K, b, T) int64, and of pairs sources, (K, b, S)."""
        ...


def on_device(data: Dataset, device: torch.device) -> DeviceDataset | None:
    """Data on a GPU; None if they do not fit there, or the device is another one."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if data.nbytes > _SHARE * free:
        return None
    return put(data, device)


def put(data: Dataset, device: torch.device) -> DeviceDataset:
    """Data on a device."""
    if isinstance(data, PairDataset):
        return _DevicePairs(data, device)
    assert isinstance(data, TextDataset)
    return _DeviceText(data, device)


class _Ids:
    """Token ids that take no more room than on the disk."""

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self._mask = int(np.iinfo(tokens.dtype).max)
        # as signed integers, which torch can index: the mask makes them unsigned again
        signed = np.ascontiguousarray(tokens).view(f"i{tokens.dtype.itemsize}")
        self._ids = torch.from_numpy(signed.copy()).to(device)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._ids[index].long() & self._mask


class _DeviceText:
    def __init__(self, data: TextDataset, device: torch.device) -> None:
        self._ids = _Ids(data.tokens, device)

    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        places = torch.arange(a.context_length, device=numbers.device)
        index = numbers.unsqueeze(-1) * a.context_length + places
        return self._ids[index], self._ids[index + 1]


class _DevicePairs:
    def __init__(self, data: PairDataset, device: torch.device) -> None:
        self._ids = _Ids(data.tokens, device)
        self._bounds = torch.from_numpy(data.bounds).to(device)
        self._end = data.end_of_text

    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        end = numbers.new_full((*numbers.shape, 1), self._end)
        source = self._rows(2 * numbers, 0, a.source_length - 1, self._end)
        inputs = self._rows(2 * numbers + 1, 0, a.context_length - 1, self._end)
        targets = self._rows(2 * numbers + 1, 1, a.context_length, IGNORED)
        return torch.cat([end, inputs], -1), targets, torch.cat([source, end], -1)

    def _rows(self, sides: Tensor, ends: int, length: int, padding: int) -> Tensor:
        """As `PairDataset._rows`, of the sides with these numbers."""
        begin, stop = self._bounds[sides].unsqueeze(-1), self._bounds[sides + 1].unsqueeze(-1)
        index = begin + torch.arange(length, device=sides.device)
        ids = self._ids[index.minimum(stop - 1)]
        return torch.where(index < stop - 1 + ends, ids, padding)
