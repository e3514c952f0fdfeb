"""Tokenizers that ours cannot be, by the package tokenizers: WordPiece, Unigram, Gemma's BPE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from model.errors import CorpusError, ForeignTokenizerError
from model.spec.data import END_OF_TEXT, TokenizerConfig
from model.tokenizer import library
from model.tokenizer.library import LibraryTokenizer
from model.tokenizer.load import load_tokenizer, open_tokenizer
from model.tokenizer.spans import encode_spans
from model.tokenizer.tokenizer import Tokenizer
from tests.model.tokenizer.test_families import TEXTS

MARKS = ["</s>", "<|im_start|>", "<|im_end|>"]


def wordpiece() -> Any:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made, trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=["[UNK]", *MARKS], show_progress=False
    )


def unigram() -> Any:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return made, trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>", *MARKS], unk_token="<unk>", show_progress=False
    )


def gemma() -> Any:
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return made, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", *MARKS, *bytes_], show_progress=False
    )


@pytest.fixture(scope="module", params=[wordpiece, unigram, gemma])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it: with a post-processor, and the eos_token beside."""
    folder = tmp_path_factory.mktemp("library")
    made, trainer = request.param()
    made.train_from_iterator([TEXTS["code"], TEXTS["prose"]], trainer)
    end = ("</s>", made.token_to_id("</s>"))
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    made.enable_truncation(7)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture
def found(folder: Path) -> Tokenizer:
    found = load_tokenizer(TokenizerConfig(file=str(folder)))
    assert isinstance(found, LibraryTokenizer)
    return found


def test_ids_are_those_of_the_package(folder: Path, found: Tokenizer) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    for text in (*TEXTS.values(), "a<|im_end|>b", ""):
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert found.encode(text) == expected
        assert [*found.encode_iterable(text[i : i + 9] for i in range(0, len(text), 9))] == expected
        assert found.decode(expected) == theirs.decode(expected, skip_special_tokens=False)
    ids, stream = found.encode(TEXTS["prose"][:400]), found.stream()
    assert "".join(map(stream, [*ids, None])) == found.decode(ids)
    marks = [theirs.token_to_id(mark) for mark in MARKS]
    assert [found.encode(mark) for mark in MARKS] == [[i] for i in marks]
    ordinary = found.encode_ordinary("a<|im_end|>b").tolist()
    is_unigram = isinstance(theirs.model, models.Unigram)  # has them among its pieces
    assert bool({*marks} & {*ordinary}) == is_unigram, "special tokens of a document are text"
    with pytest.raises(KeyError):
        found.decode([10**6])


def test_piece_of_a_document_gets_no_second_space(found: Tokenizer) -> None:
    pieces = [
        found.encode_ordinary("The tokens"),
        found.encode_ordinary(" of a text", starts=False),
    ]
    ids = [i for piece in pieces for i in piece.tolist()]
    assert found.decode(ids) == "The tokens of a text"


def test_file_is_kept_with_its_end_of_text(folder: Path, found: Tokenizer, tmp_path: Path) -> None:
    """As a search records it, and a replay reads it."""
    assert found.end_of_text == "</s>"
    found.save(tmp_path, "huggingface")
    again = load_tokenizer(TokenizerConfig(file=str(tmp_path)))
    assert again is not None
    assert (again.end_of_text, again.fingerprint) == ("</s>", found.fingerprint)
    assert again.encode(TEXTS["prose"]) == found.encode(TEXTS["prose"])
    assert again.special_tokens == found.special_tokens
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("a text").ids == found.encode("a text")
    contents = json.loads((folder / "tokenizer.json").read_text())
    changed = contents["added_tokens"][0] | {"normalized": True}
    contents["added_tokens"][0] = changed
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents))
    assert open_tokenizer(tmp_path).fingerprint != found.fingerprint
    with pytest.raises(ValueError, match="for byte-level tokens only"):
        found.save(tmp_path, "gpt2")


def test_answers_are_marked_by_characters(found: Tokenizer) -> None:
    text = "<|im_start|>What is it? Nothing, L'été!<|im_end|> more"
    begin, end = text.index("Nothing"), text.index(" more")
    ids, marked = encode_spans(found, text, [(begin, end)])
    assert ids.tolist() == found.encode(text)
    answer = found.decode(ids[marked].tolist())
    assert answer.replace(" ", "") == "Nothing,L'été!<|im_end|>"


def test_what_cannot_be_read_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TokenizerConfig(file=str(folder))
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=r"reads it: pip install 'tuner\[tokenizers\]'"):
        load_tokenizer(config)
    monkeypatch.undo()
    with pytest.raises(ForeignTokenizerError):
        Tokenizer.from_file(folder)
    contents = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents))
    with pytest.raises(CorpusError, match=rf"has no token {END_OF_TEXT.replace('|', '.')}, which"):
        load_tokenizer(TokenizerConfig(file=str(tmp_path)))
    del contents["model"]["vocab"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents))
    with pytest.raises(CorpusError, match="and the package tokenizers cannot read it"):
        load_tokenizer(TokenizerConfig(file=str(tmp_path)))
