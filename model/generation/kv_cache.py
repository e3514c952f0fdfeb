"""A model with a cache of keys and values, so that each token passes through the model once.

K = slots in a stack, each with one sequence; T = tokens of a pass, S = places of the cache,
D = width, H = heads, d = width of a head, V = vocabulary. Keys and values may have fewer heads, H′.

The law (a slot's bits do not depend on its neighbours) holds by construction: a pass has equal
shapes whatever the sequences hold. A slot that reads no token in a pass, or fewer than the others,
writes dummy tokens to places behind its cache, which no token sees. Kernels whose rounding depends
on the shape therefore round equally for every neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from model.network.attention import Attend
from model.network.block import AttentionContext
from model.network.dropout import Dropout
from model.network.encoder_decoder import EncoderDecoder
from model.network.head import Head
from model.network.layers import Weights
from model.network.transformer import Trunk
from model.spec.architecture import Architecture

CHUNK = 32  # tokens that a pass reads of a longer text


def capacity_of(a: Architecture, length: int) -> int:
    """Return the places for a text that may grow to some length: CHUNK times a power of two.

    All sequences of a stack have one capacity, and bits may depend on it. Powers of two give few
    different capacities, so that texts rarely need different stacks. The capacity never exceeds
    the need of a full context.
    """
    chunks = math.ceil(min(length, a.context_length) / CHUNK)
    return CHUNK << (max(1, chunks) - 1).bit_length()


class CachedModel:
    """K models of one architecture, each with a sequence that grows.

    Args:
        architecture: of the models.
        weights: by the names of `parameter_shapes`, each with a leading K.
        capacity: places for the tokens of a sequence, from `capacity_of`.
        sources: input of the encoder, (K, 1, source_length) int64; ids after the first end of text
            are padding. None for a language model.

    Attributes:
        device: of the weights.
        lengths: number of tokens that each slot holds.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        capacity: int,
        sources: Tensor | None = None,
    ) -> None:
        a = self._architecture = architecture
        self._weights, self._capacity = weights, capacity
        table = weights["token_embeddings.weight"]
        self.device, self.lengths = table.device, [0] * len(table)
        self._trunk, self._head = Trunk(a, a.decoder), Head.of(a)
        self._chunk = min(CHUNK, capacity)
        size = capacity + self._chunk  # S
        self._places = torch.arange(size, device=self.device)
        self._row = torch.arange(len(table), device=self.device).unsqueeze(-1)  # (K, 1)
        self._documents = self._row.new_zeros(len(table), size)
        self._heads = (len(table), size, a.n_kv_heads, a.d_head)  # (K, S, H′, d)
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}  # place of a layer → keys, values
        self._memory: Tensor | None = None
        self._attend_memory: Attend | None = None
        if sources is not None:
            with _reproducible(self.device):
                self._memory, attend = EncoderDecoder(a).encode(weights, sources, Dropout())
            self._attend_memory = _with_cached_memory(attend)

    def restart(self, texts: Mapping[int, Sequence[int]]) -> Tensor:
        """Replace the texts of some slots.

        Args:
            texts: slot → ids of its new text, 1 to `capacity`. The other slots keep their texts.

        Returns:
            Logits of the next token, (K, V); meaningless for the other slots.
        """
        last: Tensor | None = None
        for start in range(0, max(map(len, texts.values())), self._chunk):
            parts = {row: text[start : start + self._chunk] for row, text in texts.items()}
            x = self._pass(dict.fromkeys(parts, start), parts, self._chunk)  # (K, T, D)
            ends = [len(parts.get(row, ())) - 1 for row in range(len(self.lengths))]
            end = torch.tensor(ends, device=self.device)
            x = x[self._row[:, 0], end.clamp(min=0)]  # (K, D)
            last = x if last is None else torch.where((end >= 0).unsqueeze(-1), x, last)
        for row, text in texts.items():
            self.lengths[row] = len(text)
        assert last is not None
        return self._logits(last)

    def extend(self, ids: Mapping[int, int]) -> Tensor:
        """Append one token to the texts of some slots.

        Args:
            ids: slot → id. The other slots keep their texts.

        Returns:
            Logits of the next token, (K, V); meaningless for the other slots.
        """
        starts = {row: self.lengths[row] for row in ids}
        x = self._pass(starts, {row: [token] for row, token in ids.items()}, 1)
        for row in ids:
            self.lengths[row] += 1
        return self._logits(x[:, 0])

    def _pass(
        self, starts: Mapping[int, int], parts: Mapping[int, Sequence[int]], length: int
    ) -> Tensor:
        """Read up to `length` tokens in some slots, and return activations (K, T, D).

        Args:
            starts: slot → place of its first token.
            parts: slot → its tokens.
            length: T.
        """
        ids = [[0] * length for _ in self.lengths]
        at = [[self._capacity + t for t in range(length)] for _ in self.lengths]
        for row, part in parts.items():
            ids[row][: len(part)] = part
            at[row][: len(part)] = range(starts[row], starts[row] + len(part))
        with _reproducible(self.device):
            placed = torch.tensor(at, device=self.device)
            tokens = torch.tensor(ids, device=self.device)
            sight = self._sight(tokens, placed)
            x = self._trunk(self._weights, tokens.unsqueeze(1), sight, Dropout())
        if self._memory is not None:
            self._memory = self._memory[:, :, :0]  # its keys and values are cached now
        return x.squeeze(1)

    def _sight(self, ids: Tensor, at: Tensor) -> AttentionContext:
        """Return what tokens (K, T) at places `at` of the cache attend to."""
        a = self._architecture
        see = self._places <= at.unsqueeze(-1)  # (K, T, S)
        if not a.attend_across_documents:
            see &= self._same_document(ids, at)
        mask = see.unsqueeze(1)  # (K, 1, T, S)
        ahead = (self._places - at.unsqueeze(-1)).unsqueeze(1)  # (K, 1, T, S)
        bias = self._trunk.position.bias_of(self._weights, ahead)  # (K, 1, H, T, S)
        if bias is not None:
            mask = torch.where(mask, bias.squeeze(1), -math.inf)
        positions = at.clamp(max=a.context_length - 1).unsqueeze(1)
        attend = self._attend(at, mask)
        return AttentionContext(attend, self._memory, self._attend_memory, positions)

    def _attend(self, at: Tensor, mask: Tensor) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor, place: int) -> Tensor:
            if place not in self._cache:
                self._cache[place] = k.new_zeros(self._heads), v.new_zeros(self._heads)
            keys, values = self._cache[place]
            keys[self._row, at] = k.transpose(1, 2)
            values[self._row, at] = v.transpose(1, 2)
            keys, values = keys.transpose(1, 2), values.transpose(1, 2)  # (K, H′, S, d)
            shared = keys.shape[1] != q.shape[1]
            return F.scaled_dot_product_attention(
                q, keys, values, attn_mask=mask.to(q) if mask.dtype != torch.bool else mask,
                enable_gqa=shared,
            )  # fmt: skip

        return attend

    def _same_document(self, ids: Tensor, at: Tensor) -> Tensor:
        """Return True where a place holds a token of the document of a new token, (K, T, S)."""
        before = self._documents[self._row, (at[:, :1] - 1).clamp(min=0)]  # (K, 1)
        opened = (ids == self._architecture.end_of_text).cumsum(-1)
        number = before.where(at[:, :1] > 0, 0) + opened  # (K, T)
        self._documents[self._row, at] = number
        return self._documents.unsqueeze(1) == number.unsqueeze(-1)

    def _logits(self, x: Tensor) -> Tensor:
        """Return the logits (K, V) of activations (K, D)."""
        with _reproducible(self.device):
            return self._head(self._weights, x.unsqueeze(1)).squeeze(1)


def _with_cached_memory(attend: Attend) -> Attend:
    """Attend to keys and values of the first pass in all passes: those of a source stay."""
    cache: dict[int, tuple[Tensor, Tensor]] = {}

    def attend_cached(q: Tensor, k: Tensor, v: Tensor, place: int) -> Tensor:
        return attend(q, *cache.setdefault(place, (k, v)), place)

    return attend_cached


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Compute without gradients, and on a CPU with one thread: a sum rounds by its split."""
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu" and threads > 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
