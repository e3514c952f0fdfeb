"""The tokenizer against the plain rule: apply every merge, in order, to every pre-token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import tokenizer as tokenizer_module
from model.bpe import GPT2_PATTERN, Merges, Vocab, train_bpe
from model.tokenizer import Tokenizer
from tests.model.test_bpe import split_at_special

EOT = "<|endoftext|>"
SPECIAL = [EOT, "<|a|>", "<|a|><|b|>", "<|a|><", "éé", " x"]

# What pre-tokenization treats in different ways, and pieces of the special tokens.
FRAGMENTS = st.sampled_from(
    [
        *"abcxyzLS019 \n\t.,'<|>",
        "'ll",
        "'s",
        "'re",
        "'",
        "   ",
        "\r\n",
        "the ",
        "é",
        "éé",
        "日本",
        "🙂",
        "\u00a0",
        "\u0301",
        EOT,
        EOT[:5],
        EOT[5:],
        "<|a|>",
        "<|b|>",
        "<|a|><",
        " x",
        "function",
    ]
)
# The fixtures of a test are the same for all its examples, and none of them is changed.
per_test_fixture = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = st.lists(FRAGMENTS, max_size=25).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=30
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocab, Merges]:
    """With merges inside contractions and white space: without, a wrong cut there has no effect."""
    path = tmp_path_factory.mktemp("trained") / "text.txt"
    contractions = "it's we'll they've you're \n\n\n   \t\t x\r\n\r\n" * 50
    source = Path(tokenizer_module.__file__).read_text(encoding="utf-8")
    path.write_text(source + contractions, encoding="utf-8", newline="")
    return train_bpe(path, 500, [EOT])


@pytest.fixture(scope="module")
def plain(trained: tuple[Vocab, Merges]) -> Tokenizer:
    return Tokenizer(*trained)


@pytest.fixture(scope="module")
def special(trained: tuple[Vocab, Merges]) -> Tokenizer:
    return Tokenizer(*trained, SPECIAL)


def merge_in_order(pretoken: bytes, merges: Merges) -> list[bytes]:
    word = [bytes([byte]) for byte in pretoken]
    for a, b in merges:
        i = 0
        while i < len(word) - 1:
            if (word[i], word[i + 1]) == (a, b):
                word[i : i + 2] = [a + b]
            i += 1
    return word


def naive_tokens(text: str, tokenizer: Tokenizer, special_tokens: list[str]) -> list[bytes]:
    tokens: list[bytes] = []
    rest = text
    parts = split_at_special(text, special_tokens)
    for number, part in enumerate(parts):
        for pretoken in GPT2_PATTERN.findall(part):
            tokens += merge_in_order(pretoken.encode(), tokenizer.merges)
        rest = rest[len(part) :]
        if number < len(parts) - 1:
            token = max((t for t in special_tokens if rest.startswith(t)), key=len)
            tokens.append(token.encode())
            rest = rest[len(token) :]
    return tokens


@settings(deadline=None, max_examples=200)
@given(text=TEXTS)
def test_encode_equals_applying_the_merges_in_order(
    plain: Tokenizer, special: Tokenizer, text: str
) -> None:
    assert [plain.vocab[i] for i in plain.encode(text)] == naive_tokens(text, plain, [])
    assert [special.vocab[i] for i in special.encode(text)] == naive_tokens(text, special, SPECIAL)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | TEXTS)
def test_decode_undoes_encode(special: Tokenizer, text: str) -> None:
    assert special.decode(special.encode(text)) == text


def test_encode_gives_the_ids_of_the_vocabulary() -> None:
    """The worked example of GPT-2's rule, with ids that are not in order."""
    vocab = {900 - i: bytes([i]) for i in range(256)} | {7: b"th", 3: b"the", 5: b" t"}
    tokenizer = Tokenizer(vocab, [(b"t", b"h"), (b" ", b"t"), (b"th", b"e")])
    assert tokenizer.encode("the then t") == [3, 900 - 32, 3, 900 - 110, 5]
    assert tokenizer.vocab_size == 901


@pytest.mark.parametrize("letter", ["a", "ab", "abcab", "x" * 7 + "y"])
@pytest.mark.parametrize("length", [64, 65, 66, 300])
def test_encode_long_pretoken_equals_short_rule(letter: str, length: int, tmp_path: Path) -> None:
    """Above 64 bytes another algorithm takes over; runs make pairs overlap."""
    path = tmp_path / "runs.txt"
    path.write_text(" ".join([letter * 20, "aaa", "aab", "abab" * 5]), encoding="utf-8")
    tokenizer = Tokenizer(*train_bpe(path, 290, []))
    text = (letter * length)[:length]
    expected = merge_in_order(text.encode(), tokenizer.merges)
    assert [tokenizer.vocab[i] for i in tokenizer.encode(text)] == expected
    assert len(expected) < length / 2


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="abc", min_size=65, max_size=200))
def test_encode_long_pretoken_equals_short_rule_on_random_letters(text: str) -> None:
    made = [b"ab", b"aa", b"aab", b"bc", b"aaaa", b"abab", b"bcc", b"aabbcc"]
    merges = [(b"a", b"b"), (b"a", b"a"), (b"a", b"ab"), (b"b", b"c"), (b"aa", b"aa"),
              (b"ab", b"ab"), (b"bc", b"c"), (b"aab", b"bcc")]  # fmt: skip
    vocab = dict(enumerate([bytes([i]) for i in range(256)] + made))
    tokenizer = Tokenizer(vocab, merges)
    tokens = [tokenizer.vocab[i] for i in tokenizer.encode(text)]
    assert tokens == merge_in_order(text.encode(), merges)


def test_encode_long_pretoken_is_not_quadratic(plain: Tokenizer) -> None:
    text = "".join("function"[i * i % 8] for i in range(200_000))
    started = time.process_time()
    ids = plain.encode(text)
    assert time.process_time() - started < 2
    assert plain.decode(ids) == text


@pytest.fixture
def _ungathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece is looked at as it comes, so that short texts meet every cut."""
    monkeypatch.setattr(tokenizer_module, "_GATHERED_CHARACTERS", 0)


@pytest.mark.usefixtures("_ungathered")
@per_test_fixture
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=12))
def test_encode_iterable_equals_encode_wherever_it_is_cut(
    plain: Tokenizer, special: Tokenizer, text: str, cuts: list[int]
) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert list(plain.encode_iterable(pieces)) == plain.encode(text)
    assert list(special.encode_iterable(pieces)) == special.encode(text)


@pytest.mark.usefixtures("_ungathered")
@per_test_fixture
@given(text=TEXTS)
def test_encode_iterable_equals_encode_character_by_character(
    special: Tokenizer, text: str
) -> None:
    assert list(special.encode_iterable(text)) == special.encode(text)


@per_test_fixture
@given(text=TEXTS, size=st.integers(1, 40))
def test_encode_iterable_ignores_how_much_is_gathered(
    special: Tokenizer, text: str, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_GATHERED_CHARACTERS", size)
        assert list(special.encode_iterable(text)) == special.encode(text)


def test_encode_iterable_equals_encode_on_the_lines_of_a_file(special: Tokenizer) -> None:
    with Path(tokenizer_module.__file__).open(encoding="utf-8") as file:
        ids = list(special.encode_iterable(file))
    assert ids == special.encode(Path(tokenizer_module.__file__).read_text(encoding="utf-8"))


def test_encode_iterable_of_one_growing_pretoken_is_not_quadratic(plain: Tokenizer) -> None:
    text = "".join("function"[i * i % 8] for i in range(200_000))
    started = time.process_time()
    ids = list(plain.encode_iterable(text[i : i + 20] for i in range(0, len(text), 20)))
    assert time.process_time() - started < 2
    assert plain.decode(ids) == text


def test_encode_iterable_is_lazy(plain: Tokenizer) -> None:
    """Ids come before the text ends, and an endless text can be read."""

    def endless() -> Iterator[str]:
        while True:
            yield "the rest of the text\n"

    ids = plain.encode_iterable(endless())
    assert plain.decode([next(ids) for _ in range(500)]).startswith("the rest of the text\nthe")


def test_encode_numpy_picks_the_smallest_type(trained: tuple[Vocab, Merges]) -> None:
    vocab, merges = trained
    small, large = Tokenizer(vocab, merges), Tokenizer(vocab | {1 << 16: b"<far>"}, merges)
    for tokenizer, dtype in ((small, np.uint16), (large, np.uint32)):
        ids = tokenizer.encode_numpy("some text")
        assert ids.dtype == dtype
        assert ids.tolist() == tokenizer.encode("some text")


def test_decode_replaces_bytes_that_are_not_utf8(plain: Tokenizer) -> None:
    by_bytes = {token: i for i, token in plain.vocab.items()}
    ids = [by_bytes[bytes([byte])] for byte in b"a\xff\xe6\x97b\xe6\x97\xa5"]
    assert plain.decode(ids) == "a\ufffd\ufffdb日"
    with pytest.raises(KeyError):
        plain.decode([10**6])


def test_special_tokens_missing_from_the_vocabulary_are_appended(
    trained: tuple[Vocab, Merges],
) -> None:
    vocab, merges = trained
    tokenizer = Tokenizer(vocab, merges, [EOT, "<new>", "<newer>"])
    assert tokenizer.encode(f"<new>{EOT}<newer>") == [len(vocab), 0, len(vocab) + 1]
    assert tokenizer.vocab_size == len(vocab) + 2
    assert len(vocab) == 500, "the caller's vocabulary is left alone"


def test_special_tokens_unknown_to_the_tokenizer_are_text(plain: Tokenizer) -> None:
    assert 0 not in plain.encode(EOT)
    assert plain.decode(plain.encode(EOT)) == EOT


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        ({i: bytes([i]) for i in range(255)}, []),
        ({i: bytes([i]) for i in range(256)}, [(b"a", b"b")]),
        ({i: bytes([i]) for i in range(256)} | {256: b"abc"}, [(b"ab", b"c")]),
    ],
)
def test_tokenizer_refuses_an_incomplete_vocabulary(vocab: Vocab, merges: Merges) -> None:
    with pytest.raises(ValueError, match="no token for the bytes"):
        Tokenizer(vocab, merges)


def test_save_and_from_files_round_trip(tmp_path: Path, special: Tokenizer) -> None:
    special.save(tmp_path / "new" / "folder")
    files = tmp_path / "new" / "folder" / "vocab.json", tmp_path / "new" / "folder" / "merges.txt"
    again = Tokenizer.from_files(*files, SPECIAL)
    assert (again.vocab, again.merges) == (special.vocab, special.merges)
    assert again.fingerprint == special.fingerprint
    text = f"it's 12 × éé{EOT} <|a|><|b|>\n\n  日本"
    assert again.encode(text) == special.encode(text)
    assert {path.name for path in files[0].parent.iterdir()} == {"vocab.json", "merges.txt"}


def test_save_refuses_two_tokens_with_one_name(tmp_path: Path) -> None:
    """Ġ is how GPT-2's format writes a space, so this special token would replace `" t"`."""
    vocab = {i: bytes([i]) for i in range(256)} | {256: b" t"}
    tokenizer = Tokenizer(vocab, [(b" ", b"t")], ["Ġt"])
    with pytest.raises(ValueError, match=r"258 tokens have only 257 names"):
        tokenizer.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_from_files_skips_only_the_header(tmp_path: Path) -> None:
    """A merge may begin like the header, and the header may be missing."""
    text = b"#version"
    merges = [(text[:i], text[i : i + 1]) for i in range(1, 8)] + [(text, b":")]
    vocab = dict(enumerate([bytes([i]) for i in range(256)] + [a + b for a, b in merges]))
    Tokenizer(vocab, merges).save(tmp_path)
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    assert Tokenizer.from_files(*files).merges == merges
    files[1].write_text(files[1].read_text().split("\n", 1)[1])
    assert Tokenizer.from_files(*files).merges == merges


def test_from_files_reads_gpt2_format(tmp_path: Path) -> None:
    """Written here by hand as GPT-2's encoder.json and vocab.bpe are: Ġ is a space, Ċ a newline."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printable)))
    assert (letters[32], letters[10]) == ("Ġ", "Ċ")
    names = [letters[byte] for byte in [*printable, *sorted(set(range(256)) - set(printable))]]
    names += ["Ġt", "ĠĠ", "<|endoftext|>"]
    (tmp_path / "v.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (tmp_path / "m.txt").write_text("#version: 0.2\nĠ t\nĠ Ġ\n", encoding="utf-8")
    tokenizer = Tokenizer.from_files(tmp_path / "v.json", tmp_path / "m.txt", [EOT])
    assert tokenizer.encode(f"! t{EOT}\n") == [0, 256, 258, names.index("Ċ")]


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        ("{", "#version: 0.2\n"),
        ('{"日": 0}', ""),
        ("[]", ""),
        ('{"a": "0"}', ""),
        ("{}", "a b c\n"),
        ("{}", "alone\n"),
    ],
)
def test_from_files_refuses_other_formats(tmp_path: Path, vocab: str, merges: str) -> None:
    (tmp_path / "v").write_text(vocab, encoding="utf-8")
    (tmp_path / "m").write_text(merges, encoding="utf-8")
    with pytest.raises(ValueError):  # the messages are those of several libraries
        Tokenizer.from_files(tmp_path / "v", tmp_path / "m")
    with pytest.raises(OSError, match="missing"):
        Tokenizer.from_files(tmp_path / "missing", tmp_path / "m")


def test_fingerprint_changes_with_everything_that_changes_ids(
    trained: tuple[Vocab, Merges],
) -> None:
    vocab, merges = trained
    swapped = vocab | {10: vocab[11], 11: vocab[10]}
    prints = [
        Tokenizer(vocab, merges).fingerprint,
        Tokenizer(swapped, merges).fingerprint,
        Tokenizer(vocab, merges[:-1]).fingerprint,
        Tokenizer(vocab, [merges[1], merges[0], *merges[2:]]).fingerprint,
        Tokenizer(vocab, merges, [EOT]).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    shuffled = dict(reversed(vocab.items()))
    assert Tokenizer(shuffled, merges).fingerprint == prints[0]
    assert len(prints[0]) == 64
