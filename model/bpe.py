"""Training of a byte-level byte-pair encoding.

Text is cut into pre-tokens (GPT-2's pattern), equal pre-tokens are counted once, and the most
frequent pair of adjacent tokens is merged again and again. Source: Sennrich et al. 2015
(arXiv:1508.07909); Radford et al. 2019, section 2.2, for bytes.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import regex

Vocab = dict[int, bytes]
Merges = list[tuple[bytes, bytes]]

GPT2_PATTERN = regex.compile(
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
)

_PIECE_CHARACTERS = 1 << 22  # read from a file at a time


def train_bpe(
    input_path: str | os.PathLike[str], vocab_size: int, special_tokens: Sequence[str]
) -> tuple[Vocab, Merges]:
    """Train a byte-level BPE on a UTF-8 text file.

    Args:
        input_path: the text.
        vocab_size: ids to make, special tokens and the 256 bytes included; fewer are made when
            no pair is left to merge.
        special_tokens: texts that are one token each, hard boundaries, and never counted.

    Returns:
        The vocabulary (id → bytes: special tokens, then bytes, then merges) and the merges in
        the order they were made.

    Raises:
        ValueError: if `vocab_size` is too small for the bytes and the special tokens.
        OSError: if the file cannot be read.
        UnicodeDecodeError: if it is not UTF-8.
    """
    _check_size(vocab_size, special_tokens)
    with Path(input_path).open(encoding="utf-8", newline="") as file:
        pieces = _pieces(iter(lambda: file.read(_PIECE_CHARACTERS), ""), special_tokens)
        counts = count_pretokens(pieces, special_tokens)
    return merge_pretokens(counts, vocab_size, special_tokens)


def _pieces(blocks: Iterable[str], special_tokens: Sequence[str]) -> Iterator[str]:
    """Cut a stream of text after special tokens, so that no pre-token is cut.

    Without special tokens there is no safe cut, and the whole text is one piece.
    """
    special = special_pattern(special_tokens)
    held, searched = "", 0
    for block in blocks:
        held += block
        begun = unfinished_special(held, searched, special_tokens)
        end = 0
        for match in special.finditer(held, searched) if special else ():
            if match.start() >= begun:
                break
            end = match.end()
        if end:
            yield held[:end]
            held = held[end:]
        # What is known to hold no special token is not searched again with the next block.
        searched = max(begun - end, 0)
    yield held


def unfinished_special(text: str, start: int, special_tokens: Sequence[str]) -> int:
    """The first place at or after `start` where a longer text might hold a special token."""
    longest = max(map(len, special_tokens), default=0)
    first = {token[0] for token in special_tokens}
    for place in range(max(start, len(text) - longest + 1), len(text)):
        if text[place] not in first:
            continue
        end = text[place:]
        if any(token.startswith(end) and token != end for token in special_tokens):
            return place
    return len(text)


def special_pattern(special_tokens: Iterable[str]) -> regex.Pattern[str] | None:
    """A pattern with one group that finds special tokens, the longest where several start.

    Raises:
        ValueError: if a special token is empty: it would be found everywhere.
    """
    longest_first = sorted(special_tokens, key=lambda token: (-len(token), token))
    if not longest_first:
        return None
    if not longest_first[-1]:
        raise ValueError("a special token must not be empty")
    return regex.compile(f"({'|'.join(map(regex.escape, longest_first))})")


def count_pretokens(texts: Iterable[str], special_tokens: Sequence[str]) -> Counter[bytes]:
    """How often each pre-token occurs in some texts; special tokens are cut out."""
    special = special_pattern(special_tokens)
    counts: Counter[str] = Counter()
    for text in texts:
        parts = special.split(text)[::2] if special else [text]
        for part in parts:
            counts.update(GPT2_PATTERN.findall(part))
    return Counter({pretoken.encode(): count for pretoken, count in counts.items()})


def _check_size(vocab_size: int, special_tokens: Sequence[str]) -> None:
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size must be at least {smallest} (256 bytes and {len(special_tokens)} "
            f"special tokens), got {vocab_size}"
        )


class _Pair:
    """A heap entry: the greatest count first, then the greatest pair of byte strings."""

    __slots__ = ("count", "pair", "text")

    def __init__(self, count: int, text: tuple[bytes, bytes], pair: tuple[int, int]) -> None:
        self.count, self.text, self.pair = count, text, pair

    def __lt__(self, other: _Pair) -> bool:
        return (self.count, self.text) > (other.count, other.text)


def merge_pretokens(
    counts: Mapping[bytes, int], vocab_size: int, special_tokens: Sequence[str]
) -> tuple[Vocab, Merges]:
    """Merge the most frequent pair, ties to the greatest pair of byte strings, until full.

    Pair counts are kept up to date by visiting only the pre-tokens that hold the merged pair;
    the heap may hold outdated entries, which are corrected when they surface.

    Args:
        counts: pre-token → occurrences.
        vocab_size: as in `train_bpe`.
        special_tokens: as in `train_bpe`.

    Returns:
        As `train_bpe`.

    Raises:
        ValueError: as `train_bpe`.
    """
    _check_size(vocab_size, special_tokens)
    vocab: Vocab = {i: token.encode() for i, token in enumerate(special_tokens)}
    first_byte = len(vocab)
    vocab |= {first_byte + byte: bytes([byte]) for byte in range(256)}

    index = _PairIndex(counts, first_byte)

    def entry(pair: tuple[int, int]) -> _Pair:
        return _Pair(index.counts[pair], (vocab[pair[0]], vocab[pair[1]]), pair)

    heap = [entry(pair) for pair in index.counts]
    heapq.heapify(heap)
    merges: Merges = []
    while len(vocab) < vocab_size and heap:
        top = heapq.heappop(heap)
        current = index.counts.get(top.pair, 0)
        if current == top.count:
            merged = len(vocab)
            vocab[merged] = top.text[0] + top.text[1]
            merges.append(top.text)
            for pair in index.merge(top.pair, merged):
                heapq.heappush(heap, entry(pair))
        elif current:
            heapq.heappush(heap, entry(top.pair))
    return vocab, merges


class _PairIndex:
    """The pre-tokens as token ids, how often each pair occurs in them, and where."""

    def __init__(self, counts: Mapping[bytes, int], first_byte: int) -> None:
        self._words = [[first_byte + byte for byte in pretoken] for pretoken in counts]
        self._frequency = list(counts.values())
        self.counts: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for number, word in enumerate(self._words):
            for pair in pairwise(word):
                self.counts[pair] += self._frequency[number]
                self._where[pair].add(number)

    def merge(self, pair: tuple[int, int], merged: int) -> set[tuple[int, int]]:
        """Replace a pair by a new token everywhere; the pairs that this brought about."""
        grown = set()
        for number in self._where.pop(pair):
            before, count = self._words[number], self._frequency[number]
            after = self._words[number] = _merge_word(before, pair, merged)
            for old in pairwise(before):
                self.counts[old] -= count
            for new in pairwise(after):
                self.counts[new] += count
                if merged in new:
                    self._where[new].add(number)
                    grown.add(new)
        del self.counts[pair]
        return grown


def _merge_word(word: list[int], pair: tuple[int, int], merged: int) -> list[int]:
    """Replace every occurrence of a pair, from left to right."""
    after: list[int] = []
    i, last = 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            after.append(merged)
            i += 2
        else:
            after.append(word[i])
            i += 1
    return after
