"""Which field or column of a table holds the documents, by its first row."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import CorpusError
from model.sources.formats import TABLES
from model.sources.parquet import text_columns
from model.sources.streams import format_suffix, is_compressed, lines, texts

_ROW = 2**20  # characters of the first row that are read
_USUAL = "text"


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
