"""Encode text to token ids and back, with a byte-level BPE."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bpe import GPT2_PATTERN, Merges, Vocab, special_pattern, unfinished_special

# Pre-tokens above this length are merged with a heap, so that a long run of letters is not
# quadratic; below it the plain loop is faster.
_LONG_PRETOKEN = 64
_CACHE_LIMIT = 1 << 20
# The last pre-tokens of an unfinished text may still change: `'`, `l` become `'ll`, and white
# space gives its last character to the word that follows.
_UNSETTLED = 3
# Short pieces of a stream are gathered up to this size: a line at a time costs three times more.
_GATHERED_CHARACTERS = 1 << 13


class Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: id → bytes.
        merges: pairs in the order they were made.
        special_tokens: texts that are one token each; those missing from the vocabulary are
            appended to it.

    Raises:
        ValueError: if a byte or the result of a merge is missing from the vocabulary.
    """

    def __init__(
        self, vocab: Vocab, merges: Merges, special_tokens: Sequence[str] | None = None
    ) -> None:
        self.vocab = dict(vocab)
        self.merges = list(merges)
        self.special_tokens = tuple(special_tokens or ())
        known = set(self.vocab.values())
        for token in self.special_tokens:
            if token.encode() not in known:
                self.vocab[max(self.vocab, default=-1) + 1] = token.encode()
        ids = {token: i for i, token in self.vocab.items()}
        try:
            self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
            self._ranks = {
                (ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(self.merges)
            }
        except KeyError as error:
            raise ValueError(f"the vocabulary has no token for the bytes {error}") from error
        self._special_ids = {token: ids[token.encode()] for token in self.special_tokens}
        self._special = special_pattern(self.special_tokens)
        self._cache = _Cache(self._merge)

    @classmethod
    def from_files(
        cls,
        vocab_path: str | os.PathLike[str],
        merges_path: str | os.PathLike[str],
        special_tokens: Sequence[str] | None = None,
    ) -> Tokenizer:
        """Read GPT-2's vocab.json and merges.txt.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if one is not in the format.
        """
        special = set(special_tokens or ())
        entries = json.loads(Path(vocab_path).read_text(encoding="utf-8"))
        if not (isinstance(entries, dict) and all(type(i) is int for i in entries.values())):
            raise ValueError(f"{vocab_path} does not map tokens to ids")
        vocab = {
            i: text.encode() if text in special else _from_unicode(text)
            for text, i in entries.items()
        }
        header, *lines = Path(merges_path).read_text(encoding="utf-8").split("\n")
        if not header.startswith("#version"):  # only the first line: a token may begin so as well
            lines.insert(0, header)
        pairs = [line.split(" ") for line in lines if line]
        merges = [(_from_unicode(a), _from_unicode(b)) for a, b in pairs]
        return cls(vocab, merges, special_tokens)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write vocab.json and merges.txt in GPT-2's format, each atomically.

        Special tokens are written as they are; `from_files` is told which ones they are.

        Raises:
            ValueError: if two tokens would have one name in the file.
        """
        special = {token.encode(): token for token in self.special_tokens}
        entries = {
            special[token] if token in special else _to_unicode(token): i
            for i, token in self.vocab.items()
        }
        if len(entries) < len(self.vocab):
            raise ValueError(
                f"{len(self.vocab)} tokens have only {len(entries)} names in vocab.json; "
                f"rename the special tokens that are spelled like another token"
            )
        merges = "".join(f"{_to_unicode(a)} {_to_unicode(b)}\n" for a, b in self.merges)
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "vocab.json": json.dumps(entries, ensure_ascii=False),
            "merges.txt": f"#version: 0.2\n{merges}",
        }
        for name, text in contents.items():
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_text(text, encoding="utf-8", newline="")
            temporary.replace(folder / name)

    @property
    def vocab_size(self) -> int:
        """Ids that the model must know: one more than the largest."""
        return max(self.vocab) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of vocabulary, merges and special tokens, 64 hexadecimal digits."""
        canonical = json.dumps(
            {
                "vocab": {str(i): token.hex() for i, token in sorted(self.vocab.items())},
                "merges": [[a.hex(), b.hex()] for a, b in self.merges],
                "special_tokens": self.special_tokens,
            },
            sort_keys=True,
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        The ids are those of applying the merges in the order they were made.
        """
        return list(self._ids(text))

    def encode_numpy(self, text: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Token ids as uint16, or uint32 for a vocabulary above 65,536."""
        dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        return np.fromiter(self._ids(text), dtype)

    def encode_iterable(self, iterable: Iterable[str]) -> Iterator[int]:
        """Lazily encode a text that comes in pieces, for instance the lines of an open file.

        The ids are those of the whole text, wherever it is cut. What is held in memory is one
        piece (or some 8,000 characters of short ones) and the pre-token that may still grow.
        """
        held, waiting, size = "", list[str](), 0
        for piece in iterable:
            waiting.append(piece)
            size += len(piece)
            # At least as much as was held back: a pre-token that grows without end is then
            # looked at a logarithmic number of times.
            if size < max(_GATHERED_CHARACTERS, len(held)):
                continue
            held += "".join(waiting)
            waiting, size, start = [], 0, 0
            while True:
                begun = unfinished_special(held, start, self.special_tokens)
                match = self._special.search(held, start) if self._special else None
                if match is None or match.start() >= begun:
                    break
                yield from self._ids(held[start : match.end()])
                start = match.end()
            pretokens = GPT2_PATTERN.findall(held, start)
            end = len(held)
            while pretokens and end > begun:
                end -= len(pretokens.pop())
            for pretoken in pretokens[-_UNSETTLED:]:
                end -= len(pretoken)
            yield from chain.from_iterable(map(self._cache.__getitem__, pretokens[:-_UNSETTLED]))
            held = held[end:]
        yield from self._ids(held + "".join(waiting))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, with U+FFFD for bytes that are not UTF-8.

        Raises:
            KeyError: if an id is not in the vocabulary.
        """
        return b"".join(self.vocab[i] for i in ids).decode("utf-8", errors="replace")

    def _ids(self, text: str) -> Iterator[int]:
        """Ids of a text that is whole."""
        parts = self._special.split(text) if self._special else [text]
        return chain.from_iterable(map(self._part_ids, range(len(parts)), parts))

    def _part_ids(self, number: int, part: str) -> Iterable[int]:
        """Ids of one part: every second one is a special token."""
        if number % 2:
            return (self._special_ids[part],)
        return chain.from_iterable(map(self._cache.__getitem__, GPT2_PATTERN.findall(part)))

    def _merge(self, pretoken: str) -> tuple[int, ...]:
        """Apply the merges to one pre-token in the order they were made."""
        ids = [self._byte_ids[byte] for byte in pretoken.encode("utf-8", errors="surrogatepass")]
        if len(ids) > _LONG_PRETOKEN:
            return self._merge_long(ids)
        ranks = self._ranks
        while len(ids) > 1:
            candidates = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
            if not candidates:
                break
            (_, merged), i = min(candidates)
            ids[i : i + 2] = [merged]
        return tuple(ids)

    def _merge_long(self, ids: list[int]) -> tuple[int, ...]:
        """The same with a linked list and a heap: n·log n in the length."""
        end = len(ids)
        after = [*range(1, end), -1]
        before = [-1, *range(end - 1)]
        ranks = self._ranks
        heap = [(*ranks[pair], i, *pair) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
        heap = [(rank, i, merged, a, b) for rank, merged, i, a, b in heap]
        heapq.heapify(heap)

        def push(i: int) -> None:
            pair = (ids[i], ids[after[i]])
            if pair in ranks:
                rank, merged = ranks[pair]
                heapq.heappush(heap, (rank, i, merged, *pair))

        while heap:
            _, i, merged, a, b = heapq.heappop(heap)
            j = after[i]
            if ids[i] != a or j < 0 or ids[j] != b:
                continue  # outdated: one of the two has been merged since
            ids[i], ids[j] = merged, -1
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
                push(i)
            if before[i] >= 0:
                push(before[i])
        return tuple(i for i in ids if i >= 0)


class _Cache(dict[str, tuple[int, ...]]):
    """Pre-token → ids, filled on first use."""

    def __init__(self, merge: Any) -> None:
        super().__init__()
        self._merge = merge

    def __missing__(self, pretoken: str) -> tuple[int, ...]:
        ids: tuple[int, ...] = self._merge(pretoken)
        if len(self) < _CACHE_LIMIT and len(pretoken) <= _LONG_PRETOKEN:
            self[pretoken] = ids
        return ids


@lru_cache(maxsize=1)
def _byte_characters() -> tuple[str, ...]:
    """GPT-2's printable character for each byte: itself, or one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


def _to_unicode(token: bytes) -> str:
    return "".join(_byte_characters()[byte] for byte in token)


@lru_cache(maxsize=1)
def _character_bytes() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(_byte_characters())}


def _from_unicode(text: str) -> bytes:
    try:
        return bytes(_character_bytes()[character] for character in text)
    except KeyError as error:
        raise ValueError(f"{text!r} is not in GPT-2's byte alphabet") from error
