"""Pairs as rows: equal to the definition row by row, and to the texts that they came from."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.corpus import shards
from model.corpus.corpus import Corpus
from model.corpus.dataset import IGNORED, Batch
from model.corpus.pairs import PairDataset
from model.corpus.prepare import prepare
from model.errors import CorpusError
from model.sources import documents
from model.sources.docstrings import docstring_pairs
from model.spec.architecture import Architecture
from model.spec.data import SPLITS, DataConfig, SplitName, TokenizerConfig
from tests.shipped import small_library

SMALL = TokenizerConfig(vocab_size=280)

Ids = list[int]


def shape_of(source_length: int, target_length: int) -> Architecture:
    return Architecture(
        vocab_size=280,
        n_encoder_layers=1,
        source_length=source_length,
        context_length=target_length,
    )


def batch_of(made: PairDataset, numbers: Any, source_length: int, target_length: int) -> Batch:
    return made.batch(np.array(numbers), shape_of(source_length, target_length))


def stream(pairs: list[tuple[Ids, Ids]], end: int, dtype: Any = np.uint16) -> PairDataset:
    texts = [[*text, end] for pair in pairs for text in pair]
    tokens = np.array([token for text in texts for token in text], dtype)
    return PairDataset(tokens, np.cumsum([len(text) for text in texts], dtype=np.int64), end)


def reference(source: Ids, target: Ids, end: int, lengths: tuple[int, int]) -> tuple[Ids, Ids, Ids]:
    """The three rows of one pair, as their definition reads."""

    def padded(ids: Ids, length: int, padding: int) -> Ids:
        return (ids + [padding] * length)[:length]

    source_length, target_length = lengths
    return (
        padded([end, *target], target_length, end),
        padded([*target, end], target_length, IGNORED),
        padded([*source[: source_length - 1], end], source_length, end),
    )


TEXTS = st.lists(st.integers(1, 40), max_size=9)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6),
    shape=st.sampled_from([(), (1,), (5,), (2, 3), (2, 0), (1, 2, 2)]),
    lengths=st.tuples(st.integers(2, 12), st.integers(1, 12)),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    end=st.sampled_from([0, 41]),
    data=st.data(),
)
def test_batch_is_the_definition_row_by_row(
    pairs: list[tuple[Ids, Ids]],
    shape: tuple[int, ...],
    lengths: tuple[int, int],
    dtype: Any,
    end: int,
    data: st.DataObject,
) -> None:
    size = int(np.prod(shape))
    drawn = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=size, max_size=size))
    numbers = np.array(drawn, np.int64).reshape(shape)
    made = stream(pairs, end, dtype)
    batch = batch_of(made, numbers, *lengths)
    expected = [reference(*pairs[number], end, lengths) for number in drawn]
    for part, rows, length in zip(
        batch.arrays, zip(*expected, strict=True) if expected else ([], [], []),
        (lengths[1], lengths[1], lengths[0]), strict=True,
    ):  # fmt: skip
        assert part.shape == (*shape, length)
        assert part.dtype == np.int64
        assert part.reshape(-1, length).tolist() == list(rows)
    counts = made.num_targets(numbers, shape_of(4, lengths[1]))
    assert counts.shape == shape
    assert counts.dtype == np.int64
    assert np.array_equal(counts, (batch.targets != IGNORED).sum(-1))


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6), st.sampled_from([0, 41]))
def test_source_and_target_are_the_ids_of_the_texts(pairs: list[tuple[Ids, Ids]], end: int) -> None:
    made = stream(pairs, end)
    assert len(made) == len(pairs)
    for number, (source, target) in enumerate(pairs):
        assert made.source(number).tolist() == source
        assert made.target(number).tolist() == target
        assert made.source(number).dtype == made.target(number).dtype == np.int64
    sources, targets = made.lengths()
    assert sources.tolist() == [len(source) + 1 for source, _ in pairs]
    assert targets.tolist() == [len(target) + 1 for _, target in pairs]


def test_memory_map_is_shared_and_not_copied(tmp_path: Path) -> None:
    """Pickled for another process, its tokens travel beside the pickle, without a copy."""
    np.save(tmp_path / "tokens.npy", np.arange(50_000, dtype=np.uint16))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    buffers: list[pickle.PickleBuffer] = []
    inside = pickle.dumps(
        PairDataset(tokens, np.array([9, 50_000]), 0), protocol=5, buffer_callback=buffers.append
    )
    assert len(inside) < 2_000
    assert sum(buffer.raw().nbytes for buffer in buffers) > tokens.nbytes


def test_lengths_cut_nothing() -> None:
    made = stream([([5, 6, 7], [8, 9])], 0)
    (source,), (target,) = made.lengths()
    batch = batch_of(made, np.array([0]), int(source), int(target))
    assert batch.sources.tolist() == [[5, 6, 7, 0]]
    assert batch.inputs.tolist() == [[0, 8, 9]]
    assert batch.targets.tolist() == [[8, 9, 0]]
    shorter = batch_of(made, np.array([0]), int(source) - 1, int(target) - 1)
    assert shorter.sources.tolist() == [[5, 6, 0]]
    assert shorter.targets.tolist() == [[8, 9]]


def test_missing_pairs_are_refused() -> None:
    made = stream([([1], [2]), ([3], [4])], 0)
    asks: list[Callable[[int], Any]] = [
        made.source,
        made.target,
        lambda number: batch_of(made, np.array([[0, number]]), 4, 4),
        lambda number: made.num_targets(np.array([number]), shape_of(4, 4)),
    ]
    for ask in asks:
        for number in (-1, 2):
            with pytest.raises(IndexError, match=r"there are 2 pairs, numbered from 0; got"):
                ask(number)
    with pytest.raises(ValueError, match="each pair has two ends, got 3; a source has no target"):
        PairDataset(np.arange(9), np.array([1, 2, 9]), 0)


# from the files to the rows -----------------------------------------------------------------

WORDS = [
    (f"source {i} é " + "word " * (i % 7), f"{i} <|endoftext|> ziel\n" * (1 + i % 3))
    for i in range(60)
]


def jsonl(pairs: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"from": s, "to": t}) + "\n" for s, t in pairs)


def tsv(pairs: list[tuple[str, str]]) -> str:
    return "from\tto\n" + "".join(f'"{s}"\t"{t}"\n' for s, t in pairs)


def decoded(corpus: Corpus, split: SplitName) -> list[tuple[str, str]]:
    decode, pairs = corpus.tokenizer.decode, corpus.pairs(split)
    return [
        (decode(pairs.source(i).tolist()), decode(pairs.target(i).tolist()))
        for i in range(len(pairs))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", jsonl(WORDS)), ("a.tsv", tsv(WORDS))])
def test_prepared_pairs_are_the_texts_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, processes: int
) -> None:
    monkeypatch.setattr(shards, "_SHARD_CHARACTERS", 40)  # a source may end a shard
    monkeypatch.setattr(documents, "PIECE", 25)
    (tmp_path / name).write_text(text, encoding="utf-8")
    data = DataConfig(
        files=(str(tmp_path / name),),
        pairs=True,
        source_field="from",
        target_field="to",
        validation_fraction=0.3,
    )
    corpus = prepare(data, SMALL, tmp_path / "cache", processes=processes)
    assert corpus.has_pairs
    assert [corpus.num_sequences(split, 8) for split in SPLITS] == [
        len(corpus.pairs(split)) for split in SPLITS
    ]
    assert isinstance(corpus.train, np.memmap)
    train, validation = (decoded(corpus, split) for split in SPLITS)
    assert 5 < len(validation) < 40
    assert train == [pair for pair in WORDS if pair not in validation]
    assert validation == [pair for pair in WORDS if pair not in train]
    assert len(corpus.train_documents) == 2 * len(train)
    end = corpus.tokenizer.encode("<|endoftext|>")[0]
    pairs = corpus.pairs("train")
    rows = batch_of(pairs, np.arange(len(pairs)), 400, 400)
    for part, length, texts in zip(
        (rows.sources, rows.inputs), pairs.lengths(), zip(*train, strict=True), strict=True
    ):
        assert length.max() < 400
        read = [corpus.tokenizer.decode([i for i in row if i != end]) for row in part.tolist()]
        assert read == list(texts), "ids of a text are never the end's"


def test_the_same_file_makes_other_corpora_with_pairs_and_other_fields(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "source": f"source {i}", "target": f"{i}"} for i in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: list[dict[str, Any]] = [
        {}, {"pairs": True}, {"pairs": True, "source_field": "text"},
        {"pairs": True, "source_field": "target", "target_field": "source"},
    ]  # fmt: skip
    corpora = [
        prepare(DataConfig(files=(str(path),), **more), SMALL, tmp_path / "cache")
        for more in options
    ]
    assert len({corpus.data_fingerprint for corpus in corpora}) == 4
    assert [corpus.has_pairs for corpus in corpora] == [False, True, True, True]
    texts = [corpus.tokenizer.decode(corpus.train.tolist()) for corpus in corpora]
    assert len(set(texts)) == 4
    first = [re.sub(r"\d+", "", decoded(corpus, "train")[0][0]) for corpus in corpora[1:]]
    assert first == ["source ", "text ", ""]
    for split in SPLITS:
        with pytest.raises(CorpusError, match="this corpus has none; set pairs: true, with source"):
            corpora[0].pairs(split)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (1, {}, "the split is by pair, and there is only one; give several pairs$"),
        (9, {"validation_fraction": 0.999999}, "every pair falls into the validation part; lower"),
    ],
)
def test_prepare_messages_name_pairs(
    tmp_path: Path, rows: int, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n' * rows)
    data = DataConfig(files=(str(tmp_path / "a.jsonl"),), pairs=True, **options)
    with pytest.raises(CorpusError, match=message):
        prepare(data, SMALL, tmp_path / "cache")


@pytest.mark.slow
def test_pairs_of_the_library_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_library(tmp_path / "library", monkeypatch)
    data = DataConfig(source="python-docstrings", pairs=True)
    corpora = [
        prepare(data, TokenizerConfig(vocab_size=512), tmp_path / f"{n}", processes=n)
        for n in (1, 2)
    ]
    assert np.array_equal(corpora[0].train, corpora[1].train)
    assert np.array_equal(corpora[0].train_documents, corpora[1].train_documents)
    everything = [(source, target) for _, source, target in docstring_pairs()]
    train, validation = (decoded(corpora[1], split) for split in SPLITS)
    assert len(train) + len(validation) == len(everything)
    assert 0.03 < len(validation) / len(everything) < 0.07
    rest = iter(everything)
    assert all(pair in rest for pair in train), "in the order of the library"
    assert sorted(train + validation) == sorted(everything)
