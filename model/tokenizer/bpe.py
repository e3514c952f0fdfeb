"""Training of a byte-level byte-pair encoding.

Text is cut into pre-tokens, equal pre-tokens are counted once, and the most frequent pair of
adjacent tokens is merged again and again. Source: Sennrich et al. 2015 (arXiv:1508.07909);
Radford et al. 2019, section 2.2, for bytes.
"""

from __future__ import annotations

import heapq
import io
import os
import sqlite3
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from model.parallel import ordered_map, processes_for
from model.progress import OnProgress, Progress, silent
from model.tokenizer.pretokenizer import PATTERNS, cut_stream

Vocab = dict[int, bytes]
Merges = list[tuple[bytes, bytes]]

_PIECE_CHARACTERS = 1 << 20  # characters counted at a time
_MOST_PRETOKENS = 1 << 18  # limit of different pre-tokens in memory, and in the training
_MOST_BYTES = 1 << 26  # of different pre-tokens; the training takes about 30 times the memory
_LONG_PRETOKENS = 64  # characters on average, from which on the memory of counts is limited
_MERGES_PER_REPORT = 256


def train_bpe(
    input_path: str | os.PathLike[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    *,
    pattern: str = "gpt2",
    processes: int | None = None,
    on_progress: OnProgress = silent,
) -> tuple[Vocab, Merges]:
    """Train a byte-level BPE on a UTF-8 text file of any size.

    The result does not depend on the number of processes. Memory is bounded: of more than 262,144
    different pre-tokens, or 64 MB of them, the rarest are left out of the merging.

    Args:
        input_path: the text.
        vocab_size: number of ids, special tokens and the 256 bytes included; the result has fewer
            if no pair is left to merge.
        special_tokens: texts that are one token each; pre-tokens never cross them, and they are
            not counted.
        pattern: name in `PATTERNS` of the rule that cuts text into pre-tokens.
        processes: number of processes that count; by default one per core, or one for a small file.
        on_progress: called with the progress.

    Returns:
        The vocabulary (id → bytes: special tokens, then bytes, then merges) and the merges, in
        order.

    Raises:
        ValueError: if `vocab_size` is too small for the bytes and the special tokens, or there is
            no such pattern.
        OSError: if the file cannot be read.
        UnicodeDecodeError: if the file is not UTF-8.
    """
    check_vocab_size(vocab_size, special_tokens)
    check_pattern(pattern)
    size = Path(input_path).stat().st_size
    with Path(input_path).open("rb") as file, PretokenCounts() as counts:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")

        def blocks() -> Iterator[str]:
            while block := text.read(_PIECE_CHARACTERS):
                on_progress(Progress("counting", file.tell(), size, "B"))
                yield block

        pieces = cut_stream(blocks(), special_tokens, _PIECE_CHARACTERS)
        count = partial(count_pretokens, pattern=pattern)
        for counted in ordered_map(count, pieces, processes_for(size, processes)):
            counts.add(counted)
        most_frequent = counts.most_frequent()
    return merge_pretokens(most_frequent, vocab_size, special_tokens, on_progress=on_progress)


def count_pretokens(texts: Sequence[str], pattern: str = "gpt2") -> Counter[str]:
    """Count the pre-tokens of some texts without special tokens."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(PATTERNS[pattern].findall(text))
    return counts


def check_vocab_size(vocab_size: int, special_tokens: Sequence[str]) -> None:
    """Raise ValueError if a vocabulary is too small for the bytes and the special tokens."""
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size must be at least {smallest} (256 bytes and {len(special_tokens)} "
            f"special tokens), got {vocab_size}"
        )


def check_pattern(name: str) -> None:
    """Raise ValueError if there is no such pattern."""
    trained = [pattern.name for pattern in PATTERNS.values() if pattern.prefix is None]
    if name not in trained:
        raise ValueError(f"pattern must be {' or '.join(trained)}, got {name}")


class PretokenCounts:
    """Exact counts of any number of pre-tokens in bounded memory: a database holds the excess."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._characters = 0  # of pieces with long pre-tokens
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._database is not None and self._folder is not None:
            self._database.close()
            self._folder.cleanup()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of one piece of text."""
        self._counts.update(counts)
        characters = sum(map(len, counts))
        if characters > _LONG_PRETOKENS * len(counts):
            self._characters += characters
        if len(self._counts) > _MOST_PRETOKENS or self._characters > _MOST_BYTES:
            self._to_disk()

    def _to_disk(self) -> None:
        if self._database is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pretokens-")
            self._database = sqlite3.connect(Path(self._folder.name, "counts.db"))
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(
                "CREATE TABLE counts (pretoken BLOB PRIMARY KEY, n INTEGER) WITHOUT ROWID"
            )
        self._database.executemany(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            sorted((_to_bytes(pretoken), n) for pretoken, n in self._counts.items()),
        )
        self._database.commit()
        self._counts.clear()
        self._characters = 0

    def most_frequent(self) -> dict[bytes, int]:
        """Return counts by bytes: those of the most frequent pre-tokens, ties by bytes.

        There are at most 262,144 of them, with at most 64 MB of text.
        """
        if self._database is None:
            counts = {_to_bytes(pretoken): n for pretoken, n in self._counts.items()}
            if sum(map(len, counts)) <= _MOST_BYTES:
                return counts
        self._to_disk()
        assert self._database is not None
        rows = self._database.execute(
            "SELECT pretoken, n FROM counts ORDER BY n DESC, pretoken LIMIT ?", (_MOST_PRETOKENS,)
        )
        counts, size = {}, 0
        for pretoken, n in rows:
            size += len(pretoken)
            if size > _MOST_BYTES:
                break
            counts[pretoken] = n
        return counts


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# Keys of the heap: the byte strings of a pair with each byte inverted (255 − byte) and a greater
# character at the end, so that the smallest key is the greatest pair and comparisons run in C.
_INVERSE = bytes(255 - byte for byte in range(256))


def _descending(token: bytes) -> str:
    return token.translate(_INVERSE).decode("latin-1") + "\u0100"


def merge_pretokens(
    counts: Mapping[bytes, int],
    vocab_size: int,
    special_tokens: Sequence[str],
    *,
    on_progress: OnProgress = silent,
) -> tuple[Vocab, Merges]:
    """Merge the most frequent pair, ties to the greatest pair of byte strings, until full.

    A merge visits only the places of the merged pair. The heap may hold outdated counts, which are
    corrected when they reach the top.

    Args:
        counts: pre-token → occurrences.
        vocab_size: as in `train_bpe`.
        special_tokens: as in `train_bpe`.
        on_progress: called with the number of tokens.

    Returns:
        As `train_bpe`.

    Raises:
        ValueError: as `train_bpe`.
    """
    check_vocab_size(vocab_size, special_tokens)
    tokens = [token.encode() for token in special_tokens]
    first_byte = len(tokens)
    tokens += [bytes([byte]) for byte in range(256)]
    descending = list(map(_descending, tokens))
    places = _Places(counts, first_byte)

    def entry(pair: int) -> tuple[int, str, int]:
        a, b = divmod(pair, _PAIR)
        return -places.count(pair), descending[a] + descending[b], pair

    merges: Merges = []
    # The heap holds only pairs with at least `least` occurrences: most pairs are rare and are never
    # merged.
    least = max(places.counts(), default=0) + 1
    heap: list[tuple[int, str, int]] = []
    while len(tokens) < vocab_size:
        if not heap:
            if least <= 1:
                break
            least = max(1, least // 4)
            heap = [entry(pair) for pair in places.pairs() if places.count(pair) >= least]
            heapq.heapify(heap)
            continue
        negative, _, pair = heapq.heappop(heap)
        current = places.count(pair)
        if current == -negative:
            a, b = divmod(pair, _PAIR)
            merges.append((tokens[a], tokens[b]))
            tokens.append(tokens[a] + tokens[b])
            descending.append(_descending(tokens[-1]))
            for new in places.merge(a, b, len(tokens) - 1):
                if places.count(new) >= least:
                    heapq.heappush(heap, entry(new))
            if len(merges) % _MERGES_PER_REPORT == 0:
                on_progress(Progress("merging", len(tokens), vocab_size, "tokens"))
        elif current >= least:
            heapq.heappush(heap, entry(pair))
    return dict(enumerate(tokens)), merges


_PAIR = 1 << 32  # a pair of ids is one number, left · 2³² + right
_BORDER = -1  # before, between and after the pre-tokens
_INSIDE = -2  # a byte that is not the first one of its token


class _Places:
    """All pre-tokens as one array of token ids, and the places of each pair in this array.

    A token of several bytes has its id at its first byte. A recorded place is outdated if another
    id stands there when it is visited.
    """

    def __init__(self, pretokens: Mapping[bytes, int], first_byte: int) -> None:
        self._ids = array("i", [_BORDER])
        self._weights = array("q", [0])  # occurrences of the pre-token that a byte belongs to
        for pretoken, count in pretokens.items():
            self._ids.extend([first_byte + byte for byte in pretoken])
            self._ids.append(_BORDER)
            self._weights.extend([count] * (len(pretoken) + 1))
        # at the last byte of a token: place of its first byte; undefined at other bytes
        self._starts = array("q", range(len(self._ids)))
        self._sizes: defaultdict[int, int] = defaultdict(lambda: 1)  # bytes of a token
        # pair → its occurrences in the text, followed by its places
        self._pairs: defaultdict[int, array[int]] = defaultdict(lambda: array("q", (0,)))
        left = _BORDER
        for place, right in enumerate(self._ids):
            if left >= 0 and right >= 0:
                entry = self._pairs[left * _PAIR + right]
                entry[0] += self._weights[place]
                entry.append(place - 1)
            left = right

    def pairs(self) -> Iterable[int]:
        """Return all pairs."""
        return self._pairs

    def counts(self) -> Iterator[int]:
        """Return the number of occurrences of each pair."""
        return (entry[0] for entry in self._pairs.values())

    def count(self, pair: int) -> int:
        """Return the number of occurrences of a pair; 0 if it has been merged."""
        entry = self._pairs.get(pair)
        return entry[0] if entry else 0

    def merge(self, a: int, b: int, merged: int) -> set[int]:
        """Replace a pair by one token at all its places, from left to right.

        Returns:
            Pairs with new occurrences.
        """
        ids, starts, pairs = self._ids, self._starts, self._pairs
        size_a = self._sizes[a]
        size = self._sizes[merged] = size_a + self._sizes[b]
        new = set()
        places = pairs.pop(a * _PAIR + b)
        for place in islice(places, 1, None):
            if ids[place] != a or ids[place + size_a] != b:
                continue  # an earlier merge has replaced one of the two
            weight = self._weights[place]
            ids[place], ids[place + size_a] = merged, _INSIDE
            starts[place + size - 1] = place
            right = ids[place + size]
            if right >= 0:
                pairs[b * _PAIR + right][0] -= weight
                pair = merged * _PAIR + right
                entry = pairs[pair]
                entry[0] += weight
                entry.append(place)
                new.add(pair)
            before = starts[place - 1]
            left = ids[before]
            if left >= 0:
                pairs[left * _PAIR + a][0] -= weight
                pair = left * _PAIR + merged
                entry = pairs[pair]
                entry[0] += weight
                entry.append(before)
                new.add(pair)
        pairs.pop(a * _PAIR + b, None)  # occurrences that overlapped: aaa
        return new
