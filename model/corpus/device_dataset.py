"""Token ids on the device, where sequences are cut out by their numbers.

K = slots in a stack, b = sequences of a micro-batch, T = tokens, S = tokens of a source, N = pairs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from model.corpus.dataset import IGNORED, Dataset, TextDataset, Tokens
from model.corpus.examples import ExampleDataset
from model.corpus.pairs import PairDataset
from model.spec.architecture import Architecture

# Largest share of the free memory that a corpus may take; a larger corpus stays on the host.
_LARGEST_SHARE = 0.25


class DeviceDataset(Protocol):
    """Dataset whose batches are tensors on the device; see `Dataset` for arrays."""

    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        """Return inputs and targets, (K, b, T) int64, and for pairs the sources, (K, b, S)."""
        ...


def on_device(data: Dataset, device: torch.device) -> DeviceDataset | None:
    """Copy data to a GPU; return None if they do not fit, or the device is not a CUDA GPU.

    Examples stay on the host, which lays them out.
    """
    if device.type != "cuda" or isinstance(data, ExampleDataset):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if data.nbytes > _LARGEST_SHARE * free:
        return None
    return put(data, device)


def put(data: Dataset, device: torch.device) -> DeviceDataset:
    """Copy data to a device."""
    if isinstance(data, PairDataset):
        return _DevicePairs(data, device)
    assert isinstance(data, TextDataset)
    return _DeviceText(data, device)


class _Ids:
    """Token ids on a device, as small as in the file: 2 or 4 bytes each."""

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self._mask = int(np.iinfo(tokens.dtype).max)
        # torch indexes signed integers only; the mask makes the ids unsigned again.
        signed = np.ascontiguousarray(tokens).view(f"i{tokens.dtype.itemsize}")
        self._ids = torch.from_numpy(signed.copy()).to(device)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._ids[index].long() & self._mask


class _DeviceText(DeviceDataset):
    def __init__(self, data: TextDataset, device: torch.device) -> None:
        self._ids = _Ids(data.tokens, device)

    @override
    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        places = torch.arange(a.context_length, device=numbers.device)
        index = numbers.unsqueeze(-1) * a.context_length + places
        return self._ids[index], self._ids[index + 1]


class _DevicePairs(DeviceDataset):
    def __init__(self, data: PairDataset, device: torch.device) -> None:
        self._ids = _Ids(data.tokens, device)
        self._bounds = torch.from_numpy(data.bounds).to(device)
        self._end = data.end_of_text

    @override
    def batch(self, numbers: Tensor, a: Architecture) -> tuple[Tensor, ...]:
        end = numbers.new_full((*numbers.shape, 1), self._end)
        source = self._rows(2 * numbers, 0, a.source_length - 1, self._end)
        inputs = self._rows(2 * numbers + 1, 0, a.context_length - 1, self._end)
        targets = self._rows(2 * numbers + 1, 1, a.context_length, IGNORED)
        return torch.cat([end, inputs], -1), targets, torch.cat([source, end], -1)

    def _rows(self, sides: Tensor, ends: int, length: int, padding: int) -> Tensor:
        """Return token ids as `PairDataset._rows` does, for sides numbered 2·pair + side."""
        begin, stop = self._bounds[sides].unsqueeze(-1), self._bounds[sides + 1].unsqueeze(-1)
        index = begin + torch.arange(length, device=sides.device)
        ids = self._ids[index.minimum(stop - 1)]
        return torch.where(index < stop - 1 + ends, ids, padding)
