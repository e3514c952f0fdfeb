"""A first look at data: which field has the text, how many documents, scripts, duplicates."""

from __future__ import annotations

import csv
import hashlib
import json
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CorpusError
from model.sources.documents import Document
from model.sources.formats import TABLES
from model.sources.parquet import text_columns
from model.sources.registry import documents, source_files, text_bytes
from model.sources.streams import format_suffix, is_compressed, lines, texts
from model.spec.data import DataConfig

_ROW = 2**20  # characters of the first row that are read
_USUAL = "text"  # field of the documents
_MOST_CHARACTERS = 2**25  # that are read: some seconds
_MOST_SAMPLED = 2**19  # characters of the sample …
_MOST_OF_DOCUMENT = 2**17  # … and of each document in it
_RARE = 0.01  # share of the letters below which a script is not named
# First word of a letter's Unicode name → script; others are named by the word itself.
_SCRIPTS = {
    "CJK": "Chinese characters", "HIRAGANA": "Japanese kana", "KATAKANA": "Japanese kana",
    "HANGUL": "Korean", "MODIFIER": "", "FEMININE": "Latin", "MASCULINE": "Latin", "MICRO": "Greek",
    "MATHEMATICAL": "",
}  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What a part of a source, or all of it, holds.

    Attributes:
        files: number of files.
        documents: number of documents that were read.
        duplicates: documents that equal an earlier one.
        median: characters of the document in the middle.
        text_bytes: UTF-8 bytes of the documents that were read.
        total_bytes: bytes of all documents: counted, or of the files; None if it is unknown.
        is_complete: True if all documents were read.
        scripts: script → share of the letters; rare ones are left out.
        sample: starts of documents, at most half a million characters.
    """

    files: int
    documents: int
    duplicates: int
    median: int
    text_bytes: int
    total_bytes: int | None
    is_complete: bool
    scripts: Mapping[str, float]
    sample: str


def survey(config: DataConfig) -> Survey:
    """Look at the first documents of a source, up to 33 million characters.

    Raises:
        CorpusError: if the source cannot be read or holds no text.
    """
    files, size = len(source_files(config)), text_bytes(config)
    lengths: list[int] = []
    seen: set[bytes] = set()
    letters: Counter[str] = Counter()
    sample: list[str] = []
    read = sampled = num_bytes = 0
    is_complete = True
    for whole in _wholes(documents(config)):
        if read >= _MOST_CHARACTERS:
            is_complete = False
            break
        digest, length, encoded, start = whole
        lengths.append(length)
        seen.add(digest)
        read, num_bytes = read + length, num_bytes + encoded
        if sampled < _MOST_SAMPLED:
            sample.append(start)
            sampled += len(start)
    for start in sample:
        letters.update(start)
    return Survey(
        files, len(lengths), len(lengths) - len(seen), int(statistics.median(lengths)), num_bytes,
        num_bytes if is_complete else size, is_complete, _scripts(letters),
        "\n".join(sample)[:_MOST_SAMPLED],
    )  # fmt: skip


def _wholes(pieces: Iterator[Document]) -> Iterator[tuple[bytes, int, int, str]]:
    """Yield digest, characters, bytes and start of each document, without holding long ones."""
    digest, length, encoded, start = hashlib.blake2b(digest_size=8), 0, 0, ""
    for piece in pieces:
        data = piece.text.encode("utf-8", "surrogatepass")
        digest.update(data)
        length, encoded = length + len(piece.text), encoded + len(data)
        start = start or piece.text[:_MOST_OF_DOCUMENT]
        if piece.ends or length >= _MOST_CHARACTERS:
            yield digest.digest(), length, encoded, start
            digest, length, encoded, start = hashlib.blake2b(digest_size=8), 0, 0, ""


def _scripts(characters: Counter[str]) -> dict[str, float]:
    """Return the share of each script among the letters, the largest first."""
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            word = unicodedata.name(character, "unknown").split()[0].split("-")[0]
            counts[_SCRIPTS.get(word, word.capitalize())] += count
    del counts[""]
    total = counts.total() or 1
    return {name: n / total for name, n in counts.most_common() if n / total >= _RARE}


def text_field(path: Path) -> str | None:
    """Return the field or column of a table that holds the documents: `text`, or the only one.

    Returns:
        None for a file that is no table, and for a compressed Parquet file, which shows its columns
        only when it is read.

    Raises:
        CorpusError: if the file cannot be read, or has no column of text, or several.
    """
    suffix = format_suffix(path)
    if suffix not in TABLES or (suffix == ".parquet" and is_compressed(path)):
        return None
    if suffix == ".parquet":
        names = text_columns(path)
    elif suffix == ".jsonl":
        names = [key for key, value in first_object(path).items() if isinstance(value, str)]
    else:
        first = next(iter(lines(texts(path, errors="strict"))), "")
        delimiter = "\t" if suffix == ".tsv" else ","
        names = next(csv.reader([first], delimiter=delimiter), [])
    if _USUAL in names or len(names) == 1:
        return _USUAL if _USUAL in names else names[0]
    found = f"the fields {', '.join(names)}" if names else "no field of text"
    raise CorpusError(
        f"{path}: a row has {found}, and one is needed; put each document into a field text, "
        f"or write examples as messages, prompt and completion, or instruction and output"
    )


def first_object(path: Path) -> Mapping[str, Any]:
    """Return the first row of a .jsonl; empty if it is no object.

    Raises:
        CorpusError: if it cannot be read.
    """
    start = next(iter(texts(path, errors="strict")), "")[:_ROW]
    try:
        row: Any = json.loads(start.lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: the first row is no JSON: {error}") from error
    return row if isinstance(row, dict) else {}
