"""Shards of a corpus: encoded by many processes, then assembled into one array per split.

A shard is a file with the tokens of about two million characters, so that an interruption loses
little work and a process needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from model.corpus.dataset import Ints, Tokens
from model.corpus.examples import Marks
from model.corpus.split import Split
from model.errors import CorpusError
from model.files import replacing
from model.sources.chat_template import render
from model.sources.documents import Document
from model.sources.examples import place_of
from model.sources.registry import documents
from model.spec.chat import ChatFormat
from model.spec.data import SPLITS, DataConfig, SplitName
from model.tokenizer.load import open_tokenizer
from model.tokenizer.spans import encode_spans
from model.tokenizer.tokenizer import Tokenizer

Item = TypeVar("Item")

_SHARD_CHARACTERS = 1 << 21


def utf8_size(text: str) -> int:
    """Return the number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def in_batches(
    items: Iterable[Item], size_of: Callable[[Item], int], size: int
) -> Iterator[list[Item]]:
    """Group items into lists of at least some size; the cuts depend on the items alone."""
    batch: list[Item] = []
    batch_size = 0
    for item in items:
        batch.append(item)
        batch_size += size_of(item)
        if batch_size >= size:
            yield batch
            batch, batch_size = [], 0
    if batch:
        yield batch


# encode ------------------------------------------------------------------------------------


class _Shard(NamedTuple):
    """Documents to encode into one file, each with its part of the split, and the tokenizer.

    Attributes:
        path: file of the shard.
        documents: documents, or pieces of them.
        continues: True if the first one is a piece whose document began in the shard before.
        tokenizer_folder: folder of the tokenizer.
        tokenizer_fingerprint: fingerprint that the tokenizer must have.
        chat: how the documents, which are examples, become text; None for documents of text.
    """

    path: Path
    documents: list[tuple[SplitName, Document]]
    continues: bool
    tokenizer_folder: Path
    tokenizer_fingerprint: str
    chat: ChatFormat | None


def shards_of(
    data: DataConfig, split: Split, building: Path, shards: Path, tokenizer_fingerprint: str
) -> Iterator[_Shard]:
    """Yield the shards of a source, in the order of its documents."""
    parts = split.parts(documents(data))
    batches = in_batches(parts, lambda part: len(part[1].text), _SHARD_CHARACTERS)
    continues = False
    for number, batch in enumerate(batches):
        path = shards / f"{number:06}.npz"
        chat = data.chat if data.examples else None
        yield _Shard(path, batch, continues, building, tokenizer_fingerprint, chat)
        continues = not batch[-1][1].ends


def encode_shard(shard: _Shard) -> int:
    """Encode the documents of a shard into its file, unless an earlier run wrote that file.

    Returns:
        UTF-8 bytes of the documents.
    """
    num_bytes = {split: 0 for split in SPLITS}
    for split, document in shard.documents:
        num_bytes[split] += utf8_size(document.text)
    if not _is_whole(shard.path, has_answers=shard.chat is not None):
        arrays: dict[str, Any] = {}
        tokenizer = _tokenizer(shard.tokenizer_folder, shard.tokenizer_fingerprint)
        for split in SPLITS:
            documents = [document for part, document in shard.documents if part == split]
            continues = shard.continues and shard.documents[0][0] == split
            if shard.chat is not None:
                ids, ends, arrays[f"{split}.answers"] = _encode_examples(
                    tokenizer, documents, shard.chat
                )
            else:
                ids, ends = _encode(tokenizer, documents, continues=continues)
            arrays[split], arrays[f"{split}.documents"] = ids, ends
            arrays[f"{split}.bytes"] = np.array(num_bytes[split])
        with replacing(shard.path) as file:
            np.savez(file, **arrays)
    return sum(num_bytes.values())


def _is_whole(path: Path, *, has_answers: bool) -> bool:
    """Return True if an earlier run wrote a shard; False also for a damaged file."""
    if not path.is_file():
        return False
    try:
        # Opened here: NumPy leaves a damaged file open. Reading checks the sums.
        with path.open("rb") as file, np.load(file) as arrays:
            kinds = ("", ".documents", ".bytes")
            found = [[arrays[split + kind] for kind in kinds] for split in SPLITS]
            answers = [arrays[f"{split}.answers"] for split in SPLITS if has_answers]
    except Exception:  # noqa: BLE001 - damaged headers raise also errors of Python's parser
        return False
    return all(
        tokens.ndim == ends.ndim == 1 and num_bytes.ndim == 0 for tokens, ends, num_bytes in found
    ) and all(
        marks.shape == tokens.shape for marks, (tokens, _, _) in zip(answers, found, strict=False)
    )


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, fingerprint: str) -> Tokenizer:
    """Load the tokenizer once per process, so that all its shards share the pre-token cache."""
    tokenizer = open_tokenizer(folder)
    assert tokenizer.fingerprint == fingerprint
    return tokenizer


def _encode(
    tokenizer: Tokenizer, pieces: Sequence[Document], *, continues: bool = False
) -> tuple[Tokens, Ints]:
    """Return the token ids of pieces of documents, and the ends of the documents that end in them.

    Args:
        tokenizer: the tokenizer.
        pieces: documents or pieces, in order.
        continues: True if the first piece is not the first one of its document.

    Text that looks like a special token is encoded as text; end_of_text is added after a document.

    Raises:
        CorpusError: if the tokenizer has no token for a byte of a text.
    """
    end = tokenizer.encode_numpy(tokenizer.end_of_text)
    encoded: list[Tokens] = [end[:0]]
    ends, size = [], 0
    for piece in pieces:
        try:
            ids = tokenizer.encode_ordinary(piece.text, starts=not continues)
        except CorpusError as error:
            raise CorpusError(f"data: {piece.name}: {error}") from error
        encoded += [ids, end] if piece.ends else [ids]
        size += len(ids) + piece.ends
        continues = not piece.ends
        if piece.ends:
            ends.append(size)
    return np.concatenate(encoded), np.array(ends, np.int64)


def _encode_examples(
    tokenizer: Tokenizer, examples: Sequence[Document], chat: ChatFormat
) -> tuple[Tokens, Ints, Marks]:
    """Return token ids of examples, their ends, and 1 for each token of an answer, otherwise 0.

    Spellings of special tokens are these tokens, as in transformers.

    Raises:
        CorpusError: if an example cannot be written by the chat template.
    """
    encoded = [tokenizer.encode_numpy(tokenizer.end_of_text)[:0]]
    marks = [np.zeros(0, np.uint8)]
    for example in examples:
        where = place_of(example.name)
        text, answers = render(example.text, chat, where)
        try:
            ids, is_answer = encode_spans(tokenizer, text, answers)
        except CorpusError as error:
            raise CorpusError(f"{where}: {error}") from error
        encoded.append(ids)
        marks.append(is_answer.astype(np.uint8))
    ends = np.cumsum([len(ids) for ids in encoded[1:]], dtype=np.int64)
    return np.concatenate(encoded), ends, np.concatenate(marks)


# assemble ----------------------------------------------------------------------------------


def assemble(building: Path, split: str, shards: Sequence[Path], tokenizer: Tokenizer) -> int:
    """Write the shards of a split as one array of ids and one of document ends.

    Of examples also one of the marks of answers.

    Returns:
        UTF-8 bytes of the text of the split.
    """
    num_bytes = num_tokens = 0
    answers = f"{split}.answers"
    has_answers = False
    ends = [np.empty(0, np.int64)]
    for path in shards:
        with np.load(path) as shard:
            ends.append(shard[f"{split}.documents"] + num_tokens)
            num_tokens += len(shard[split])
            num_bytes += int(shard[f"{split}.bytes"])
            has_answers = answers in shard
    with replacing(building / f"{split}.documents.npy") as file:
        np.save(file, np.concatenate(ends))
    _join(building / f"{split}.npy", shards, split, tokenizer.dtype, num_tokens)
    if has_answers:
        _join(building / f"{answers}.npy", shards, answers, np.dtype(np.uint8), num_tokens)
    return num_bytes


def _join(path: Path, shards: Sequence[Path], name: str, dtype: np.dtype[Any], length: int) -> None:
    """Write one array of all shards as one file."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (length,),
    }
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in shards:
            with np.load(part) as shard:
                file.write(shard[name].tobytes())
