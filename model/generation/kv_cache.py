"""A model that remembers keys and values, so that each token goes through it once.

K = slots in a stack, each with one sequence; T = tokens of a pass, S = places of the cache,
D = width, H = heads, d = width of a head, V = vocabulary. The heads of keys and values may be
fewer, H′.

The law holds by construction: a pass has the same shapes whatever the sequences hold. A slot that
reads nothing in a pass, or less than the others, parks tokens behind its cache, where no token sees
them. Kernels that round by shape therefore round alike for every neighbour.
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

CHUNK = 32  # tokens of a longer text that a pass reads


def capacity_of(a: Architecture, length: int) -> int:
    """Places for a text that may grow to some length: CHUNK times a power of two.

    Sequences of one stack have one capacity, on which their bits may depend; so that it rarely
    differs, there are few. It is never more than the context needs.
    """
    chunks = math.ceil(min(length, a.context_length) / CHUNK)
    return CHUNK << (max(1, chunks) - 1).bit_length()


class CachedModel:
    """K models of one architecture, each with a sequence that grows.

    Args:
        architecture: of the models.
        weights: by the names of `parameter_shapes`, each with a leading K.
        capacity: places for the tokens of a sequence, as `capacity_of` gives it.
        sources: what an encoder reads, (K, 1, source_length) int64; what follows the first end of
            text is padding. None in a language model.
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
        self.device, self.lengths = table.device, [0] * len(table)  # tokens that each slot holds
        self._trunk, self._head = Trunk(a, a.decoder), Head.of(a)
        self._chunk = min(CHUNK, capacity)
        size = capacity + self._chunk  # S
        self._places = torch.arange(size, device=self.device)
        self._row = torch.arange(len(table), device=self.device).unsqueeze(-1)  # (K, 1)
        self._documents = self._row.new_zeros(len(table), size)
        self._heads = (len(table), size, a.n_kv_heads, a.d_head)  # (K, S, H′, d)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # place of a layer → keys, values
        self._memory: Tensor | None = None
        self._attend_memory: Attend | None = None
        if sources is not None:
            with _alike(self.device):
                self._memory, attend = EncoderDecoder(a).encode(weights, sources, Dropout())
            self._attend_memory = _keeping(attend)

    def restart(self, texts: Mapping[int, Sequence[int]]) -> Tensor:
        """Some slots forget what they hold, and read another text.

        Args:
            texts: slot → the ids that it is to hold, 1 to `capacity` of them. The others stay as
                they are.

        Returns:
            Logits of the next token, (K, V); of the others they mean nothing.
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
        """Some slots read one more token.

        Args:
            ids: slot → the id. The others stay as they are.

        Returns:
            Logits of the next token, (K, V); of the others they mean nothing.
        """
        starts = {row: self.lengths[row] for row in ids}
        x = self._pass(starts, {row: [token] for row, token in ids.items()}, 1)
        for row in ids:
            self.lengths[row] += 1
        return self._logits(x[:, 0])

    def _pass(
        self, starts: Mapping[int, int], parts: Mapping[int, Sequence[int]], length: int
    ) -> Tensor:
        """Read up to `length` tokens in some slots, from a place on: activations (K, T, D)."""
        ids = [[0] * length for _ in self.lengths]
        at = [[self._capacity + t for t in range(length)] for _ in self.lengths]
        for row, part in parts.items():
            ids[row][: len(part)] = part
            at[row][: len(part)] = range(starts[row], starts[row] + len(part))
        with _alike(self.device):
            placed = torch.tensor(at, device=self.device)
            tokens = torch.tensor(ids, device=self.device)
            sight = self._sight(tokens, placed)
            x = self._trunk(self._weights, tokens.unsqueeze(1), sight, Dropout())
        if self._memory is not None:
            self._memory = self._memory[:, :, :0]  # its keys and values are kept: nothing is new
        return x.squeeze(1)

    def _sight(self, ids: Tensor, at: Tensor) -> AttentionContext:
        """What tokens (K, T) see that stand at some places of the cache."""
        a = self._architecture
        see = self._places <= at.unsqueeze(-1)  # (K, T, S)
        if not a.attend_across_documents:
            see &= self._same_document(ids, at)
        mask = see.unsqueeze(1)  # (K, 1, T, S)
        ahead = (self._places - at.unsqueeze(-1)).unsqueeze(1)  # (K, 1, T, S)
        bias = self._trunk.position.bias_of(self._weights, ahead)  # (K, 1, H, T, S)
        if bias is not None:
            mask = torch.where(mask, bias.squeeze(1), -math.inf)
        stand = at.clamp(max=a.context_length - 1).unsqueeze(1)
        attend = self._attend(at, mask)
        return AttentionContext(attend, self._memory, self._attend_memory, stand)

    def _attend(self, at: Tensor, mask: Tensor) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor, place: int) -> Tensor:
            if place not in self._kept:
                self._kept[place] = k.new_zeros(self._heads), v.new_zeros(self._heads)
            keys, values = self._kept[place]
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
        """Whether each place holds a token of the document of each new token, (K, T, S)."""
        before = self._documents[self._row, (at[:, :1] - 1).clamp(min=0)]  # (K, 1)
        opened = (ids == self._architecture.end_of_text).cumsum(-1)
        number = before.where(at[:, :1] > 0, 0) + opened  # (K, T)
        self._documents[self._row, at] = number
        return self._documents.unsqueeze(1) == number.unsqueeze(-1)

    def _logits(self, x: Tensor) -> Tensor:
        """Activations (K, D) → (K, V)."""
        with _alike(self.device):
            return self._head(self._weights, x.unsqueeze(1)).squeeze(1)


def _keeping(attend: Attend) -> Attend:
    """Attention to keys and values of the first pass, which do not change."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend_kept(q: Tensor, k: Tensor, v: Tensor, place: int) -> Tensor:
        return attend(q, *kept.setdefault(place, (k, v)), place)

    return attend_kept


@contextmanager
def _alike(device: torch.device) -> Iterator[None]:
    """Without gradients, and on a CPU with one thread: sums round by how they are split."""
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu" and threads > 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
