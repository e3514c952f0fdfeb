"""Tokenizers of other kinds, by the package `tokenizers`: WordPiece, Unigram, other BPEs.

Only for a tokenizer.json that ours cannot read exactly; the extra `tokenizers` brings the package.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from model.errors import CorpusError
from model.spec.data import END_OF_TEXT
from model.tokenizer import formats, metaspace
from model.tokenizer.bpe import Vocab
from model.tokenizer.token_table import Ids
from model.tokenizer.tokenizer import Tokenizer

LIBRARY = "tokenizers"  # instead of the name of a pattern
_LONGEST_REASON = 200


class LibraryTokenizer(Tokenizer):
    """A tokenizer that the package `tokenizers` computes.

    It is its tokenizer.json without truncation, padding and post-processor: nothing is put around
    texts. A long document is encoded in pieces, which are cut before spaces. Unigram takes the
    spelling of a special token for the token, in documents, too.

    Args:
        contents: of tokenizer.json.
        end_of_text: token that ends a document.

    Raises:
        ValueError: if the package cannot read the contents.
    """

    def __init__(self, contents: Mapping[str, Any], end_of_text: str = END_OF_TEXT) -> None:
        self.end_of_text, self.pattern, self.merges = end_of_text, LIBRARY, []
        contents = {**contents, "truncation": None, "padding": None, "post_processor": None}
        ids = _read(contents).get_vocab(with_added_tokens=True)
        if end_of_text != END_OF_TEXT and end_of_text in ids:
            contents["post_processor"] = formats.naming(end_of_text, ids)
        self._contents, self._library = contents, _read(contents)
        self.vocab = _spelled(ids, contents)
        added = contents.get("added_tokens") or ()
        special = {token["content"] for token in added if token.get("special")} | {end_of_text}
        self.special_tokens = tuple(sorted(special & ids.keys(), key=ids.__getitem__))
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)
        (first, *_) = self._library.encode("x", add_special_tokens=False).tokens or [""]
        self._has_prefix = first.startswith(metaspace.MARK)

    @classmethod
    def read(cls, path: str | os.PathLike[str], problem: str) -> LibraryTokenizer:
        """Read a tokenizer.json that ours cannot read.

        Args:
            path: the file, or its folder.
            problem: what ours lacks, the beginning of error messages.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if the package is not installed, or cannot read the file, either.
        """
        if find_spec(LIBRARY) is None:
            raise ValueError(
                f"{problem}; the package {LIBRARY} reads it: pip install 'tuner[{LIBRARY}]'"
            )
        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        try:
            contents = json.loads(formats.contents_of(file).decode("utf-8"))
            tokenizer = cls(contents)
            end = formats.end_of_text(tokenizer._contents | contents, file, tokenizer.vocab)
            return tokenizer if end == END_OF_TEXT else cls(contents, end)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{problem}, and the package {LIBRARY} cannot read it: {error}"
            ) from error

    @override
    def save(self, directory: str | os.PathLike[str], file_format: str = "gpt2") -> list[Path]:
        if file_format != "huggingface":
            raise ValueError(f"the format {file_format} is for byte-level tokens only")
        text = json.dumps(self._contents, ensure_ascii=False, indent=1)
        return formats.write(Path(directory), {"tokenizer.json": text})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents of the file, 64 hexadecimal digits."""
        canonical = json.dumps(self._contents, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @override
    def encode_parts(self, text: str) -> Iterator[tuple[str, Ids]]:
        yield text, self._packed(self._encoding(text).ids)

    @override
    def encode_ordinary(self, text: str, *, starts: bool = True) -> Ids:
        if self._has_prefix and not starts:
            text = text.removeprefix(" ")  # the tokenizer puts one before every text
        self._library.encode_special_tokens = True
        try:
            return self._packed(self._encoding(text).ids)
        finally:
            self._library.encode_special_tokens = False

    @override
    def encode_iterable(self, iterable: Iterable[str]) -> Iterator[int]:
        yield from self.encode("".join(iterable))

    def encode_spans(
        self, text: str, spans: Sequence[tuple[int, int]]
    ) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Encode a text and mark the tokens of some of its parts, as `spans.encode_spans`."""
        encoding = self._encoding(text)
        begins, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T  # in characters
        marked = np.zeros(len(begins), np.bool_)
        for begin, end in spans:
            marked |= (ends > begin) & (begins < end)
        return self._packed(encoding.ids), marked

    @override
    def decode(self, ids: Iterable[int]) -> str:
        known = [*ids]
        for i in known:
            self.vocab[i]  # raises KeyError, as ours
        text: str = self._library.decode(known, skip_special_tokens=False)
        return text

    @override
    def stream(self) -> Callable[[int | None], str]:
        ids: list[int] = []
        shown = ""

        def add(i: int | None) -> str:
            nonlocal shown
            ids.extend([i] if i in self.vocab else [])
            text = self.decode(ids)
            if i is not None:
                text = text.rstrip("\ufffd")  # a character may be complete with the next token
            new, shown = text[len(shown) :], text
            return new

        return add

    def _encoding(self, text: str) -> Any:
        try:
            return self._library.encode(text, add_special_tokens=False)
        except Exception as error:
            raise CorpusError(f"the package {LIBRARY} cannot encode a text: {error}") from error

    def _packed(self, ids: Sequence[int]) -> Ids:
        return np.array(ids, self.dtype)


def _read(contents: Mapping[str, Any]) -> Any:
    """Return the package's own object."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(json.dumps(contents))
    except BaseException as error:  # a panic of its code is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise ValueError(str(error)[:_LONGEST_REASON]) from error


def _spelled(ids: Mapping[str, int], contents: Mapping[str, Any]) -> Vocab:
    """Return id → bytes of each token, as it is shown."""
    added = {token["content"] for token in contents.get("added_tokens") or ()}
    is_byte_level = '"ByteLevel"' in json.dumps(contents.get("decoder"))
    vocab: Vocab = {}
    for name, i in ids.items():
        if name in added:
            vocab[i] = name.encode()
        elif is_byte_level:
            vocab[i] = formats.bytes_of(name)
        elif byte := metaspace.BYTE.fullmatch(name):
            vocab[i] = bytes([int(byte[1], 16)])
        else:
            vocab[i] = name.replace(metaspace.MARK, " ").encode()
    return vocab
