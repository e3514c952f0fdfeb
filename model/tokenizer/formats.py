"""File formats of tokenizers: GPT-2's, Hugging Face's and tiktoken's."""

from __future__ import annotations

import base64
import binascii
import codecs
import io
import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from model.errors import ForeignTokenizerError
from model.files import replacing
from model.spec.data import END_OF_TEXT
from model.tokenizer import metaspace
from model.tokenizer.bpe import Merges, Vocab
from model.tokenizer.pretokenizer import PATTERNS

_LARGEST_FILE = 2**27  # ten times those of the largest vocabularies

# Other spellings of our patterns in tokenizer.json files → name of the pattern.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPELLINGS = {
    _CL100K.replace("DIGITS", "{1,3}"): "gpt4",
    _CL100K.replace("DIGITS", ""): "qwen2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
}


def write(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write texts as files of a folder, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        with replacing(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in contents]


def contents_of(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file; raise ValueError for a pipe, a device or too large a file."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    if status.st_size > _LARGEST_FILE:
        raise ValueError(f"{path} has more than {_LARGEST_FILE:,} bytes, which no tokenizer has")
    return Path(path).read_bytes()


# GPT-2 -------------------------------------------------------------------------------------


def gpt2(vocab: Vocab, merges: Merges, special_tokens: Sequence[str]) -> dict[str, str]:
    """Return the contents of vocab.json and merges.txt; special tokens are written as text.

    Raises:
        ValueError: if two tokens would have equal names in the file.
    """
    header = "#version: 0.2\n"
    return {
        "vocab.json": json.dumps(token_names(vocab, special_tokens), ensure_ascii=False),
        "merges.txt": header + "".join(f"{line}\n" for line in merge_lines(merges)),
    }


def read_gpt2(
    vocab_path: str | os.PathLike[str],
    merges_path: str | os.PathLike[str],
    special_tokens: Collection[str],
) -> tuple[Vocab, Merges]:
    """Read vocab.json and merges.txt.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is not in the format.
    """
    try:
        entries = json.loads(contents_of(vocab_path).decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{vocab_path} does not map tokens to ids") from error
    vocab = _from_names(entries, special_tokens, vocab_path)
    text = io.TextIOWrapper(io.BytesIO(contents_of(merges_path)), encoding="utf-8").read()
    header, *lines = text.split("\n")
    if not header.startswith("#version"):  # only in the first line: a token may begin like this
        lines.insert(0, header)
    return vocab, _from_lines([line for line in lines if line], merges_path)


def token_names(vocab: Vocab, special_tokens: Sequence[str]) -> dict[str, int]:
    """Return GPT-2's name of each token → its id; special tokens are named by their text.

    Raises:
        ValueError: if two tokens would have equal names.
    """
    special = {token.encode(): token for token in special_tokens}
    names = {
        special[token] if token in special else _to_unicode(token): i for i, token in vocab.items()
    }
    if len(names) < len(vocab):
        raise ValueError(
            f"{len(vocab)} tokens would have only {len(names)} names in the file; rename the "
            f"special tokens that are spelled like another token"
        )
    return names


def _from_names(entries: Any, special_tokens: Collection[str], path: Any) -> Vocab:
    if not (isinstance(entries, dict) and all(type(i) is int for i in entries.values())):
        raise ValueError(f"{path} does not map tokens to ids")
    return {
        i: text.encode() if text in special_tokens else bytes_of(text)
        for text, i in entries.items()
    }


def merge_lines(merges: Merges) -> list[str]:
    """Return GPT-2's line for each merge: the names of its two tokens."""
    return [f"{_to_unicode(a)} {_to_unicode(b)}" for a, b in merges]


def _from_lines(lines: Sequence[str | Sequence[str]], path: Any) -> Merges:
    pairs = [line.split(" ") if isinstance(line, str) else line for line in lines]
    for number, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ValueError(f"{path}: merge {number + 1} is not a pair of tokens: {lines[number]}")
    return [(bytes_of(a), bytes_of(b)) for a, b in pairs]


@lru_cache(maxsize=1)
def _byte_characters() -> str:
    """Return GPT-2's printable character for each byte: itself, or a character from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(substitutes)) for byte in range(256))


@lru_cache(maxsize=1)
def _character_bytes() -> Any:
    """Return the inverse of `_byte_characters`, as `codecs` wants it."""
    return codecs.charmap_build(_byte_characters())


# By codecs, because tokens can be long: a text without spaces is one pre-token.
def _to_unicode(token: bytes) -> str:
    return codecs.charmap_decode(token, "strict", _byte_characters())[0]


def bytes_of(text: str) -> bytes:
    """Return the bytes of a token's name in GPT-2's alphabet.

    Raises:
        ValueError: if it has another character.
    """
    try:
        return codecs.charmap_encode(text, "strict", _character_bytes())[0]
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} is not in GPT-2's byte alphabet") from error


# Hugging Face ------------------------------------------------------------------------------


def huggingface(
    vocab: Vocab, merges: Merges, special_tokens: Sequence[str], pattern: str, end_of_text: str
) -> dict[str, str]:
    """Return the contents of tokenizer.json.

    An end of text that is not `<|endoftext|>` is named by a template of the post-processor, which
    adds nothing to a text.

    Raises:
        ValueError: if two tokens would have equal names in the file.
    """
    prefix = PATTERNS[pattern].prefix
    names = (metaspace.token_names if prefix else token_names)(vocab, special_tokens)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    pre_tokenizer: dict[str, Any] = {**byte_level, "use_regex": True}  # the pattern gpt2
    if pattern == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [digits, pre_tokenizer]}
    elif pattern != "gpt2":
        split = {
            "type": "Split",
            "pattern": {"Regex": PATTERNS[pattern].source},
            "behavior": "Isolated",
            "invert": False,
        }
        pre_tokenizer = {
            "type": "Sequence",
            "pretokenizers": [split, {**byte_level, "use_regex": False}],
        }
    contents = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": names[token], "content": token, **flags, "special": True}
            for token in sorted(special_tokens, key=lambda token: names[token])
        ],
        "normalizer": {"type": "NFC"} if PATTERNS[pattern].is_composed else None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None if end_of_text == END_OF_TEXT else naming(end_of_text, names),
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": bool(prefix),
            "ignore_merges": PATTERNS[pattern].takes_whole,
            "vocab": dict(sorted(names.items(), key=lambda item: item[1])),
            "merges": metaspace.merge_pairs(merges) if prefix else merge_lines(merges),
        },
        **(metaspace.rules(prefix) if prefix else {}),
    }
    return {"tokenizer.json": json.dumps(contents, ensure_ascii=False, indent=1)}


def naming(end_of_text: str, names: Mapping[str, int]) -> dict[str, Any]:
    """Return a post-processor that changes nothing and names the end of text."""
    text = [{"Sequence": {"id": kind, "type_id": 0}} for kind in "AB"]
    named = {"id": end_of_text, "ids": [names[end_of_text]], "tokens": [end_of_text]}
    return {
        "type": "TemplateProcessing", "single": text[:1], "pair": text,
        "special_tokens": {end_of_text: named},
    }  # fmt: skip


def end_of_text(contents: Mapping[str, Any], path: Path, vocab: Vocab) -> str:
    """Return the token that ends documents: `<|endoftext|>`, or what the files beside name."""
    template = contents.get("post_processor") or {}
    if template.get("type") == "TemplateProcessing" and len(template["single"]) == 1:
        for name in template["special_tokens"]:
            return str(name)
    if END_OF_TEXT.encode() in vocab.values():
        return END_OF_TEXT
    try:
        beside = json.loads(contents_of(path.with_name("tokenizer_config.json")).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return END_OF_TEXT
    named = beside.get("eos_token") if isinstance(beside, dict) else None
    token = named.get("content") if isinstance(named, dict) else named
    return str(token) if token else END_OF_TEXT


def read_huggingface(
    path: str | os.PathLike[str],
) -> tuple[Vocab, Merges, tuple[str, ...], str, str]:
    """Read vocabulary, merges, special tokens, pattern and end of text of a tokenizer.json.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not in the format; ForeignTokenizerError if its tokenizer has a
            feature that ours lacks, which the message names.
    """
    try:
        contents = json.loads(contents_of(path).decode("utf-8"))
        model = contents["model"]
        kind = model.get("type", "BPE")
        if kind != "BPE":
            raise ForeignTokenizerError(f"{path}: the model is {kind}, not byte-level BPE")
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(name):
                raise ForeignTokenizerError(
                    f"{path}: the model uses {name}, which this tokenizer lacks"
                )
        pattern = _checked_pattern(contents, path)
        added = {token["content"]: token for token in contents.get("added_tokens") or ()}
        for text, token in added.items():
            for flag in ("single_word", "lstrip", "rstrip"):
                if token.get(flag):
                    raise ForeignTokenizerError(
                        f"{path}: the added token {text} has the flag {flag}"
                    )
        is_byte_level = PATTERNS[pattern].prefix is None
        vocab = (_from_names if is_byte_level else metaspace.read_vocab)(
            model["vocab"], added, path
        )
        vocab |= {token["id"]: text.encode() for text, token in added.items()}
        merges = (_from_lines if is_byte_level else metaspace.read_merges)(model["merges"], path)
        ended_by = end_of_text(contents, Path(path), vocab)
    except (
        KeyError, TypeError, AttributeError, UnicodeError, json.JSONDecodeError, RecursionError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is not a tokenizer.json of Hugging Face: {error}") from error
    return vocab, merges, tuple(added), pattern, ended_by


def _checked_pattern(contents: Mapping[str, Any], path: Any) -> str:
    """Return the pattern of a tokenizer.json, which normalizes and merges as that pattern says."""
    if contents["model"].get("byte_fallback"):
        return {"every": "llama2", "first": "mistral"}[metaspace.prefix_of(contents, path)]
    name = _pattern_of(contents.get("pre_tokenizer"), path)
    takes_whole = bool(contents["model"].get("ignore_merges"))
    if takes_whole and name == "gpt4":
        name = "llama3"
    pattern = PATTERNS[name]
    if takes_whole != pattern.takes_whole:
        raise ForeignTokenizerError(
            f"{path}: the model uses ignore_merges, which this tokenizer lacks"
        )
    normalizer = contents.get("normalizer")
    done = normalizer["type"] if normalizer else None
    if done != ("NFC" if pattern.is_composed else None):
        raise ForeignTokenizerError(
            f"{path}: the text is normalized ({done}), which this tokenizer does not do with the "
            f"pattern {name}"
        )
    return name


def _pattern_of(pre_tokenizer: Any, path: Any) -> str:
    """Return the name in `PATTERNS` of the rule by which a tokenizer.json cuts text."""
    steps = [pre_tokenizer] if pre_tokenizer else []
    if steps and pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    kinds = [step["type"] for step in steps]
    byte_level = steps[-1] if kinds and kinds[-1] == "ByteLevel" else None
    if byte_level is None or kinds[:-1] not in ([], ["Split"], ["Digits"]):
        cut = " and ".join(kinds) or "nothing"
        raise ForeignTokenizerError(f"{path}: text is cut by {cut}, not by ByteLevel")
    if byte_level.get("add_prefix_space", True):
        raise ForeignTokenizerError(f"{path}: a space is put before the text (add_prefix_space)")
    if kinds[0] != "Split":
        if not byte_level.get("use_regex", True):
            raise ForeignTokenizerError(
                f"{path}: text is not cut into pre-tokens (use_regex is off)"
            )
        if kinds[0] == "Digits" and not steps[0].get("individual_digits"):
            raise ForeignTokenizerError(f"{path}: numbers are cut off, but not into digits")
        return "smollm" if kinds[0] == "Digits" else "gpt2"
    split = steps[0]
    source = split["pattern"].get("Regex")
    names = {
        p.source: name for name, p in PATTERNS.items() if not p.takes_whole and not p.prefix
    } | _SPELLINGS
    is_plain = split["behavior"] == "Isolated" and not split.get("invert")
    if not is_plain or source not in names or byte_level.get("use_regex", True):
        raise ForeignTokenizerError(
            f"{path}: text is cut by a pattern that this tokenizer lacks: {source}"
        )
    return names[source]


# tiktoken ----------------------------------------------------------------------------------


def tiktoken(vocab: Vocab, special_tokens: Sequence[str]) -> dict[str, str]:
    """Return the contents of a rank file: all tokens but special ones in base64, with their ids."""
    special = {token.encode() for token in special_tokens}
    ordinary = [(i, token) for i, token in sorted(vocab.items()) if token not in special]
    lines = (f"{base64.b64encode(token).decode()} {i}\n" for i, token in ordinary)
    return {"tokenizer.tiktoken": "".join(lines)}


def read_tiktoken(path: str | os.PathLike[str]) -> tuple[Vocab, Merges]:
    """Read vocabulary and merges of a rank file.

    The file has tokens only. The merge that made a token is recovered by applying the merges of
    lower ranks to its bytes: a pair is left.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not in the format.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(contents_of(path).splitlines(), 1):
        try:
            encoded, number_text = line.split()
            ranks[base64.b64decode(encoded, validate=True)] = int(number_text)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"{path}:{number} is not a token in base64 and its rank") from error
    merges: Merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _merge_below(token, ranks, rank)
            if len(parts) != 2:
                raise ValueError(
                    f"{path}: no merge of two earlier tokens makes {token!r} (rank {rank})"
                )
            merges.append((parts[0], parts[1]))
    return {rank: token for token, rank in ranks.items()}, merges


def _merge_below(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """Merge some bytes by the tokens of ranks below `limit`."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        best, i = min((ranks.get(a + b, limit), i) for i, (a, b) in enumerate(pairwise(parts)))
        if best >= limit:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts
