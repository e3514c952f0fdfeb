"""A prepared corpus: memory-mapped token ids, and from there to sequences, pairs and batches.

`preparation.prepare` makes it. K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from model.corpus.dataset import num_sequences
from model.corpus.pairs import PairDataset
from model.errors import CorpusError
from model.sources.fingerprint import FileDigest
from model.spec.data import END_OF_TEXT
from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]
Split = Literal["train", "validation"]

FORMAT = 4  # of the folder


@dataclass(frozen=True)
class Corpus:
    """Tokenized text.

    Attributes:
        train: training token ids, 1-D, uint16 or uint32, memory-mapped.
        validation: validation token ids.
        train_documents: where each training document ends in `train`, 1-D int64; a pair is two,
            the source and then the target.
        validation_documents: where each validation document ends in `validation`.
        train_bytes: UTF-8 bytes of the training text.
        validation_bytes: UTF-8 bytes of the validation text.
        tokenizer: what made them.
        data_fingerprint: SHA-256 of the source.
        tokenizer_fingerprint: SHA-256 of vocabulary, merges, special tokens and pattern.
        files: what the source's files were.
        has_pairs: whether the documents are the sources and targets of pairs.
    """

    train: Tokens
    validation: Tokens
    train_documents: Ints
    validation_documents: Ints
    train_bytes: int
    validation_bytes: int
    tokenizer: Tokenizer
    data_fingerprint: str
    tokenizer_fingerprint: str
    files: tuple[FileDigest, ...]
    has_pairs: bool

    @property
    def nbytes(self) -> int:
        """Memory that tokens and index need."""
        arrays = (
            self.train, self.validation, self.train_documents, self.validation_documents,
        )  # fmt: skip
        return sum(array.nbytes for array in arrays)

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a document."""
        (end_of_text,) = self.tokenizer.encode(END_OF_TEXT)
        return end_of_text

    def num_sequences(self, split: Split, context_length: int) -> int:
        """Sequences of `context_length` tokens, each with its next token, that do not overlap."""
        tokens = self.train if split == "train" else self.validation
        return num_sequences(len(tokens), context_length)

    def pairs(self, split: Split) -> PairDataset:
        """The pairs of a split.

        Raises:
            CorpusError: if the corpus was not prepared with pairs.
        """
        if not self.has_pairs:
            raise CorpusError(
                "data: an encoder–decoder learns from pairs, and this corpus has none; set pairs: "
                "true, with source: python-docstrings or files: of tables"
            )
        if split == "train":
            return PairDataset(self.train, self.train_documents, self.end_of_text)
        return PairDataset(self.validation, self.validation_documents, self.end_of_text)

    @property
    def splits(self) -> tuple[Tokens | PairDataset, Tokens | PairDataset]:
        """What an engine trains and validates on: texts, or pairs if it was prepared with them."""
        if self.has_pairs:
            return self.pairs("train"), self.pairs("validation")
        # A memory map is copied where an array of it is shared, between processes.
        return np.asarray(self.train), np.asarray(self.validation)


def load(folder: Path) -> Corpus | None:
    """A prepared corpus; None if there is none or it is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            return None
        if any(sha256_of(folder / name) != sha for name, sha in meta["sha256"].items()):
            return None
        tokenizer = Tokenizer.from_file(folder)
        files = json.loads((folder / "files.json").read_text(encoding="utf-8"))

        def array(name: str) -> Any:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        return Corpus(
            train=array("train"),
            validation=array("validation"),
            train_documents=array("train.documents"),
            validation_documents=array("validation.documents"),
            train_bytes=meta["bytes"]["train"],
            validation_bytes=meta["bytes"]["validation"],
            tokenizer=tokenizer,
            data_fingerprint=meta["data_fingerprint"],
            tokenizer_fingerprint=meta["tokenizer_fingerprint"],
            files=tuple(FileDigest(*file) for file in files),
            has_pairs=meta["has_pairs"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def get_batch(
    dataset: npt.ArrayLike,
    batch_size: int,
    context_length: int,
    device: str | torch.device,
    *,
    k: int = 1,
    seed: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows of a text, with their next tokens.

    To a CUDA device they are copied from pinned memory, without waiting for the copy.

    Args:
        dataset: 1-D token ids; a memory-mapped array is read only where the windows are.
        batch_size: B, windows per slot.
        context_length: T.
        device: where the tensors go.
        k: slots; each gets its own windows.
        seed: makes the draw repeatable.

    Returns:
        x and y, (K, B, T) int64; y is x shifted by one.

    Raises:
        ValueError: if the dataset has no window of T + 1 tokens.
    """
    import torch

    tokens = np.asanyarray(dataset)
    windows = len(tokens) - context_length
    if windows < 1:
        raise ValueError(
            f"the dataset has {len(tokens)} tokens; one window needs {context_length + 1}"
        )
    starts = np.random.default_rng(seed).integers(windows, size=(k, batch_size, 1))
    index = starts + np.arange(context_length)
    x, y = (torch.from_numpy(tokens[index + i].astype(np.int64)) for i in (0, 1))
    if torch.device(device).type == "cuda":
        x, y = x.pin_memory(), y.pin_memory()
    return x.to(device, non_blocking=True), y.to(device, non_blocking=True)
