r"""Token ids of many pre-tokens at a time, by array operations instead of one look-up for each.

The begins of GPT-2's pre-tokens follow from the classes of neighbouring characters, so that they
are computed for a complete text at once. A pre-token of up to 16 bytes is two 64-bit numbers and a
length, which give its row in a table; pre-tokens that are not in the table are encoded one by one.

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
_LONGEST = 16  # bytes of the longest pre-token in the table
_BITS = 20  # of a hash: the table has 2^20 slots
_FEWEST_ROWS = 1 << 12
_MOST_ROWS = 1 << 18
# Masks that keep the first 0 to 8 bytes of a little-endian number.
_MASKS: UInt64s = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)


def _classes_of(characters: str) -> npt.NDArray[np.uint8]:
    """Return the class of each character, as defined by `regex`; (n,)."""
    classes = np.full(len(characters), _OTHER, np.uint8)
    for name, number in ((r"\p{L}", _LETTER), (r"\p{N}", _NUMBER), (r"\s", _SPACE)):
        for run in regex.finditer(f"{name}+", characters):
            classes[run.start() : run.end()] = number
    return classes


@lru_cache(maxsize=1)
def _bmp_classes() -> npt.NDArray[np.uint8]:
    """Return the class of every code point up to U+FFFF; all of Unicode would take 0.14 s."""
    return _classes_of("".join(map(chr, range(_BMP))))


def _classes(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the class of each code point, (n,)."""
    classes: npt.NDArray[np.uint8] = _bmp_classes().take(codes, mode="clip")
    if codes.itemsize > 1 and codes.max() >= _BMP:
        far = np.flatnonzero(codes >= _BMP)
        different, which = np.unique(codes[far], return_inverse=True)
        classes[far] = _classes_of("".join(map(chr, different.tolist())))[which]
    return classes


def gpt2_starts(codes: npt.NDArray[Any]) -> Ints:
    """Return the begins of the pre-tokens of a text by GPT-2's pattern, and the end of the last.

    Args:
        codes: code points of the text, (n,) with n above 0, any unsigned type.

    Returns:
        (P + 1,), ascending from 0 to n.
    """
    n = len(codes)
    classes = _classes(codes)
    begins = np.empty(n + 1, np.bool_)
    begins[0] = begins[n] = True
    np.not_equal(classes[1:], classes[:-1], out=begins[1:n])
    # The last character of white space before a word is cut off: a space joins the word, any other
    # character is a pre-token of its own.
    last = np.flatnonzero(begins[1:n] & (classes[:-1] == _SPACE))
    begins[last] = True
    begins[last[codes[last] == ord(" ")] + 1] = False
    # A pre-token with an apostrophe first may be a contraction: 's, 'd, 'm, 't, 'll, 've, 're.
    quotes = np.flatnonzero(codes == ord("'"))
    quotes = quotes[begins[quotes]]
    quotes = quotes[quotes + 1 < n]
    second, third = codes[quotes + 1], codes[np.minimum(quotes + 2, n - 1)]
    is_short = np.isin(second, [ord(letter) for letter in "sdmt"])
    is_long = np.zeros_like(is_short)
    for a, b in ("ll", "ve", "re"):
        is_long |= (second == ord(a)) & (third == ord(b)) & (quotes + 2 < n)
    for contractions, size in ((quotes[is_short], 2), (quotes[is_long], 3)):
        begins[contractions + 1] = False
        begins[contractions + size] = True
    return np.flatnonzero(begins)


class TokenTable:
    """A cache from pre-tokens to token ids, for look-ups of all pre-tokens of a text at once.

    Args:
        encode: returns the ids of one pre-token, as the bytes of an array.
        dtype: dtype of an id.
    """

    def __init__(self, encode: Callable[[str], bytes], dtype: np.dtype[Any]) -> None:
        self._encode = encode
        # hash of a pre-token → its row; row 0 belongs to no pre-token
        self._table = np.zeros(1 << _BITS, np.int32)
        self._num_rows, self._num_ids = 1, 0
        self._low, self._high = (np.zeros(_FEWEST_ROWS, np.uint64) for _ in range(2))
        self._length = np.full(_FEWEST_ROWS, -1, np.int64)
        # row → place and number of its ids in `_ids`
        self._first, self._count = (np.zeros(_FEWEST_ROWS, np.int64) for _ in range(2))
        self._ids = np.zeros(_FEWEST_ROWS, dtype)

    def encode(self, text: str) -> Ids:
        """Encode a text that is cut by GPT-2's pattern.

        Args:
            text: not empty.

        Returns:
            Ids, (M,), of the table's dtype.
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
        """Return the row of each pre-token, (P,).

        Rows of pre-tokens that the table cannot keep are valid until the next call.
        """
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
            rows[unknown] = self._add(
                pretokens, low[unknown], high[unknown], length[unknown], slot[unknown]
            )
        return rows

    def _add(
        self, pretokens: list[bytes], low: UInt64s, high: UInt64s, length: Ints, slot: Ints
    ) -> list[int]:
        """Add rows for unknown pre-tokens and return them.

        Short pre-tokens whose slot is free stay in the table. The others get temporary rows behind
        the last row that stays, which the next call overwrites.
        """
        is_free = (length <= _LONGEST) & (self._table[slot] == 0)
        room = _MOST_ROWS - self._num_rows
        claims: dict[int, int] = {}  # slot → number of the pre-token that gets it
        temporary: dict[bytes, None] = {}
        places = zip(pretokens, slot.tolist(), is_free.tolist(), strict=True)
        for number, (pretoken, place, may_stay) in enumerate(places):
            if may_stay and (place in claims or len(claims) < room):
                if pretokens[claims.setdefault(place, number)] == pretoken:
                    continue
            temporary[pretoken] = None
        staying = list(claims.values())
        added = [*(pretokens[number] for number in staying), *temporary]
        counts = self._append(added)
        first, end = self._num_rows, self._num_rows + len(staying)
        self._low[first:end] = low[staying]
        self._high[first:end] = high[staying]
        self._length[first:end] = length[staying]
        self._table[slot[staying]] = np.arange(first, end)
        self._num_rows, self._num_ids = end, self._num_ids + sum(counts[: len(staying)])
        row_of = dict(zip(added, itertools.count(first), strict=False))
        return [row_of[pretoken] for pretoken in pretokens]

    def _append(self, pretokens: list[bytes]) -> list[int]:
        """Encode pre-tokens into rows and ids behind the last row that stays.

        Returns:
            Number of ids of each pre-token.
        """
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
    """Return the slot of each pre-token in the table. Source: SplitMix64's finaliser."""
    mixed = (low ^ (high * np.uint64(0x9E3779B97F4A7C15))) + length.astype(np.uint64)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(64 - _BITS)).astype(np.int64)
