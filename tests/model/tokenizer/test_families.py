"""Tokenizers of pretrained families against `tokenizers`, on text of five kinds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import tokenizers

from model.spec.data import END_OF_TEXT
from model.tokenizer import bpe, metaspace
from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer

FAMILIES = ("gpt2", "llama3", "qwen2", "smollm")
SPECIAL = ["<|im_start|>", "<|im_end|>", "</s>"]
SIZE = 20_000  # characters of each kind of text


def texts() -> dict[str, str]:
    """Code, prose of many scripts, numbers and white space, chats, and any characters.

    Without U+09FE: the NFC of tokenizers does not know marks that came with Unicode 11 or later.
    """
    code = Path(bpe.__file__).read_text(encoding="utf-8")
    prose = (
        "It's what THEY'LL say: «L'été où naïve façade» — 日本語のテキスト, русский текст, "
        "ελληνικά, עברית, العربية, हिन्दी, 한국어, Tiếng Việt; "
        "e\u0301 A\u030a \u1112\u1161\u11ab ﬁ ẛ̣ "
    )
    generator = random.Random(0)
    ranges = [(0x20, 0x7F), (0xA0, 0x500), (0x900, 0xA00), (0x1100, 0x1200), (0x300, 0x370),
              (0x1F300, 0x1F700), (0x2000, 0x2070), (0x9, 0xE)]  # fmt: skip
    drawn = [chr(generator.randrange(*generator.choice(ranges))) for _ in range(SIZE)]
    numbers = [f"{generator.random() * 10**generator.randrange(12):.{generator.randrange(4)}f}"
               + generator.choice(["", " ", "  ", "\n", "\r\n\t", "½", "x²", "\u00a0"])
               for _ in range(SIZE // 8)]  # fmt: skip
    turns = [f"<|im_start|>{who}\n{code[i : i + 99]} {prose}<|im_end|>\n</s>"
             for i, who in enumerate(["user", "assistant"] * 40)]  # fmt: skip
    return {
        "code": code, "prose": prose * 100, "numbers": "".join(numbers), "chats": "".join(turns),
        "any": "".join(drawn).replace("\u09fe", ""),
    }  # fmt: skip


TEXTS = texts()


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("family") / "text.txt"
    path.write_text(normalize("NFC", TEXTS["code"] + TEXTS["prose"] + TEXTS["numbers"]))
    return Tokenizer(*train_bpe(path, 900, []), SPECIAL, request.param, end_of_text="</s>")


@pytest.fixture(scope="module")
def files(made: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it, with a token that no merges make."""
    folder = tmp_path_factory.mktemp("written")
    (path,) = made.save(folder, "huggingface")
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    contents["post_processor"] = None
    contents["model"]["vocab"]["Ġwhole"] = 903
    contents["model"]["vocab"]["Ġwhole"] = 903
    path.write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")
    config = {"eos_token": {"content": "</s>", "special": True}, "bos_token": "<|im_start|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", TEXTS)
def test_ids_equal_those_of_tokenizers(kind: str, files: Path) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    ours, text = Tokenizer.from_file(files), TEXTS[kind] + " whole whole"
    expected = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == expected
    assert [*ours.encode_iterable(text[i : i + 7] for i in range(0, len(text), 7))] == expected
    assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=False)
    assert (903 in expected) == (ours.pattern == "llama3")


def test_end_of_text_is_kept(made: Tokenizer, files: Path, tmp_path: Path) -> None:
    """Read from the files beside, and from a file of ours, which tokenizers reads, too."""
    found = Tokenizer.from_file(files)
    assert found.end_of_text == "</s>"
    (path,) = found.save(tmp_path, "huggingface")
    again = Tokenizer.from_file(path)
    assert (again.end_of_text, again.pattern) == ("</s>", made.pattern)
    assert again.fingerprint == found.fingerprint
    theirs = tokenizers.Tokenizer.from_file(str(path))
    assert theirs.encode("a b").ids == found.encode("a b")
    assert Tokenizer(found.vocab, found.merges, found.special_tokens).end_of_text == END_OF_TEXT


def sentencepiece(folder: Path, prefix: metaspace.Prefix) -> Path:
    """Write a tokenizer of characters and bytes, trained by tokenizers; return its file."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, limit_alphabet=90, show_progress=False, special_tokens=[]
    )
    theirs.train_from_iterator([TEXTS["code"] + "    x  " * 99, TEXTS["prose"]], trainer)
    contents = json.loads(theirs.to_str())
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += sorted(contents["model"]["vocab"], key=contents["model"]["vocab"].__getitem__)
    contents["model"] |= {
        "vocab": {name: i for i, name in enumerate(names)}, "unk_token": "<unk>",
        "fuse_unk": True, "byte_fallback": True,
    }  # fmt: skip
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    contents["added_tokens"] = [
        {"id": i, "content": names[i], "special": True, **flags} for i in range(3)
    ]
    contents |= metaspace.rules(prefix)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")
    config = {"eos_token": "</s>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("prefix", ["every", "first"])
def test_sentencepiece_ids_equal_those_of_tokenizers(
    prefix: metaspace.Prefix, tmp_path: Path
) -> None:
    """Llama 2 puts a space before each text, Mistral before the first if it has none."""
    path = sentencepiece(tmp_path, prefix)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.from_file(path)
    assert (ours.pattern, ours.end_of_text) == (
        {"every": "llama2", "first": "mistral"}[prefix], "</s>",
    )  # fmt: skip
    edges = ["", " ", "a", " a", "</s>", "</s>a", "a</s> b</s>c", "\u2581a \u2581", "\n", "   x"]
    for text in [*TEXTS.values(), *edges]:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == expected, text[:50]
        assert [*ours.encode_iterable(text[i : i + 9] for i in range(0, len(text), 9))] == expected
    text = TEXTS["code"] + TEXTS["chats"]
    assert ours.decode(ours.encode(text)) == theirs.decode(
        theirs.encode(text, add_special_tokens=False).ids, skip_special_tokens=False
    )
    (again,) = ours.save(tmp_path / "again", "huggingface")
    assert Tokenizer.from_file(again).fingerprint == ours.fingerprint
    copy = tokenizers.Tokenizer.from_file(str(again))
    assert copy.encode(text, add_special_tokens=False).ids == ours.encode(text)
    cut = text.index(" def ")  # a document in two pieces
    pieces = [*ours.encode_ordinary(text[:cut]), *ours.encode_ordinary(text[cut:], starts=False)]
    assert pieces == ours.encode_ordinary(text).tolist()
    with pytest.raises(ValueError, match="the format gpt2 is for byte-level tokens only"):
        ours.save(tmp_path, "gpt2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "text is prepared by NFKC, which this tokenizer"),
        ({"model": {"merges": [["a ", "b"]]}}, "a token has a space inside"),
        ({"model": {"merges": ["a b c"]}}, "merge 1 is not a pair of tokens"),
        ({"model": {"vocab": {"a": 0}}}, "needs a token for each of 256 bytes"),
    ],
)
def test_other_sentencepiece_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = sentencepiece(tmp_path, "every")
    contents = json.loads(path.read_text(encoding="utf-8"))
    change = {n: contents[n] | v if n == "model" else v for n, v in change.items()}
    path.write_text(json.dumps(contents | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(path)


@pytest.mark.parametrize("made", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, r"normalized \(NFC\), .* with the pattern gpt2"),
        ({"model": {"ignore_merges": True}}, "the model uses ignore_merges, which this"),
        ({"model": {"byte_fallback": True}}, "text is prepared by ByteLevel, which this"),
    ],
)
def test_mixed_rules_are_refused(
    change: Any, message: str, made: Tokenizer, tmp_path: Path
) -> None:
    (path,) = made.save(tmp_path, "huggingface")
    contents = json.loads(path.read_text(encoding="utf-8"))
    change = {n: contents[n] | v if n == "model" else v for n, v in change.items()}
    path.write_text(json.dumps(contents | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_file(path)
