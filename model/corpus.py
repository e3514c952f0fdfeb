"""From documents to token ids on disk, and from there to sequences.

Documents are split into training and validation by a key of their
name, tokenized, and kept as memory-mapped arrays in a cache that is named by its contents.

K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from model.bpe import count_pretokens, merge_pretokens
from model.sources import END_OF_TEXT, SOURCES, CorpusError, DataConfig
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]
Document = tuple[str, str]  # name and text

_CACHE_FORMAT = 2


@dataclass(frozen=True)
class Corpus:
    """Tokenized text.

    Attributes:
        train: training token ids, 1-D, uint16 or uint32.
        validation: validation token ids.
        tokenizer: what made them.
        data_fingerprint: SHA-256 of the documents and of how they were split.
        tokenizer_fingerprint: SHA-256 of vocabulary and merges.
        num_train_documents: documents of the training part.
        num_validation_documents: documents of the validation part.
        train_bytes: UTF-8 bytes of the training text.
        validation_bytes: UTF-8 bytes of the validation text.
    """

    train: Tokens
    validation: Tokens
    tokenizer: Tokenizer
    data_fingerprint: str
    tokenizer_fingerprint: str
    num_train_documents: int
    num_validation_documents: int
    train_bytes: int
    validation_bytes: int

    def num_sequences(self, split: Literal["train", "validation"], context_length: int) -> int:
        """Sequences of `context_length` tokens, each with its next token, that do not overlap."""
        tokens = self.train if split == "train" else self.validation
        return max(0, len(tokens) - 1) // context_length


def _documents(config: DataConfig) -> list[Document]:
    """The documents of a source, each in one piece."""
    whole = groupby(SOURCES[config.kind](config), key=lambda document: document.name)
    return [(name, "".join(piece.text for piece in pieces)) for name, pieces in whole]


def _split(documents: list[Document], config: DataConfig) -> tuple[list[Document], list[Document]]:
    """Training and validation documents; where one goes depends on its own name only."""
    if not documents:
        raise CorpusError(
            f"data: there are no documents, only separators ({config.separator!r}); give files "
            f"with text between them, or another separator"
        )
    if len(documents) < 2:
        raise CorpusError(
            "data: the split is by document, and there is only one; give several "
            'files, or say what separates documents (for instance separator: "\\n\\n")'
        )

    def place(name: str) -> float:
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64

    places = [place(name) for name, _ in documents]
    limit = max(config.validation_fraction, min(places))  # at least the lowest one
    held_out = [p <= limit for p in places]
    if all(held_out):
        raise CorpusError(
            "data: every document falls into the validation part; lower validation_fraction"
        )
    train = [d for d, held in zip(documents, held_out, strict=True) if not held]
    return train, [d for d, held in zip(documents, held_out, strict=True) if held]


def _fingerprint(documents: Iterable[Document], config: DataConfig) -> str:
    """SHA-256 of names, texts and options; where the files lie does not count."""
    options = (config.kind, config.separator, config.validation_fraction)
    sha = hashlib.sha256(repr(options).encode())
    for name, text in documents:
        for part in (name.encode(), text.encode()):
            sha.update(len(part).to_bytes(8))
            sha.update(part)
    return sha.hexdigest()


def prepare(
    config: DataConfig,
    vocab_size: int,
    cache_dir: Path,
    progress: Callable[[str], None] | None = None,
) -> Corpus:
    """Read, split, train the tokenizer and encode; or load all that from the cache.

    Args:
        config: where the text comes from.
        vocab_size: ids that the tokenizer may make.
        cache_dir: where prepared corpora are kept.
        progress: is told what is being done.

    Raises:
        CorpusError: if the source cannot be used.
        ValueError: if `vocab_size` is below 257.
    """
    say = progress or (lambda message: None)
    say("reading documents")
    documents = _documents(config)
    data_fingerprint = _fingerprint(documents, config)
    folder = _folder(cache_dir, data_fingerprint, vocab_size)
    found = _load(folder, data_fingerprint)
    if found is not None:
        return found

    parts = dict(zip(("train", "validation"), _split(documents, config), strict=True))
    say("training the tokenizer")
    counts = count_pretokens((text for _, text in parts["train"]), [END_OF_TEXT])
    tokenizer = Tokenizer(*merge_pretokens(counts, vocab_size, [END_OF_TEXT]), [END_OF_TEXT])
    say("encoding")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".preparing-") as temporary:
        building = Path(temporary, "corpus")
        tokenizer.save(building)
        meta: dict[str, Any] = {
            "format": _CACHE_FORMAT,
            "data_fingerprint": data_fingerprint,
            "tokenizer_fingerprint": tokenizer.fingerprint,
        }
        for split, part in parts.items():
            tokens = tokenizer.encode_numpy("".join(chain(*((t, END_OF_TEXT) for _, t in part))))
            np.save(building / f"{split}.npy", tokens)
            meta[split] = {
                "sha256": _sha256(building / f"{split}.npy"),
                "documents": len(part),
                "bytes": sum(len(text.encode()) for _, text in part),
            }
        (building / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")
        # Loaded before it is put in place: a mapped file stays readable whatever other processes
        # do to its name.
        corpus = _load(building, data_fingerprint)
        assert corpus is not None
        if _load(folder, data_fingerprint) is None:
            _put(building, folder, Path(temporary, "damaged"))
    return corpus


def _put(building: Path, folder: Path, aside: Path) -> None:
    """Put a finished corpus in place, and a damaged one aside; each is one atomic step."""
    with suppress(FileNotFoundError):  # none is there
        folder.rename(aside)
    try:
        building.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        # Another process was faster, and its result is the same.


def cached(config: DataConfig, vocab_size: int, cache_dir: Path) -> Corpus | None:
    """What `prepare` would load from the cache; None if it would have to work.

    Raises:
        CorpusError: if the source cannot be read.
    """
    data_fingerprint = _fingerprint(_documents(config), config)
    return _load(_folder(cache_dir, data_fingerprint, vocab_size), data_fingerprint)


def _folder(cache_dir: Path, data_fingerprint: str, vocab_size: int) -> Path:
    return cache_dir / f"{data_fingerprint[:16]}-{vocab_size}-v{_CACHE_FORMAT}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path, data_fingerprint: str) -> Corpus | None:
    """A prepared corpus; None if there is none or it is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        sound = (
            meta["format"] == _CACHE_FORMAT
            and meta["data_fingerprint"] == data_fingerprint
            and all(
                _sha256(folder / f"{split}.npy") == meta[split]["sha256"]
                for split in ("train", "validation")
            )
        )
        if not sound:
            return None
        tokenizer = Tokenizer.from_files(
            folder / "vocab.json", folder / "merges.txt", [END_OF_TEXT]
        )
        arrays = [np.load(folder / f"{s}.npy", mmap_mode="r") for s in ("train", "validation")]
        if tokenizer.fingerprint != meta["tokenizer_fingerprint"]:
            return None
        return Corpus(
            train=arrays[0],
            validation=arrays[1],
            tokenizer=tokenizer,
            data_fingerprint=data_fingerprint,
            tokenizer_fingerprint=tokenizer.fingerprint,
            num_train_documents=meta["train"]["documents"],
            num_validation_documents=meta["validation"]["documents"],
            train_bytes=meta["train"]["bytes"],
            validation_bytes=meta["validation"]["bytes"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sequences(tokens: Tokens, indices: Ints, context_length: int) -> tuple[Ints, Ints]:
    """The sequences of some numbers; sequence i begins at token i·T.

    Args:
        tokens: 1-D token ids.
        indices: int64, any shape S, below `num_sequences`.
        context_length: T.

    Returns:
        Inputs and targets, int64, S + (T,); a target is the token after its input.
    """
    offsets = indices[..., None] * context_length + np.arange(context_length)
    return tokens[offsets].astype(np.int64), tokens[offsets + 1].astype(np.int64)


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

    Args:
        dataset: 1-D token ids.
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
    return x.to(device), y.to(device)
