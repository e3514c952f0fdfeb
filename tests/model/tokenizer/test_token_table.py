"""GPT-2's pre-tokens by array operations, against the pattern; the table against one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer import token_table as module
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.token_table import TokenTable, gpt2_starts

GPT2 = PATTERNS["gpt2"].unicode
HARD = st.text(st.sampled_from(" \n\t\r'sdmtlvrexLS1½é日🙂!.\u00a0\x1c\x85\u2028\ud800\x00"))
TEXTS = (HARD | st.text()).filter(bool)


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@pytest.mark.slow
@settings(max_examples=1000)
@given(text=TEXTS)
def test_gpt2_starts_are_those_of_the_pattern(text: str) -> None:
    starts = gpt2_starts(code_points(text)).tolist()
    assert [text[a:b] for a, b in pairwise(starts)] == GPT2.findall(text)


ALL_CODES = range(0x110000)
# Beside other characters, those of most alphabets and each 16th of the rest: what matters of the
# others is their class, which the first pattern checks for all of them.
SOME_CODES = [*range(0x3100), *range(0x3100, 0x110000, 16)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("around", "codes"),
    [
        pytest.param("{}", ALL_CODES, id="{}"),
        *(
            pytest.param(around, SOME_CODES, id=around)
            for around in ("\n{} \n", " {}", "{}a", "a{}1", "'{}", "'{}e", "  {}{}")
        ),
    ],
)
def test_gpt2_starts_covers_every_character(around: str, codes: Sequence[int]) -> None:
    """Those above U+FFFF included."""
    text = "|".join(around.format(chr(code), chr(code)) for code in codes)
    starts = gpt2_starts(code_points(text))
    expected = np.cumsum([0, *map(len, GPT2.findall(text))])
    assert np.array_equal(starts, expected)


def table_of(calls: list[str] | None = None) -> TokenTable:
    """A table whose ids are the bytes and the length of a pre-token: no two are alike."""

    def encode(pretoken: str) -> bytes:
        if calls is not None:
            calls.append(pretoken)
        data = pretoken.encode("utf-8", "surrogatepass")
        return np.array([*data, 1000 + len(data)], np.uint16).tobytes()

    return TokenTable(encode, np.dtype(np.uint16))


def one_by_one(text: str) -> list[int]:
    ids: list[int] = []
    for pretoken in GPT2.findall(text):
        data = pretoken.encode("utf-8", "surrogatepass")
        ids += [*data, 1000 + len(data)]
    return ids


@pytest.mark.slow
@settings(max_examples=300)
@given(texts=st.lists(TEXTS, max_size=5), bits=st.sampled_from([1, 3, 20]))
def test_table_equals_one_by_one(texts: list[str], bits: int) -> None:
    """With few places most pre-tokens find theirs taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BITS", bits)
        table = table_of()
        for text in [*texts, *texts]:
            assert table.encode(text).tolist() == one_by_one(text)


@given(most=st.integers(1, 6), texts=st.lists(TEXTS, max_size=4))
def test_full_table_still_encodes(most: int, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_ROWS", most)
        table = table_of()
        for text in texts:
            assert table.encode(text).tolist() == one_by_one(text)
        assert table._num_rows <= most


def test_table_distinguishes_zero_bytes_and_lengths() -> None:
    table = table_of()
    for text in ("\x00", "\x00\x00", "a\x00", "\x00a", "a", "a" * 8, "a" * 9, "a" * 16, "a" * 17):
        for again in (text, f"{text} {text}", text):
            assert table.encode(again).tolist() == one_by_one(again)


def test_table_grows() -> None:
    table = table_of()
    text = "".join(f" word{chr(0x4E00 + i)}" for i in range(3 * module._FEWEST_ROWS))
    assert table.encode(text).tolist() == one_by_one(text)
    assert table._num_rows > module._FEWEST_ROWS
    assert table.encode(text).tolist() == one_by_one(text)


def test_table_encodes_a_pretoken_once() -> None:
    calls: list[str] = []
    table = table_of(calls)
    for _ in range(3):
        table.encode("one two one two three")
    assert calls == ["one", " two", " one", " three"]
    calls.clear()
    table.encode(f"{'long' * 5} {'long' * 5} x")  # too long for a row: once in every text
    table.encode(f"{'long' * 5} x")
    assert calls.count("long" * 5) == 2


@given(text=TEXTS)
def test_table_is_right_when_hashes_collide(text: str) -> None:
    """Pre-tokens are compared, not only their hashes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hash", lambda low, high, length: np.zeros(len(low), np.int64))
        table = table_of()
        for _ in range(2):
            assert table.encode(text).tolist() == one_by_one(text)
