r"""Token ids of many pre-tokens at a time, by array operations instead of a look-up for each.

Where GPT-2's pre-tokens begin follows from the classes of neighbouring characters, so that it can
be computed for a whole text at once. A pre-token of up to 16 bytes is two 64-bit numbers and a
length, which find its row in a table; what the table does not hold is encoded one by one.

n = characters of a text, P = its pre-tokens, M = its tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import regex

Ids = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_OTHER, _LETTER, _NUMBER, _SPACE = range(4)
_BMP = 1 << 16  # code points of nearly all text
_LONGEST = 16  # bytes of a pre-token in the table
_BITS = 20  # of a row's number
_FEWEST_ROWS = 1 << 12
_MOST_ROWS = 1 << 18
# Keep the first 0 to 8 bytes of a little-endian number.
_MASKS: UInt64s = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)


def _classes_of(characters: str) -> npt.NDArray[np.uint8]:
    """The class of each character, as `regex` knows it; (n,)."""
    classes = np.full(len(characters), _OTHER, np.uint8)
    for name, number in ((r"\p{L}", _LETTER), (r"\p{N}", _NUMBER), (r"\s", _SPACE)):
        for run in regex.finditer(f"{name}+", characters):
            classes[run.start() : run.end()] = number
    return classes


@lru_cache(maxsize=1)
def _bmp_classes() -> npt.NDArray[np.uint8]:
    """The class of every code point up to U+FFFF; all of Unicode would take 0.14 s."""
    return _classes_of("".join(map(chr, range(_BMP))))


def _classes(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The class of each code point, (n,)."""
    classes: npt.NDArray[np.uint8] = _bmp_classes().take(codes, mode="clip")
    if codes.itemsize > 1 and codes.max() >= _BMP:
        far = np.flatnonzero(codes >= _BMP)
        different, which = np.unique(codes[far], return_inverse=True)
        classes[far] = _classes_of("".join(map(chr, different.tolist())))[which]
    return classes


def gpt2_starts(codes: npt.NDArray[Any]) -> Ints:
    """Where the pre-tokens of a text begin by GPT-2's pattern, and where the last one ends.

    Args:
        codes: code points of the text, (n,) with n above 0, any unsigned type.

    Returns:
        (P + 1,), rising from 0 to n.
    """
    n = len(codes)
    classes = _classes(codes)
    begins = np.empty(n + 1, np.bool_)
    begins[0] = begins[n] = True
    np.not_equal(classes[1:], classes[:-1], out=begins[1:n])
    # White space before a word keeps all but its last character. If that is a space it belongs to
    # the word, and stands alone otherwise.
    last = np.flatnonzero(begins[1:n] & (classes[:-1] == _SPACE))
    begins[last] = True
    begins[last[codes[last] == ord(" ")] + 1] = False
    # What begins with an apostrophe may be a contraction: 's, 'd, 'm, 't, 'll, 've, 're.
    quotes = np.flatnonzero(codes == ord("'"))
    quotes = quotes[begins[quotes]]
    quotes = quotes[quotes + 1 < n]
    second, third = codes[quotes + 1], codes[np.minimum(quotes + 2, n - 1)]
    is_short = np.isin(second, [ord(letter) for letter in "sdmt"])
    is_long = np.zeros_like(is_short)
    for a, b in ("ll", "ve", "re"):
        is_long |= (second == ord(a)) & (third == ord(b)) & (quotes + 2 < n)
    for found, size in ((quotes[is_short], 2), (quotes[is_long], 3)):
        begins[found + 1] = False
        begins[found + size] = True
    return np.flatnonzero(begins)


class TokenTable:
    """A cache from pre-tokens to token ids that is asked for all pre-tokens of a text at once.

    Args:
        encode: ids of one pre-token, as the bytes of an array.
        dtype: of an id.
    """

    def __init__(self, encode: Callable[[str], bytes], dtype: np.dtype[Any]) -> None:
        self._encode = encode
        # which row a pre-token may have, by its hash; row 0 is no pre-token's
        self._table = np.zeros(1 << _BITS, np.int32)
        self._num_rows, self._num_ids = 1, 0
        self._low, self._high = (np.zeros(_FEWEST_ROWS, np.uint64) for _ in range(2))
        self._length = np.full(_FEWEST_ROWS, -1, np.int64)
        # where a row's ids lie in `_ids`
        self._first, self._count = (np.zeros(_FEWEST_ROWS, np.int64) for _ in range(2))
        self._ids = np.zeros(_FEWEST_ROWS, dtype)

    def encode(self, text: str) -> Ids:
        """Ids of a text by GPT-2's pattern.

        Args:
            text: not empty.

        Returns:
            (M,), of the table's type.
        """
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) == len(text):
            places = gpt2_starts(np.frombuffer(raw, np.uint8))
        else:
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            sizes = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
            places = np.concatenate(([0], np.cumsum(sizes)))[gpt2_starts(codes)]
        rows = self._find(raw, places)
        count = self._count[rows]  # (P,)
        ends = np.cumsum(count)
        index = np.repeat(self._first[rows] - (ends - count), count)  # (M,)
        index += np.arange(len(index))
        ids: Ids = self._ids[index]
        return ids

    def _find(self, raw: bytes, places: Ints) -> Ints:
        """The row of each pre-token, (P,); rows of what the table cannot keep are valid once."""
        begin, length = places[:-1], np.diff(places)
        buffer = raw + bytes(_LONGEST)
        words: UInt64s = np.ndarray((len(buffer) - 7,), np.dtype("<u8"), buffer, strides=(1,))
        low = words[begin] & _MASKS[np.minimum(length, 8)]
        high = words[begin + 8] & _MASKS[np.clip(length - 8, 0, 8)]
        slot = _hash(low, high, length)
        rows = self._table[slot].astype(np.int64)
        is_known = (self._low[rows] == low) & (self._high[rows] == high)
        is_known &= self._length[rows] == length
        unknown = np.flatnonzero(~is_known)
        if len(unknown):
            ends = zip(begin[unknown].tolist(), places[1:][unknown].tolist(), strict=True)
            pretokens = [raw[a:b] for a, b in ends]
            rows[unknown] = self._learn(
                pretokens, low[unknown], high[unknown], length[unknown], slot[unknown]
            )
        return rows

    def _learn(
        self, pretokens: list[bytes], low: UInt64s, high: UInt64s, length: Ints, slot: Ints
    ) -> list[int]:
        """Rows for pre-tokens that have none: to stay, or valid once, behind those that stay."""
        is_free = (length <= _LONGEST) & (self._table[slot] == 0)
        room = _MOST_ROWS - self._num_rows
        claims: dict[int, int] = {}  # slot → the pre-token that shall have it
        passing: dict[bytes, None] = {}
        places = zip(pretokens, slot.tolist(), is_free.tolist(), strict=True)
        for number, (pretoken, place, may_stay) in enumerate(places):
            if may_stay and (place in claims or len(claims) < room):
                if pretokens[claims.setdefault(place, number)] == pretoken:
                    continue
            passing[pretoken] = None
        staying = list(claims.values())
        learned = [*(pretokens[number] for number in staying), *passing]
        counts = self._append(learned)
        first, end = self._num_rows, self._num_rows + len(staying)
        self._low[first:end] = low[staying]
        self._high[first:end] = high[staying]
        self._length[first:end] = length[staying]
        self._table[slot[staying]] = np.arange(first, end)
        self._num_rows, self._num_ids = end, self._num_ids + sum(counts[: len(staying)])
        row_of = dict(zip(learned, itertools.count(first), strict=False))
        return [row_of[pretoken] for pretoken in pretokens]

    def _append(self, pretokens: list[bytes]) -> list[int]:
        """Encode pre-tokens into the rows and ids behind those that stay; how many ids each has."""
        packed = [self._encode(each.decode("utf-8", "surrogatepass")) for each in pretokens]
        ids = np.frombuffer(b"".join(packed), self._ids.dtype)
        counts = [len(each) // self._ids.itemsize for each in packed]
        rows = slice(self._num_rows, self._num_rows + len(counts))
        while rows.stop > len(self._first):
            for name in ("_low", "_high", "_length", "_first", "_count"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, old]))
        while self._num_ids + len(ids) > len(self._ids):
            self._ids = np.concatenate([self._ids, self._ids])
        self._count[rows] = counts
        self._first[rows] = self._num_ids + np.cumsum([0, *counts[:-1]])
        self._ids[self._num_ids : self._num_ids + len(ids)] = ids
        return counts


def _hash(low: UInt64s, high: UInt64s, length: Ints) -> Ints:
    """A place in the table for each pre-token. Source: SplitMix64's finaliser."""
    mixed = (low ^ (high * np.uint64(0x9E3779B97F4A7C15))) + length.astype(np.uint64)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(64 - _BITS)).astype(np.int64)
