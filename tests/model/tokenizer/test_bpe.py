"""The BPE trainer against a naive one that recounts all pairs in every round."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.progress import Progress
from model.tokenizer import bpe
from model.tokenizer.bpe import Merges, PretokenCounts, Vocab, merge_pretokens, train_bpe
from model.tokenizer.pretokenizer import PATTERNS

EOT = "<|endoftext|>"

# the others are read, not trained
BYTE_LEVEL = [name for name, pattern in PATTERNS.items() if pattern.prefix is None]


def split_at_special(text: str, special_tokens: list[str]) -> list[str]:
    """Text between special tokens, scanning from the left and taking the longest that starts."""
    parts, begun, i = [], 0, 0
    while i < len(text):
        here = [token for token in special_tokens if text.startswith(token, i)]
        if here:
            parts.append(text[begun:i])
            i += max(map(len, here))
            begun = i
        else:
            i += 1
    return [*parts, text[begun:]]


def naive_bpe(
    text: str, vocab_size: int, special_tokens: list[str], pattern: str = "gpt2"
) -> tuple[Vocab, Merges]:
    words: Counter[tuple[bytes, ...]] = Counter()
    for part in split_at_special(text, special_tokens):
        for pretoken in PATTERNS[pattern].unicode.findall(part):
            words[tuple(bytes([byte]) for byte in pretoken.encode())] += 1
    tokens = [token.encode() for token in special_tokens] + [bytes([i]) for i in range(256)]
    merges: Merges = []
    while len(tokens) < vocab_size:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        a, b = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append((a, b))
        tokens.append(a + b)
        merged: Counter[tuple[bytes, ...]] = Counter()
        for word, count in words.items():
            new: list[bytes] = []
            i = 0
            while i < len(word):
                if word[i : i + 2] == (a, b):
                    new.append(a + b)
                    i += 2
                else:
                    new.append(word[i])
                    i += 1
            merged[tuple(new)] += count
        words = merged
    return dict(enumerate(tokens)), merges


def train_on(
    folder: Path, text: str, vocab_size: int, special_tokens: list[str], **options: Any
) -> tuple[Vocab, Merges]:
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return train_bpe(path, vocab_size, special_tokens, **options)


@settings(max_examples=60)
@given(
    text=st.text(alphabet="ab é'ls\n1", max_size=120),
    extra=st.integers(0, 40),
    special=st.sampled_from([[], [EOT], ["ab"], ["é", "éa"]]),
    pattern=st.sampled_from(BYTE_LEVEL),
)
def test_train_bpe_equals_a_naive_trainer(
    tmp_path: Path, text: str, extra: int, special: list[str], pattern: str
) -> None:
    size = 256 + len(special) + extra
    made = train_on(tmp_path, text, size, special, pattern=pattern)
    assert made == naive_bpe(text, size, special, pattern)


def test_train_bpe_equals_a_naive_trainer_on_real_text(tmp_path: Path) -> None:
    text = Path(bpe.__file__).read_text(encoding="utf-8")
    assert train_on(tmp_path, text, 400, [EOT]) == naive_bpe(text, 400, [EOT])


def test_train_bpe_ties_go_to_the_greatest_pair(tmp_path: Path) -> None:
    """Of equally frequent pairs the one that is greatest as byte strings, not as ids, wins."""
    _, merges = train_on(tmp_path, "AB, BA, ZZ", 258, [])
    assert merges[0] == (b"Z", b"Z")
    # (BA, A) against (B, ZZ): the first element decides, and b"BA" > b"B"
    _, merges = train_on(tmp_path, "ba ba ba bzz baa", 262, [])
    assert merges == naive_bpe("ba ba ba bzz baa", 262, [])[1]


def test_train_bpe_sennrich_example(tmp_path: Path) -> None:
    """The corpus of Sennrich et al. 2015; the merges are worked out by hand."""
    text = "low" + " low" * 4 + " lower" * 2 + " widest" * 3 + " newest" * 6
    _, merges = train_on(tmp_path, text, 256 + 4, [])
    assert merges == [(b"s", b"t"), (b"e", b"st"), (b"o", b"w"), (b"l", b"ow")]


def test_train_bpe_vocabulary_is_specials_then_bytes_then_merges(tmp_path: Path) -> None:
    vocab, merges = train_on(tmp_path, "aaaa" * 9, 260, [EOT, "<pad>"])
    assert list(vocab) == list(range(260))
    assert [vocab[0], vocab[1]] == [EOT.encode(), b"<pad>"]
    assert [vocab[i + 2] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert [vocab[i] for i in (258, 259)] == [a + b for a, b in merges] == [b"aa", b"aaaa"]


def test_train_bpe_never_counts_or_crosses_special_tokens(tmp_path: Path) -> None:
    """`ab` and the letters of the special token are in the text only at or across its borders."""
    vocab, merges = train_on(tmp_path, f"a{EOT}b{EOT}" * 50, 1000, [EOT])
    assert merges == []
    assert len(vocab) == 257


@pytest.mark.parametrize("text", ["", "a", "a b c"])
def test_train_bpe_stops_when_no_pair_is_left(tmp_path: Path, text: str) -> None:
    vocab, merges = train_on(tmp_path, text, 5000, [])
    assert (len(vocab), len(merges)) == (256 + text.count(" "), text.count(" "))


@pytest.mark.parametrize(("size", "special"), [(255, []), (256, [EOT]), (0, []), (-3, [])])
def test_train_bpe_refuses_a_small_vocabulary(
    tmp_path: Path, size: int, special: list[str]
) -> None:
    with pytest.raises(ValueError, match=rf"at least {256 + len(special)} .* got {size}"):
        train_on(tmp_path, "text", size, special)
    with pytest.raises(ValueError, match="vocab_size must be at least"):
        merge_pretokens({}, size, special)


def test_train_bpe_refuses_an_empty_special_token(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        train_on(tmp_path, "text", 300, [EOT, ""])


def test_train_bpe_refuses_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.txt"):
        train_bpe(tmp_path / "missing.txt", 300, [])
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        train_bpe(tmp_path / "latin.txt", 300, [])


@pytest.mark.slow
def test_train_bpe_ignores_the_number_of_processes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    source = Path(bpe.__file__).read_text(encoding="utf-8")
    path.write_text(f"{source}{EOT}\n" * 200, encoding="utf-8")  # several pieces
    alone = train_bpe(path, 400, [EOT], processes=1)
    assert train_bpe(path, 400, [EOT], processes=2) == alone
    assert train_bpe(path, 400, [EOT], processes=3) == alone


def test_train_bpe_reports_progress(tmp_path: Path) -> None:
    said: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PIECE_CHARACTERS", 1000)
        patch.setattr(bpe, "_MERGES_PER_REPORT", 10)
        text = Path(bpe.__file__).read_text(encoding="utf-8")
        train_on(tmp_path, text, 300, [EOT], on_progress=said.append)
    size = len(text.encode())
    counting = [progress for progress in said if progress.stage == "counting"]
    assert counting[-1] == Progress("counting", size, size, "B")
    assert [p.done for p in said if p.stage == "merging"] == [267, 277, 287, 297]


def test_train_bpe_refuses_an_unknown_pattern(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gpt2 or gpt4 or .* or whitespace, got gpt3"):
        train_on(tmp_path, "text", 300, [], pattern="gpt3")


@pytest.mark.slow
def test_train_bpe_of_one_long_pretoken_is_not_quadratic(tmp_path: Path) -> None:
    text = "".join("function"[i * i % 8] for i in range(500_000))
    started = time.process_time()
    vocab, _ = train_on(tmp_path, text, 400, [])
    assert time.process_time() - started < 4
    assert len(vocab) > 260


@settings(max_examples=60)
@given(
    pieces=st.lists(
        st.dictionaries(st.text(st.sampled_from("ab é\ud800"), min_size=1), st.integers(1, 5)),
        max_size=8,
    )
)
def test_pretoken_counts_are_exact_on_disk(pieces: list[dict[str, int]]) -> None:
    """As if they had all stayed in memory; what is too much loses its rarest, ties by bytes."""
    expected: Counter[bytes] = Counter()
    for piece in pieces:
        expected.update({k.encode("utf-8", "surrogatepass"): n for k, n in piece.items()})
    by_rank = sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    for most in (2, 10_000):
        with pytest.MonkeyPatch.context() as patch, PretokenCounts() as counts:
            patch.setattr(bpe, "_MOST_PRETOKENS", most)
            for piece in pieces:
                counts.add(piece)
            found = counts.most_frequent()
        # up to the limit nothing is lost, whenever it was passed
        assert found == expected if len(expected) <= most else [*found.items()] == by_rank[:most]


@pytest.mark.parametrize("size", [10, 25, 10_000])
def test_long_pretokens_are_counted_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(bpe, "_MOST_BYTES", size)
    monkeypatch.setattr(bpe, "_LONG_PRETOKENS", 4)
    with PretokenCounts() as counts:
        for number in range(1, 6):
            counts.add({f"{n}" * 5: number for n in range(number)})
            assert sum(map(len, counts._counts)) <= size + 25
        found = counts.most_frequent()
    totals = [(b"00000", 15), (b"11111", 14), (b"22222", 12), (b"33333", 9), (b"44444", 5)]
    expected = totals[: size // 5]
    assert found == dict(expected)


def test_pretoken_counts_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_MOST_PRETOKENS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), PretokenCounts() as counts:
        counts.add({"a": 1, "b": 1})
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_train_bpe_keeps_carriage_returns(tmp_path: Path) -> None:
    _, merges = train_on(tmp_path, "a\r\n\r\nb", 257, [])
    assert merges == naive_bpe("a\r\n\r\nb", 257, [])[1] == [(b"\r", b"\n")]


@settings(max_examples=60)
@given(
    parts=st.lists(
        st.sampled_from(["aa", "a", "b", "ab", "abc", "bc", "<a>", "<a>b", " ", "\n", "é"]),
        max_size=30,
    ),
    special=st.sampled_from(
        [[], ["<a>"], ["<a>", "<a>b"], ["aa"], ["ab", "bc"], ["ab", "bca", "abcab"]]
    ),
    size=st.integers(1, 7),
)
def test_train_bpe_ignores_the_blocks_of_reading(
    tmp_path: Path, parts: list[str], special: list[str], size: int
) -> None:
    """Special tokens that overlap, or of which one begins another, are the hard ones."""
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PIECE_CHARACTERS", size)
        cut = train_on(tmp_path, text, 300, special)
    assert cut == naive_bpe(text, 300, special)
