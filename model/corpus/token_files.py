"""Tokenizers of files: train one on files, encode a file, decode a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from model.corpus.prepare import train_tokenizer
from model.errors import CorpusError
from model.progress import OnProgress, silent
from model.sources.streams import texts
from model.spec.data import END_OF_TEXT, DataConfig
from model.tokenizer.load import open_tokenizer
from model.tokenizer.tokenizer import Tokenizer

_IDS_PER_LINE = 32


@dataclass(frozen=True)
class TokenizerSummary:
    """A tokenizer in numbers.

    Attributes:
        vocab_size: number of token ids.
        merges: number of merges.
        pattern: pre-tokenizer.
        special_tokens: special tokens.
        fingerprint: fingerprint of vocabulary and merges.
    """

    vocab_size: int
    merges: int
    pattern: str
    special_tokens: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerSummary:
        """Summarize a tokenizer."""
        return cls(
            tokenizer.vocab_size,
            len(tokenizer.merges),
            tokenizer.pattern,
            tuple(tokenizer.special_tokens),
            tokenizer.fingerprint,
        )


@dataclass(frozen=True)
class EncodedFile:
    """An encoded text: its tokens, its bytes, and the file of the ids if there is one."""

    tokens: int
    bytes: int
    output: str | None


def train_on_files(
    data: DataConfig,
    output: str | Path,
    *,
    vocab_size: int,
    pattern: str = "gpt2",
    special_tokens: Sequence[str] = (END_OF_TEXT,),
    file_format: str = "huggingface",
    processes: int | None = None,
    on_progress: OnProgress = silent,
) -> tuple[Tokenizer, list[Path]]:
    """Train a tokenizer on all documents of the files and write it.

    Returns:
        The tokenizer and its files.

    Raises:
        CorpusError: if a file cannot be read, the vocabulary is too small, or the tokenizer cannot
            be written.
    """
    try:
        tokenizer = train_tokenizer(
            data, vocab_size, special_tokens, pattern, processes=processes, on_progress=on_progress
        )
        return tokenizer, tokenizer.save(output, file_format)
    except CorpusError:
        raise
    except ValueError as error:
        raise CorpusError(str(error)) from error
    except OSError as error:
        raise CorpusError(f"cannot write to {output}: {error.strerror}") from error


def read_tokenizer(
    path: str, special_tokens: Sequence[str] | None = None, pattern: str = "gpt2"
) -> Tokenizer:
    """Read a tokenizer of any format.

    Raises:
        CorpusError: if the file cannot be read, or is of an unsupported kind.
    """
    try:
        return open_tokenizer(path, special_tokens, pattern)
    except OSError as error:
        raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise CorpusError(f"{path}: {error}".replace(f"{path}: {path}", path)) from error


def read_text(file: str) -> str:
    """Read a complete text; `-` is standard input.

    Raises:
        CorpusError: if the file cannot be read.
    """
    return "".join(_blocks(file))


def _blocks(file: str) -> Iterator[str]:
    return texts(Path("/dev/stdin" if file == "-" else file), errors="strict")


def encode_file(tokenizer: Tokenizer, file: str, output: str | None, stream: TextIO) -> EncodedFile:
    """Encode a text block by block and write the ids to a stream, or to a .npy file.

    Args:
        tokenizer: encoder.
        file: path of the text; `-` is standard input.
        output: path of the .npy file; None to write to `stream`.
        stream: output of the ids as decimal numbers.

    Raises:
        CorpusError: if the text cannot be read, or the ids cannot be written.
    """
    num_bytes = count = 0

    def blocks() -> Iterator[str]:
        nonlocal num_bytes
        for block in _blocks(file):
            num_bytes += len(block.encode("utf-8", "surrogatepass"))
            yield block

    ids = tokenizer.encode_iterable(blocks())
    if output is not None:
        array = np.fromiter(ids, tokenizer.dtype)
        try:
            with Path(output).open("wb") as npy_file:
                np.save(npy_file, array)
        except OSError as error:
            raise CorpusError(f"cannot write {output}: {error.strerror}") from error
        return EncodedFile(len(array), num_bytes, output)
    for count, i in enumerate(ids, 1):
        stream.write(f"{i}\n" if count % _IDS_PER_LINE == 0 else f"{i} ")
    if count % _IDS_PER_LINE:
        stream.write("\n")
    return EncodedFile(count, num_bytes, None)


def decode_file(tokenizer: Tokenizer, file: str) -> str:
    """Decode ids, read as decimal numbers or from a .npy file.

    Raises:
        CorpusError: if the file cannot be read or does not hold ids, or an id is not in the
            vocabulary.
    """
    try:
        if file.endswith(".npy"):
            ids = np.load(file).tolist()
        else:
            ids = [int(word) for word in read_text(file).replace(",", " ").split()]
        return tokenizer.decode(ids)
    except CorpusError:
        raise
    except OSError as error:
        raise CorpusError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CorpusError(f"{file} does not hold token ids: {error}") from error
    except KeyError as error:
        raise CorpusError(f"there is no token {error} in the vocabulary") from error
