"""From token ids on disk to sequences and batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.corpus import corpus
from model.corpus.corpus import Corpus, get_batch, sha256_of
from model.corpus.dataset import sequences
from model.corpus.prepare import prepare
from model.spec.data import DataConfig, TokenizerConfig

DATA = DataConfig(files=("text.txt",), separator="§")
TOKENIZER = TokenizerConfig(vocab_size=270)


def load(folder: Path) -> Corpus | None:
    return corpus.load(folder, DATA, TOKENIZER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared corpus."""
    (tmp_path / "text.txt").write_text("§".join(f"Document {i} é." * i for i in range(30)))
    data = DATA.model_copy(update={"files": (str(tmp_path / "text.txt"),)})
    prepare(data, TOKENIZER, tmp_path / "cache")
    (found,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    return found


def test_load_maps_a_prepared_corpus(folder: Path) -> None:
    loaded = load(folder)
    assert loaded is not None
    assert isinstance(loaded.train, np.memmap)
    assert loaded.train.dtype == np.uint16
    assert loaded.train_documents.tolist() == (np.flatnonzero(loaded.train == 0) + 1).tolist()
    assert loaded.validation_documents[-1] == len(loaded.validation)
    assert loaded.tokenizer_fingerprint == loaded.tokenizer.fingerprint
    assert loaded.vocab_size == loaded.tokenizer.vocab_size == 270
    assert [file.name for file in loaded.files] == ["text.txt"]
    assert (loaded.data, loaded.tokenizer_config) == (DATA, TOKENIZER)
    assert {path.name for path in folder.iterdir()} == {
        "files.json", "meta.json", "tokenizer.json", "train.documents.npy", "train.npy",
        "validation.documents.npy", "validation.npy",
    }  # fmt: skip


def test_split_has_the_parts_of_a_corpus(folder: Path) -> None:
    loaded = load(folder)
    assert loaded is not None
    for name in ("train", "validation"):
        split = loaded.split(name)
        assert split.tokens is getattr(loaded, name)
        assert split.document_ends is getattr(loaded, f"{name}_documents")
        assert split.num_bytes == getattr(loaded, f"{name}_bytes")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped tokens": lambda folder: flip(folder / "train.npy"),
    "flipped validation": lambda folder: flip(folder / "validation.npy"),
    "flipped documents": lambda folder: flip(folder / "train.documents.npy"),
    "flipped tokenizer": lambda folder: flip(folder / "tokenizer.json"),
    "truncated tokens": lambda folder: (folder / "train.npy").write_bytes(b"\x93NUMPY"),
    "no tokens": lambda folder: (folder / "train.npy").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "empty meta": lambda folder: (folder / "meta.json").write_text(""),
    "other meta": lambda folder: (folder / "meta.json").write_text("[]"),
    "bare meta": lambda folder: (folder / "meta.json").write_text("{}"),
    "old format": lambda folder: rewrite(folder / "meta.json", format=0),
    "meta without sizes": lambda folder: rewrite(folder / "meta.json", bytes={}),
    "not utf-8": lambda folder: (folder / "meta.json").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_load_finds_damage(folder: Path, damage: str) -> None:
    assert load(folder) is not None
    DAMAGE[damage](folder)
    assert load(folder) is None
    assert load(folder / "missing") is None


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    ("length", "context", "expected"), [(0, 4, 0), (1, 4, 0), (4, 4, 0), (5, 4, 1), (13, 4, 3)]
)
def test_num_sequences_counts_those_with_a_next_token(
    folder: Path, length: int, context: int, expected: int
) -> None:
    tokens = np.arange(length, dtype=np.uint16)
    prepared = load(folder)
    assert prepared is not None
    short = replace(prepared, train=tokens, validation=tokens[:0])
    assert short.num_sequences("train", context) == expected
    assert short.num_sequences("validation", context) == 0
    if expected:
        x, y = sequences(tokens, np.arange(expected), context)
        assert x.reshape(-1).tolist() == list(range(expected * context))
        assert y.reshape(-1).tolist() == list(range(1, expected * context + 1))


def test_sequences_keeps_the_shape_of_the_indices() -> None:
    tokens = np.arange(100, dtype=np.uint32) * 3
    x, y = sequences(tokens, np.array([[[2, 0], [5, 18]]]), 5)
    assert x.shape == y.shape == (1, 2, 2, 5)
    assert x.dtype == y.dtype == np.int64
    assert x[0, 1, 0].tolist() == [75, 78, 81, 84, 87]
    assert (y == x + 3).all()


@pytest.mark.parametrize("k", [1, 3])
def test_get_batch_draws_windows_with_their_next_tokens(k: int) -> None:
    data = np.arange(20, dtype=np.uint16)
    x, y = get_batch(data, 500, 7, "cpu", k=k, seed=1)
    assert x.shape == y.shape == (k, 500, 7)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[..., :1] + torch.arange(7))
    assert set(x[..., 0].flatten().tolist()) == set(range(13)), "every window, the last included"
    assert all(not torch.equal(x[0], x[slot]) for slot in range(1, k))
    assert torch.equal(x, get_batch(data, 500, 7, "cpu", k=k, seed=1)[0])
    assert not torch.equal(x, get_batch(data, 500, 7, "cpu", k=k, seed=2)[0])


def test_get_batch_takes_a_list_and_the_shortest_text() -> None:
    x, y = get_batch([5, 6, 7], 2, 2, "cpu")
    assert x.tolist() == [[[5, 6], [5, 6]]]
    assert y.tolist() == [[[6, 7], [6, 7]]]
    with pytest.raises(ValueError, match="has 2 tokens; one window needs 3"):
        get_batch([5, 6], 2, 2, "cpu")
