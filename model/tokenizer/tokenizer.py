"""The tokenizer: text to token ids and back, with a byte-level BPE."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from unicodedata import normalize

import numpy as np

from model.errors import CorpusError
from model.spec.data import END_OF_TEXT
from model.tokenizer import formats as tokenizer_files
from model.tokenizer import metaspace
from model.tokenizer.bpe import Merges, Vocab, check_pattern
from model.tokenizer.merging import merged
from model.tokenizer.pretokenizer import (
    PATTERNS,
    UNSETTLED,
    at_most,
    safe_cut,
    slices,
    special_pattern,
    unfinished_special,
)
from model.tokenizer.token_table import Ids, TokenTable

# Limits of the pre-token cache, which keep it below about 50 MB.
_CACHE_LIMIT = 1 << 18
_CACHED_CHARACTERS = 96
_SLICE_CHARACTERS = 1 << 17  # of a long text encoded at a time: they fit the processor's cache
_FEW_CHARACTERS = 1 << 12  # up to this length, a dictionary is faster than arrays
# Short pieces of a stream are joined up to this size: line by line takes three times as long.
_GATHERED_CHARACTERS = 1 << 14
_SHOWN_BYTES = 20  # of a pre-token, on both sides of a byte that is named in a message
_MOST_IDS = 1 << 24
_NO_TOKEN = -1  # id of a byte that is missing from the vocabulary


class Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: id → bytes; without some of the 256 bytes, only texts that need none of these can be
            encoded.
        merges: pairs, in the order of merging.
        special_tokens: texts that are one token each; those missing from the vocabulary are
            appended to it.
        pattern: name in `PATTERNS` of the rule that cuts text into pre-tokens.
        end_of_text: special token that ends a document.

    Raises:
        ValueError: if the parts or the result of a merge are missing from the vocabulary, an id is
            no number below 2²⁴, a special token is empty, or there is no such pattern.
    """

    def __init__(
        self,
        vocab: Vocab,
        merges: Merges,
        special_tokens: Sequence[str] | None = None,
        pattern: str = "gpt2",
        end_of_text: str = END_OF_TEXT,
    ) -> None:
        if pattern not in PATTERNS:
            check_pattern(pattern)
        self.vocab = dict(vocab)
        self.merges = list(merges)
        self.special_tokens = tuple(special_tokens or ())
        self.pattern, self.end_of_text = pattern, end_of_text
        if any(type(i) is not int or not 0 <= i < _MOST_IDS for i in self.vocab):
            raise ValueError(f"the id of a token is not a number from 0 to {_MOST_IDS - 1:,}")
        tokens = set(self.vocab.values())
        for token in self.special_tokens:
            if token.encode() not in tokens:
                self.vocab[max(self.vocab, default=-1) + 1] = token.encode()
        self._prefix = PATTERNS[pattern].prefix
        ids = {token: i for i, token in self.vocab.items()}
        of_byte = {token[0]: i for token, i in ids.items() if len(token) == 1}
        if self._prefix:
            ids, of_byte = metaspace.token_ids(self.vocab), metaspace.byte_ids(self.vocab)
        self._characters = ids if self._prefix else {}
        self._byte_ids = [of_byte.get(byte, _NO_TOKEN) for byte in range(256)]
        self._has_all_bytes = _NO_TOKEN not in self._byte_ids
        try:
            self._merged = [ids[a + b] for a, b in self.merges]
            pairs = [(ids[a], ids[b]) for a, b in self.merges]
        except KeyError as error:
            raise ValueError(f"the vocabulary has no token for the bytes {error}") from error
        # If a pair is listed twice, its first rank counts.
        self._ranks = {pair: rank for rank, pair in reversed([*enumerate(pairs)])}
        self._findall = PATTERNS[pattern].findall
        self._is_composed = PATTERNS[pattern].is_composed
        special = {token.encode() for token in self.special_tokens}
        self._whole = dict[bytes, int]()
        if PATTERNS[pattern].takes_whole:
            self._whole = {token: i for token, i in ids.items() if token not in special}
        self._special = special_pattern(self.special_tokens)
        # Type of an id in arrays of the standard library and of NumPy.
        is_small = self.vocab_size <= 1 << 16
        self._typecode = "H" if is_small else "I"
        self.dtype: np.dtype[Any] = np.dtype(np.uint16 if is_small else np.uint32)
        self._special_ids = {
            token: self._pack([ids[token.encode()]]) for token in self.special_tokens
        }
        self._cache = _Cache(lambda text: self._pack(self._merge(_to_bytes(text))))
        self._table = TokenTable(self._cache.__getitem__, self.dtype)

    @classmethod
    def from_files(
        cls,
        vocab_path: str | os.PathLike[str],
        merges_path: str | os.PathLike[str],
        special_tokens: Sequence[str] | None = None,
        pattern: str = "gpt2",
    ) -> Self:
        """Read GPT-2's vocab.json and merges.txt.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if a file is not in the format.
        """
        parts = tokenizer_files.read_gpt2(vocab_path, merges_path, special_tokens or ())
        return cls(*parts, special_tokens, pattern)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        special_tokens: Sequence[str] | None = None,
        pattern: str = "gpt2",
    ) -> Self:
        """Read a tokenizer of any known format.

        Args:
            path: a Hugging Face tokenizer.json, a tiktoken rank file (*.tiktoken), or a folder
                with tokenizer.json or with vocab.json and merges.txt.
            special_tokens: for formats that do not name them; added to those of tokenizer.json.
            pattern: for formats that do not name a pattern.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if the file is not in the format, or its tokenizer has a feature that ours
                lacks.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "tokenizer.json").exists():
                return cls.from_files(
                    path / "vocab.json", path / "merges.txt", special_tokens, pattern
                )
            path = path / "tokenizer.json"
        if path.suffix == ".tiktoken":
            return cls(*tokenizer_files.read_tiktoken(path), special_tokens, pattern)
        vocab, merges, named, pattern, end = tokenizer_files.read_huggingface(path)
        special = [*dict.fromkeys([*named, *(special_tokens or ())])]
        return cls(vocab, merges, special, pattern, end)

    def save(self, directory: str | os.PathLike[str], file_format: str = "gpt2") -> list[Path]:
        """Write the tokenizer's files, each atomically.

        Args:
            directory: created if it is missing.
            file_format: `gpt2` (vocab.json and merges.txt, which do not say the special tokens and
                the pattern), `huggingface` (tokenizer.json) or `tiktoken` (tokenizer.tiktoken,
                without special tokens and pattern).

        Returns:
            Paths of the files.

        Raises:
            ValueError: if there is no such format, or the format cannot express this tokenizer.
        """
        if file_format != "huggingface" and self._prefix:
            raise ValueError(f"the format {file_format} is for byte-level tokens only")
        if file_format == "gpt2":
            contents = tokenizer_files.gpt2(self.vocab, self.merges, self.special_tokens)
        elif file_format == "huggingface":
            contents = tokenizer_files.huggingface(
                self.vocab, self.merges, self.special_tokens, self.pattern, self.end_of_text
            )
        elif file_format == "tiktoken":
            self._check_ranks()
            contents = tokenizer_files.tiktoken(self.vocab, self.special_tokens)
        else:
            raise ValueError(f"the format must be gpt2, huggingface or tiktoken, got {file_format}")
        return tokenizer_files.write(Path(directory), contents)

    def _check_ranks(self) -> None:
        """Raise ValueError if merging by ids alone, as tiktoken does, gives other tokens."""
        if self._merged != sorted(set(self._merged)):
            raise ValueError(
                "tiktoken's format cannot express merges whose tokens are not in the order of "
                "their ids, or are made twice"
            )
        for token in self._merged:
            if self._merge(self.vocab[token]) != [token]:
                raise ValueError(
                    f"tiktoken's format cannot express token {token} ({self.vocab[token]!r}), "
                    f"which its own bytes never become"
                )

    @property
    def vocab_size(self) -> int:
        """Number of ids that a model needs: one more than the largest."""
        return max(self.vocab) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of vocabulary, merges, special tokens and pattern, 64 hexadecimal digits."""
        parts = {
            "vocab": {str(i): token.hex() for i, token in sorted(self.vocab.items())},
            "merges": [[a.hex(), b.hex()] for a, b in self.merges],
            "special_tokens": self.special_tokens,
            "pattern": self.pattern,
        }
        if self.end_of_text != END_OF_TEXT:
            parts["end_of_text"] = self.end_of_text
        canonical = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        The merges are applied in their order.

        Raises:
            CorpusError: if the text has a byte that is missing from the vocabulary.
        """
        ids: list[int] = self.encode_numpy(text).tolist()
        return ids

    def encode_numpy(self, text: str) -> Ids:
        """Return token ids as uint16, or uint32 for a vocabulary above 65,536; may be read-only."""
        encoded = [ids for _, ids in self.encode_parts(text)]
        return encoded[0] if len(encoded) == 1 else np.concatenate(encoded)

    def encode_parts(self, text: str) -> Iterator[tuple[str, Ids]]:
        """Yield the special tokens of a text and the texts between them, each with its ids."""
        for number, part in enumerate(self._special.split(text) if self._special else [text]):
            if number % 2:
                yield part, self._unpack(self._special_ids[part])
            else:
                starts = not number or self._prefix == "every"
                yield part, self.encode_ordinary(part, starts=starts)

    def encode_ordinary(self, text: str, *, starts: bool = True) -> Ids:
        """Return token ids like `encode_numpy`, but encode special tokens as ordinary text.

        Args:
            text: a text, or a piece of one that was cut before a space.
            starts: False for a piece that is not the first one of its text.
        """
        if self._prefix:
            text = text.replace(metaspace.MARK, " ")
            text = metaspace.prefixed(text, self._prefix) if starts else text
        if self._is_composed:
            text = normalize("NFC", text)
        encoded = list(map(self._encode_slice, slices(text, _SLICE_CHARACTERS)))
        return encoded[0] if len(encoded) == 1 else np.concatenate(encoded)

    def encode_iterable(self, iterable: Iterable[str]) -> Iterator[int]:
        """Lazily encode a text that comes in pieces, for instance the lines of an open file.

        The ids are those of the complete text, however it is cut. Memory holds the current piece,
        some ten thousand characters, and the last pre-token, which may still grow; or the complete
        text if the pattern puts a space before it.
        """
        if self._prefix:
            yield from self.encode("".join(iterable))
            return
        unsettled, waiting, size = "", list[str](), 0
        for piece in at_most(_GATHERED_CHARACTERS, iterable):
            waiting.append(piece)
            size += len(piece)
            # At least as much as was held back, so that a pre-token that grows without end is
            # inspected a logarithmic number of times.
            if size < max(_GATHERED_CHARACTERS, len(unsettled)):
                continue
            unsettled += "".join(waiting)
            waiting, size = [], 0
            end = self._settled(unsettled)
            yield from self.encode(unsettled[:end])
            unsettled = unsettled[end:]
        yield from self.encode(unsettled + "".join(waiting))

    def _settled(self, text: str) -> int:
        """Return the place up to which later text cannot change the ids of an unfinished text."""
        open_special = unfinished_special(text, 0, self.special_tokens)
        start = 0
        for match in self._special.finditer(text) if self._special else ():
            if match.start() >= open_special:
                break
            start = match.end()
        cut = safe_cut(text[start:open_special], open_special - start)
        if cut or self._is_composed:  # a character may be composed with the next one
            return start + cut
        pretokens = self._findall(text[start:open_special])[:-UNSETTLED]
        # Not after white space: its cut depends on the text that follows.
        while pretokens and pretokens[-1][-1].isspace():
            pretokens.pop()
        return start + sum(map(len, pretokens))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids, with U+FFFD for bytes that are not UTF-8.

        Raises:
            KeyError: if an id is not in the vocabulary.
        """
        text = b"".join(map(self.vocab.__getitem__, ids)).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._prefix else text

    def stream(self) -> Callable[[int | None], str]:
        """Return a function from the next id of a text to the complete characters that it adds.

        Ids that are not in the vocabulary add nothing. None ends the text; half a character is then
        U+FFFD.
        """
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode

        def add(i: int | None) -> str:
            return decode(b"" if i is None else self.vocab.get(i, b""), i is None)

        return add

    def _encode_slice(self, text: str) -> Ids:
        """Return the ids of a slice of text without special tokens."""
        if self.pattern == "gpt2" and len(text) > _FEW_CHARACTERS:
            return self._table.encode(text)
        return self._unpack(b"".join(map(self._cache.__getitem__, self._findall(text))))

    def _pack(self, ids: list[int]) -> bytes:
        """Pack ids into bytes, which are joined faster than arrays."""
        return array(self._typecode, ids).tobytes()

    def _unpack(self, packed: bytes) -> Ids:
        return np.frombuffer(packed, self.dtype)

    def _merge(self, pretoken: bytes) -> list[int]:
        """Apply the merges to one pre-token, in their order."""
        if pretoken in self._whole:
            return [self._whole[pretoken]]
        ids = [self._byte_ids[byte] for byte in pretoken]
        if self._prefix:
            ids = metaspace.symbols(pretoken, self._characters, self._byte_ids)
        if not self._has_all_bytes and _NO_TOKEN in ids:
            raise _missing(pretoken, ids.index(_NO_TOKEN))
        return merged(ids, self._ranks, self._merged)


class _Cache(dict[str, bytes]):
    """Cache of pre-token → its packed ids, filled on first use."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, pretoken: str) -> bytes:
        ids = self._encode(pretoken)
        if len(self) < _CACHE_LIMIT and len(pretoken) <= _CACHED_CHARACTERS:
            self[pretoken] = ids
        return ids


def _missing(pretoken: bytes, place: int) -> CorpusError:
    """Return the error for a byte without a token."""
    text = pretoken[max(0, place - _SHOWN_BYTES) : place + _SHOWN_BYTES].decode("utf-8", "replace")
    byte = pretoken[place]
    spelled = f" ({chr(byte)!r})" if 0x20 <= byte < 0x7F else ""
    return CorpusError(
        f"the tokenizer has no token for the byte 0x{byte:02x}{spelled}, which {text!r} needs; use "
        f"a tokenizer with all 256 bytes, or other text"
    )


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
