"""Cuts of text: patterns for `re` against those for `regex`, streams against whole texts."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer.pretokenizer import PATTERNS, Pattern, cut_stream, safe_cut, special_pattern

EOT = "<|endoftext|>"
BMP = [chr(code) for code in range(1 << 16)]
HARD = " \n\r\t\x0b\x1c\x85\u00a0\u2028'sdmtlvreSDMTLVREſ1½aé日|!.\u0301"

patterns = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


@pytest.mark.slow
@patterns
@pytest.mark.parametrize(
    "around", ["{}", "{}a", "a{}", "'{}", " {}", "1{}1", "{}\n", "'{}e", "{}{}"]
)
def test_pattern_for_re_covers_every_character(pattern: Pattern, around: str) -> None:
    text = "|".join(around.format(character, character) for character in BMP)
    assert pattern._bmp.findall(text) == pattern.unicode.findall(text)


@patterns
def test_pattern_for_re_equals_the_pattern_on_random_text(pattern: Pattern) -> None:
    random.seed(0)
    for _ in range(100):
        alphabet = random.sample(BMP, 20) + list(HARD)
        text = "".join(random.choices(alphabet, k=1000))
        assert pattern._bmp.findall(text) == pattern.unicode.findall(text)


@patterns
@given(text=st.text())
def test_pretokens_are_the_text(pattern: Pattern, text: str) -> None:
    assert "".join(pattern.findall(text)) == text
    assert pattern.findall(text) == pattern.unicode.findall(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", ["it", "'s", " 12345", " Don", "'", "T", "!\n", "  ", " x"]),
        ("gpt4", ["it", "'s", " ", "123", "45", " Don", "'T", "!\n", "  ", " x"]),
        ("whitespace", ["it's", " 12345", " Don'T!", "\n  ", " x"]),
    ],
)
def test_patterns_cut_as_published(name: str, expected: list[str]) -> None:
    text = "it's 12345 Don'T!\n   x"
    if name == "gpt2":  # white space gives one character to the word, a line break or not
        expected = [*expected[:6], "!", "\n  ", " x"]
    assert PATTERNS[name].findall(text) == expected


@pytest.mark.slow
@patterns
@settings(max_examples=300)
@given(text=st.text(st.sampled_from(HARD)), limit=st.integers(0, 200))
def test_safe_cut_is_where_pretokens_meet(pattern: Pattern, text: str, limit: int) -> None:
    cut = safe_cut(text, limit)
    assert 0 <= cut <= limit
    assert pattern.findall(text[:cut]) + pattern.findall(text[cut:]) == pattern.findall(text)


def test_safe_cut_finds_the_last_place() -> None:
    assert safe_cut("one two  three", 14) == 7
    assert safe_cut("one two  three", 7) == 3
    assert safe_cut(" one", 4) == 0


@settings(max_examples=300)
@given(
    parts=st.lists(
        st.sampled_from(["a ", "b", " ", "\n", "'s", "<a>", "<a>b", "<", "12", "  c", EOT, EOT[:5]])
    ),
    cuts=st.lists(st.integers(0, 60)),
    size=st.integers(1, 30),
    special=st.sampled_from([[], ["<a>"], ["<a>", "<a>b"], [EOT]]),
)
def test_cut_stream_keeps_every_pretoken_and_cuts_out_special_tokens(
    parts: list[str], cuts: list[int], size: int, special: list[str]
) -> None:
    text = "".join(parts)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = cut_stream([text[a:b] for a, b in pairwise(borders)], special, size)
    found = [part for piece in pieces for part in piece]
    whole = special_pattern(special)
    expected = whole.split(text)[::2] if whole else [text]
    for pattern in PATTERNS.values():
        assert [p for part in found for p in pattern.findall(part)] == [
            p for part in expected for p in pattern.findall(part)
        ]


def test_cut_stream_needs_no_more_than_a_piece() -> None:
    blocks = ["word " * 20] * 1000
    sizes = [len("".join(piece)) for piece in cut_stream(blocks, [EOT], 250)]
    assert max(sizes) <= 400
    # without a place to cut there is one piece, and it is not searched again with every block
    assert [*cut_stream(["ab"] * 500, [EOT], 10)] == [["ab" * 500]]


def test_special_pattern_prefers_the_longest() -> None:
    found = special_pattern(["<a>", "<a><b>", "."])
    assert found is not None
    assert found.split("x<a><b>y<a>.") == ["x", "<a><b>", "y", "<a>", "", ".", ""]
    assert special_pattern([]) is None
    with pytest.raises(ValueError, match="must not be empty"):
        special_pattern(["a", ""])
