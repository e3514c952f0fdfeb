"""A prepared corpus: memory-mapped token ids, and its sequences, pairs and batches.

`model.prepare` builds the folder. K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.corpus.data import Data
from model.corpus.dataset import Ints, Tokens, num_sequences
from model.corpus.examples import ExampleDataset, Marks
from model.corpus.pairs import PairDataset
from model.errors import CorpusError
from model.sources.choices import ChoiceSet
from model.sources.fingerprint import FileDigest
from model.spec.data import SPLITS, DataConfig, SplitName, SplitRule, TokenizerConfig
from model.tokenizer.load import open_tokenizer
from model.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

FORMAT = 4  # of the folder
FILES = (
    "train.npy", "train.documents.npy", "validation.npy", "validation.documents.npy",
    "tokenizer.json", "files.json",
)  # fmt: skip
CHOICES = "choices.npz"  # of questions, beside FILES
ANSWERS = ("train.answers.npy", "validation.answers.npy")  # of examples, beside FILES


class Split(NamedTuple):
    """One part of a corpus.

    Attributes:
        tokens: token ids, 1-D, uint16 or uint32, memory-mapped.
        document_ends: end of each document in `tokens`, 1-D int64; a pair is two documents, the
            source and then the target.
        num_bytes: UTF-8 bytes of the text.
    """

    tokens: Tokens
    document_ends: Ints
    num_bytes: int


@dataclass(frozen=True)
class Corpus:
    """Tokenized text, split into a training and a validation part.

    Attributes:
        train: training token ids, 1-D, uint16 or uint32, memory-mapped.
        validation: validation token ids.
        train_documents: end of each training document in `train`, 1-D int64; a pair is two
            documents, the source and then the target.
        validation_documents: end of each validation document in `validation`.
        train_bytes: UTF-8 bytes of the training text.
        validation_bytes: UTF-8 bytes of the validation text.
        tokenizer: the tokenizer that encoded the text.
        data_fingerprint: SHA-256 of the source.
        tokenizer_fingerprint: SHA-256 of vocabulary, merges, special tokens and pattern.
        files: name, size and digest of the files of the source.
        has_pairs: True if the documents are the sources and targets of pairs.
        data: configuration of the source, as the caller gave it.
        tokenizer_config: configuration of the tokenizer, as the caller gave it.
        split_by: rule that split the text.
        answers: for each token of both parts 1 if it belongs to an answer, 1-D uint8, if the
            documents are examples; otherwise None.
        choices: questions with several answers, if there are some.
        num_known: validation examples that are training examples, too, and those whose prompt is
            that of one.
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
    data: DataConfig
    tokenizer_config: TokenizerConfig
    split_by: SplitRule = "document"
    answers: tuple[Marks, Marks] | None = None
    choices: ChoiceSet | None = None
    num_known: tuple[int, int] = (0, 0)

    @property
    def nbytes(self) -> int:
        """Memory of token ids and document ends, in bytes."""
        arrays = (
            self.train, self.validation, self.train_documents, self.validation_documents,
        )  # fmt: skip
        return sum(array.nbytes for array in arrays)

    @property
    def validation_share(self) -> float:
        """Share of the text, in bytes, that is the validation part."""
        return self.validation_bytes / (self.train_bytes + self.validation_bytes)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocab_size

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a document."""
        (end_of_text,) = self.tokenizer.encode(self.tokenizer.end_of_text)
        return end_of_text

    def split(self, name: SplitName) -> Split:
        """Return the training or the validation part."""
        if name == "train":
            return Split(self.train, self.train_documents, self.train_bytes)
        return Split(self.validation, self.validation_documents, self.validation_bytes)

    def num_sequences(self, split: SplitName, context_length: int) -> int:
        """Return the number of sequences of a split; of a corpus of pairs, the number of pairs.

        Sequences of a text have `context_length` tokens, each with its next token, without overlap.
        """
        part = self.split(split)
        if self.has_pairs:
            return len(part.document_ends) // 2
        if self.answers is not None:
            return self.examples(split).layout(context_length).num_sequences
        return num_sequences(len(part.tokens), context_length)

    def pairs(self, split: SplitName) -> PairDataset:
        """Return the pairs of a split.

        Raises:
            CorpusError: if the corpus was not prepared with pairs.
        """
        if not self.has_pairs:
            raise CorpusError(
                "data: an encoder–decoder learns from pairs, and this corpus has none; set pairs: "
                "true, with source: python-docstrings or files: of tables"
            )
        part = self.split(split)
        return PairDataset(part.tokens, part.document_ends, self.end_of_text)

    def examples(self, split: SplitName) -> ExampleDataset:
        """Return the examples of a split of a corpus that was prepared with them."""
        return self._examples[split]

    @cached_property
    def _examples(self) -> Mapping[SplitName, ExampleDataset]:
        assert self.answers is not None
        return {
            name: ExampleDataset(
                self.split(name).tokens, self.split(name).document_ends, answers, self.end_of_text,
                learns_all=self.data.loss_on == "all", is_packed=self.data.packing,
            )
            for name, answers in zip(SPLITS, self.answers, strict=True)
        }  # fmt: skip

    @property
    def splits(self) -> tuple[Data, Data]:
        """Training and validation data for an engine: token ids, pairs, or examples."""
        if self.has_pairs:
            return self.pairs("train"), self.pairs("validation")
        if self.answers is not None:
            return self.examples("train"), self.examples("validation")
        # Other processes share a plain array, but get a copy of a memory map.
        return np.asarray(self.train), np.asarray(self.validation)


def files_of(data: DataConfig) -> tuple[str, ...]:
    """Return the names of the files of a corpus, without meta.json."""
    choices = (CHOICES,) if data.multiple_choice is not None else ()
    return (*FILES, *(ANSWERS if data.examples else ()), *choices)


def load(folder: Path, data: DataConfig, tokenizer_config: TokenizerConfig) -> Corpus | None:
    """Load a prepared corpus; return None if there is none or its files are damaged.

    Args:
        folder: of the corpus.
        data: configuration of the source. The folder does not hold it: several configurations can
            describe the same text, for instance by other paths.
        tokenizer_config: configuration of the tokenizer.
    """
    try:
        names = files_of(data)
        if not all((folder / name).is_file() for name in ("meta.json", *names)):
            return None
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            return None
        if any(sha256_of(folder / name) != meta["sha256"][name] for name in names):
            return None
        tokenizer = open_tokenizer(folder)
        files = json.loads((folder / "files.json").read_text(encoding="utf-8"))

        def array(name: str) -> Any:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        corpus = Corpus(
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
            data=data,
            tokenizer_config=tokenizer_config,
            split_by=meta.get("split_by", "document"),
            answers=(
                (array("train.answers"), array("validation.answers")) if data.examples else None
            ),
            choices=(
                ChoiceSet.load(folder / CHOICES) if data.multiple_choice is not None else None
            ),
            num_known=tuple(meta.get("num_known", (0, 0))),
        )
        return corpus if _is_sound(corpus) else None
    except Exception:  # noqa: BLE001 - damaged JSON and headers raise also errors of Python's parser
        return None


def _is_sound(corpus: Corpus) -> bool:
    """Return True if the parts of a corpus have their types and fit each other."""
    names = (corpus.data_fingerprint, corpus.tokenizer_fingerprint)
    facts = (*(file.bytes for file in corpus.files), corpus.train_bytes, corpus.validation_bytes)
    return (
        all(type(name) is str for name in names)
        and all(type(fact) is int and fact >= 0 for fact in facts)
        and all(type(t) is str for file in corpus.files for t in (file.name, file.sha256))
        and type(corpus.has_pairs) is bool
        and corpus.split_by in ("document", "position")
        and corpus.tokenizer.end_of_text in corpus.tokenizer.special_tokens
        and all(_fits(corpus.split(name), corpus) for name in ("train", "validation"))
        and all(
            marks.shape == corpus.split(name).tokens.shape and marks.dtype == np.uint8
            for marks, name in zip(corpus.answers or (), SPLITS, strict=False)
        )
        and [type(count) for count in corpus.num_known] == [int, int]
    )


def _fits(split: Split, corpus: Corpus) -> bool:
    """Return True if the ids of a split are those of its tokenizer, and its ends lie in it."""
    tokens, ends = split.tokens, split.document_ends
    return bool(
        tokens.ndim == ends.ndim == 1
        and tokens.dtype == corpus.tokenizer.dtype
        and ends.dtype == np.int64
        and len(tokens)
        and len(ends)
        and tokens.max() < corpus.vocab_size
        and ends[0] >= 0
        and ends[-1] <= len(tokens)
        and (ends[1:] >= ends[:-1]).all()
        and not (corpus.has_pairs and len(ends) % 2)
        and split.num_bytes
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
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
    """Draw random windows of a text, with their next tokens.

    Copies to a CUDA device start from pinned memory and are not waited for.

    Args:
        dataset: 1-D token ids; of a memory-mapped array, only the windows are read.
        batch_size: B, windows per slot.
        context_length: T.
        device: device of the returned tensors.
        k: slots; each gets its own windows.
        seed: makes the draw repeatable; None draws different windows in each call.

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
