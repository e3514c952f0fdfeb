"""Cutting a stream of text: equal to cutting the whole text, wherever its blocks end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.sources import documents
from model.sources.documents import Document, TextPart, documents_of_rows, parts, pieces

# Few letters, so that separators, spaces and their beginnings are frequent.
TEXTS = st.text(st.sampled_from("ab|< \n\té\u2003\U0001f600"), max_size=60)
SEPARATORS = st.sampled_from(["|", "||", "|<|", "ab", "aa", " ", "\n\n", "a a"])


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_WINDOW", 3)


def reference_pieces(text: str, limit: int) -> list[str]:
    """As the contract says it, a character at a time."""
    found = []
    while len(text) > limit:
        cut = limit
        for i in range(limit, 0, -1):
            if text[i] == " " and not text[i - 1].isspace():
                cut = i
                break
        found.append(text[:cut])
        text = text[cut:]
    return [*found, text]


def reference_parts(text: str, separator: str, limit: int) -> Iterator[TextPart]:
    for number, part in enumerate(text.split(separator)):
        if part.strip():
            *begun, last = reference_pieces(part, limit)
            yield from (TextPart(number, piece, False) for piece in begun)
            yield TextPart(number, last, True)


def in_blocks(text: str, sizes: list[int]) -> Iterator[str]:
    while text:
        size = sizes.pop() if sizes else 1
        yield text[:size]
        text = text[size:]


@pytest.mark.slow
@settings(max_examples=500)
@given(TEXTS, SEPARATORS, st.integers(1, 12), st.lists(st.integers(1, 30)))
def test_parts_do_not_depend_on_the_blocks(
    text: str, separator: str, limit: int, sizes: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", limit)
        found = list(parts(in_blocks(text, sizes), separator))
    assert found == list(reference_parts(text, separator, limit))


@settings(max_examples=300)
@given(TEXTS, st.integers(1, 12), st.integers(2, 9))
def test_pieces_are_those_of_the_definition(text: str, limit: int, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", limit)
        patch.setattr(documents, "_WINDOW", window)
        found = list(pieces(text))
    assert [piece for piece, _ in found] == reference_pieces(text, limit)
    assert "".join(piece for piece, _ in found) == text
    assert [ends for _, ends in found] == [False] * (len(found) - 1) + [True]


@settings(max_examples=200)
@given(st.lists(TEXTS, max_size=6), st.integers(1, 12))
def test_rows_are_parts_of_their_own(texts: list[str], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", limit)
        found = list(documents_of_rows("f", enumerate(texts)))
    whole = {
        name: "".join(item.text for item in items)
        for name, items in groupby(found, lambda item: item.name)
    }
    assert whole == {f"f#{i}": text for i, text in enumerate(texts) if text.strip()}
    assert all(len(item.text) <= limit for item in found)


def test_pieces_of_a_text_of_the_usual_size_are_one() -> None:
    text = "word " * 1000
    assert list(pieces(text)) == [(text, True)]
    assert documents.PIECE == 2**22


def test_parts_cuts_a_long_text_before_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE", 10)
    assert [part.text for part in parts(["four four  four fourfourfourfour"], "#")] == [
        "four four",
        "  four",
        " fourfourf",
        "ourfour",
    ]


def test_parts_holds_blank_pieces_back_until_there_is_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "PIECE", 4)
    assert list(parts([" " * 9, "#", " " * 9, "a", " " * 9], "#")) == [
        TextPart(1, "    ", False),
        TextPart(1, "    ", False),
        TextPart(1, " a", False),
        TextPart(1, "    ", False),
        TextPart(1, "    ", False),
        TextPart(1, " ", True),
    ]


def test_documents_get_end_of_text_by_default() -> None:
    assert Document("name", "text") == ("name", "text", True)
