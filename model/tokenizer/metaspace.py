"""Tokens of SentencePiece's BPE, as in Llama 2 and Mistral: characters, and bytes as a fallback.

A space is written as ▁ (U+2581) in their files, and one is put before a text. Merges begin with
characters; those without a token become their UTF-8 bytes, each of which has a token `<0x00>` to
`<0xFF>`. Here all tokens are bytes: that of an ASCII character and that of its byte are spelled
alike, and the byte has the smaller id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from model.errors import ForeignTokenizerError
from model.tokenizer.bpe import Merges, Vocab
from model.tokenizer.pretokenizer import Prefix

MARK = "\u2581"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_INSIDE = re.compile(rb"[^ ] ")


def prefixed(text: str, prefix: Prefix) -> str:
    """Return a text that begins a document as the merges see it.

    Llama 2 puts a space before each text, Mistral only if there is none.
    """
    return text if not text or (prefix == "first" and text[0] == " ") else f" {text}"


def token_ids(vocab: Vocab) -> dict[bytes, int]:
    """Return bytes → id; of an ASCII character that of the character."""
    return {token: i for i, token in sorted(vocab.items())}


def byte_ids(vocab: Vocab) -> dict[int, int]:
    """Return byte → id of the token of the byte."""
    backwards = sorted(vocab.items(), reverse=True)
    return {token[0]: i for i, token in backwards if len(token) == 1}


def symbols(pretoken: bytes, ids: Mapping[bytes, int], of_byte: Sequence[int]) -> list[int]:
    """Return the ids that merges begin with: of characters, or of their bytes."""
    found: list[int] = []
    for character in pretoken.decode("utf-8", "surrogatepass"):
        encoded = character.encode("utf-8", "surrogatepass")
        known = ids.get(encoded)
        found += [of_byte[byte] for byte in encoded] if known is None else [known]
    return found


def read_vocab(names: Mapping[str, int], added: Collection[str], path: Any) -> Vocab:
    """Return id → bytes of a vocabulary in a tokenizer.json.

    Raises:
        ForeignTokenizerError: if a byte has no token, or two tokens are spelled alike.
    """
    vocab: Vocab = {}
    seen: dict[bytes, int] = {}
    of_bytes = {names[name] for byte in range(256) if (name := f"<0x{byte:02X}>") in names}
    for name, i in sorted(names.items(), key=lambda item: item[1]):
        byte = None if name in added else BYTE.fullmatch(name)
        token = name if name in added else name.replace(MARK, " ")
        encoded = bytes([int(byte[1], 16)]) if byte else token.encode("utf-8", "surrogatepass")
        if encoded in seen and (byte or seen[encoded] not in of_bytes):
            raise ForeignTokenizerError(
                f"{path}: the tokens {seen[encoded]} and {i} are spelled alike"
            )
        vocab[i] = encoded
        seen[encoded] = i
    if len(of_bytes) < 256:
        raise ForeignTokenizerError(f"{path}: byte_fallback needs a token for each of 256 bytes")
    return vocab


def read_merges(lines: Iterable[str | Sequence[str]], path: Any) -> Merges:
    """Return the merges of a tokenizer.json.

    Raises:
        ForeignTokenizerError: if a token has a space after another character: texts could not be
            cut there.
        ValueError: if a merge is no pair.
    """
    merges: Merges = []
    for line in lines:
        pair = line.split(" ") if isinstance(line, str) else line
        if len(pair) != 2:
            raise ValueError(f"{path}: merge {len(merges) + 1} is not a pair of tokens: {line}")
        a, b = (part.replace(MARK, " ").encode("utf-8", "surrogatepass") for part in pair)
        if _SPACE_INSIDE.search(a + b):
            raise ForeignTokenizerError(f"{path}: a token has a space inside: {pair[0]}{pair[1]}")
        merges.append((a, b))
    return merges


def token_names(vocab: Vocab, special_tokens: Collection[str]) -> dict[str, int]:
    """Return the name of each token in a tokenizer.json → its id."""
    bytes_ = {i: byte for byte, i in byte_ids(vocab).items()}
    special = {token.encode() for token in special_tokens}

    def name(i: int, token: bytes) -> str:
        if i in bytes_:
            return f"<0x{bytes_[i]:02X}>"
        text = token.decode("utf-8", "surrogatepass")
        return text if token in special else text.replace(" ", MARK)

    return {name(i, token): i for i, token in vocab.items()}


def merge_pairs(merges: Merges) -> list[list[str]]:
    """Return the merges as a tokenizer.json has them."""
    return [[p.decode("utf-8", "surrogatepass").replace(" ", MARK) for p in m] for m in merges]


# normalizer and pre-tokenizer of each kind of prefix, as tokenizers writes them
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
_RULES: Mapping[Prefix, tuple[Any, Any]] = {
    "every": (
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, _REPLACE]},
        None,
    ),
    "first": (
        None,
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False},
    ),
}
_DECODERS = (
    {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
)  # fmt: skip


def rules(prefix: Prefix) -> dict[str, Any]:
    """Return normalizer, pre-tokenizer and decoder of a tokenizer.json."""
    normalizer, pre_tokenizer = _RULES[prefix]
    decoder = {"type": "Sequence", "decoders": list(_DECODERS)}
    return {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder}


def prefix_of(contents: Mapping[str, Any], path: Any) -> Prefix:
    """Return the prefix of a tokenizer.json with byte fallback.

    Raises:
        ForeignTokenizerError: if it normalizes or cuts text in another way.
    """
    found = contents.get("normalizer"), contents.get("pre_tokenizer")
    for prefix, expected in _RULES.items():
        if found == expected:
            return prefix
    raise ForeignTokenizerError(
        f"{path}: text is prepared by {' and '.join(r['type'] for r in found if r) or 'nothing'}, "
        f"which this tokenizer does not do with byte_fallback"
    )
