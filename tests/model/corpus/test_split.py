"""The split of a source, by document and by position."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.corpus import split as splitting
from model.corpus.prepare import prepare
from model.corpus.split import DocumentSplit, PositionSplit, place, position_split
from model.sources.documents import Document
from model.spec.data import END_OF_TEXT, DataConfig, TokenizerConfig

BYTES = TokenizerConfig(vocab_size=257)


def config(path: Path, **more: Any) -> DataConfig:
    return DataConfig(files=(str(path),), **more)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def held_out(path: Path, fraction: float) -> str:
    """The validation part of a text, after checking that nothing is lost."""
    text = path.read_bytes().decode()  # with its carriage returns
    cut = position_split(config(path, validation_fraction=fraction)).cut
    assert 0 < cut < len(text)
    return text[cut:]


@pytest.mark.parametrize(
    ("unit", "begin"),
    [
        ("a line\nanother one\n\n", "a line"),
        ("a line\r\nanother one\r\n\r\n", "a line"),
        ("one line without paragraphs\n", "one line"),
        ("words ", " words"),
        ("x", "x"),
    ],
    ids=["paragraph", "paragraph of Windows", "line", "word", "anywhere"],
)
def test_cut_is_at_the_nearest_good_place(tmp_path: Path, unit: str, begin: str) -> None:
    path = written(tmp_path / "input.txt", unit * (20_000 // len(unit)))
    validation = held_out(path, 0.1)
    assert validation.startswith(begin)
    assert 2_000 <= len(validation) < 2_000 + 2 * len(unit) + 20


def test_cut_moves_by_at_most_a_quarter_of_a_part(tmp_path: Path) -> None:
    path = written(tmp_path / "input.txt", "x" * 100 + "\n\n" + "y" * 898)
    assert held_out(path, 0.1) == "y" * 100
    path = written(tmp_path / "input.txt", "x" * 880 + "\n\n" + "y" * 118)
    assert held_out(path, 0.1) == "y" * 118


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    ends=st.data(),
    fraction=st.floats(0.01, 0.99),
)
def test_position_split_keeps_every_character_in_order(
    sizes: list[int], ends: st.DataObject, fraction: float
) -> None:
    """Also if the cut falls between two pieces of a document."""
    is_end = [ends.draw(st.booleans()) for _ in sizes[1:]] + [True]
    letters = iter("".join(chr(ord("a") + i % 26) for i in range(sum(sizes))))
    pieces, number = [], 0
    for size, end in zip(sizes, is_end, strict=True):
        pieces.append(Document(f"#{number}", "".join(next(letters) for _ in range(size)), end))
        number += end
    text = "".join(piece.text for piece in pieces)
    for cut in {1, max(1, round(len(text) * fraction)), sizes[0], len(text) - 1} - {0, len(text)}:
        parts = list(PositionSplit(cut).parts(pieces))
        joined = {
            name: [piece for part, piece in parts if part == name]
            for name in ("train", "validation")
        }
        assert "".join(piece.text for piece in joined["train"]) == text[:cut]
        assert "".join(piece.text for piece in joined["validation"]) == text[cut:]
        assert joined["train"][-1].ends
        assert joined["validation"][-1].ends
        assert all(piece.text for _, piece in parts)


def test_position_split_of_several_documents_is_between_two(tmp_path: Path) -> None:
    documents = [f"{i:03} of some text\n\nwith a paragraph" for i in range(100)]
    path = written(tmp_path / "input.txt", END_OF_TEXT.join(documents))
    data = config(path, split_by="position", validation_fraction=0.25)
    corpus = prepare(data, BYTES, tmp_path / "cache")
    assert corpus.split_by == "position"
    assert corpus.tokenizer.decode(corpus.validation.tolist()).startswith("075 of")
    assert (len(corpus.train_documents), len(corpus.validation_documents)) == (75, 25)


def test_one_text_is_split_by_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer learns from the training part, and shards and pieces change nothing."""
    text = "".join(f"Speaker {i}:\nSome words {i % 7}.\n\n" for i in range(400)) + "zq" * 200
    path = written(tmp_path / "input.txt", text)
    tokenizer = TokenizerConfig(vocab_size=270)
    data = config(path, validation_fraction=0.1)
    corpus = prepare(data, tokenizer, tmp_path / "cache")
    assert corpus.split_by == "position"
    assert not any(b"zq" in token for token in corpus.tokenizer.vocab.values())
    decode = corpus.tokenizer.decode
    train, validation = (decode(ids.tolist()) for ids in (corpus.train, corpus.validation))
    assert train.removesuffix(END_OF_TEXT) + validation.removesuffix(END_OF_TEXT) == text
    assert validation.startswith("Speaker")
    assert abs(corpus.validation_share - 0.1) < 0.01
    assert len(corpus.train_documents) == len(corpus.validation_documents) == 1
    monkeypatch.setattr("model.corpus.shards._SHARD_CHARACTERS", 100)
    monkeypatch.setattr("model.sources.documents.PIECE", 128)
    again = prepare(data, tokenizer, tmp_path / "other")
    assert np.array_equal(corpus.validation, again.validation)
    assert np.array_equal(corpus.train, again.train)


def test_one_row_and_one_file_among_empty_ones_are_one_text(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", '{"text": "' + "one row of text " * 20 + '"}\n')
    written(tmp_path / "b.txt", " \n")
    corpus = prepare(config(tmp_path), BYTES, tmp_path / "cache")
    assert corpus.split_by == "position"


def test_several_documents_are_split_as_ever(tmp_path: Path) -> None:
    """Which documents are held out, and where their tokens lie, is part of old records."""
    path = written(tmp_path / "input.txt", END_OF_TEXT.join(f"text {i}" for i in range(40)))
    corpus = prepare(config(path, validation_fraction=0.2), BYTES, tmp_path / "cache")
    assert corpus.split_by == "document"
    ends = [f"text {i}" for i in range(40) if place(f"input.txt#{i}") <= 0.2]
    assert corpus.tokenizer.decode(corpus.validation.tolist()).split(END_OF_TEXT)[:-1] == ends
    # as commit 61b80c3 named the folder and the data
    assert corpus.data_fingerprint.startswith("f07b876de535c6d7")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [
        "9da644d2926a48e2a9aaf688"
    ]


def test_document_split_asks_the_name_alone() -> None:
    pieces = [Document("a", "x"), Document("b", "y", False), Document("b", "z")]
    limit = min(place("a"), place("b"))
    lower = "a" if place("a") == limit else "b"
    parts = DocumentSplit(limit).parts(pieces)
    assert {piece.name for part, piece in parts if part == "validation"} == {lower}


def test_one_document_is_told_without_reading_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def documents(data: DataConfig) -> Iterator[Document]:
        for name in ("a", "a", "b", "c"):
            taken.append(name)
            yield Document(name, "text", name != "a")

    monkeypatch.setattr(splitting, "documents", documents)
    assert not splitting.is_one_document(config(tmp_path))
    assert taken == ["a", "a", "b"]


def test_split_by_is_in_json_only_if_it_is_given() -> None:
    """Specifications of before have no such key, and their hashes are of their JSON."""
    assert "split_by" not in DataConfig().model_dump(mode="json")
    assert "split_by" not in DataConfig().model_dump_json()
    data = DataConfig(split_by="position")
    assert DataConfig.model_validate_json(data.model_dump_json()) == data


def test_pairs_are_not_split_by_position() -> None:
    with pytest.raises(ValueError, match="pairs are split by document only"):
        DataConfig(source="python-docstrings", pairs=True, split_by="position")
