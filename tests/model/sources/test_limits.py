"""Rows and white space that would take much memory: a sentence, and little memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from model.errors import CorpusError
from model.sources import parquet as parquet_reader
from model.sources.registry import documents
from model.spec.data import LONGEST_ROW, DataConfig
from tests.model.sources.compress import COMPRESS

ROOT = Path(__file__).parents[3]
MEGABYTE = 2**20
UNPACKED = 80  # MB of each bomb
MOST = 40  # MB that a reader may take for it


def read(path: Path, longest: int | None = None, **options: Any) -> list[str]:
    data = DataConfig(files=(str(path),), max_row_characters=longest, **options)
    return [document.text for document in documents(data)]


def compressed(name: str, *parts: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(gzip.compress(b"".join(parts), 1))


BOMBS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "row": (
        compressed("a.jsonl.gz", b'{"text": "', b"a" * UNPACKED * MEGABYTE, b'"}\n'),
        r"a.jsonl.gz line 1 has more than 4,194,304 characters; split the row, or raise data.max_r",
    ),
    "blank line": (
        compressed("a.jsonl.gz", b" " * UNPACKED * MEGABYTE), r"line 1 has more than 4,194,304"
    ),
    "values": (
        compressed("a.jsonl.gz", b'{"text": "a", "n": [', b"[]," * MEGABYTE, b"[]]}\n"),
        r"line 1 holds more than 131,072 values; leave out what is not text",
    ),
    "field": (
        compressed("a.csv.gz", b'text\n"', b"a\n" * (UNPACKED * MEGABYTE // 2), b'"\n'),
        r"a.csv.gz line \d+: a row has more than 4,194,304 characters",
    ),
    "spaces": (compressed("a.txt.gz", b" " * UNPACKED * MEGABYTE), r"a.txt.gz is empty"),
    "white space": (
        compressed("a.txt.gz", b" \n\t " * 999 + b" ", (b" \n\t" * 999 + b" ") * 26_000, b"a"),
        r"document 1 begins with more than 4,194,304 characters of white space; remove them, or",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_takes_little_memory(tmp_path: Path, case: str) -> None:
    """In a process of its own, whose peak of memory is that of the reader."""
    write, message = BOMBS[case]
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    code = (
        "import sys\n"
        "from model.errors import CorpusError\n"
        "from model.sources.registry import documents\n"
        "from model.spec.data import DataConfig\n"
        "from tests.mutations import peak_megabytes\n"
        "before = peak_megabytes()\n"
        "try:\n"
        "    data = DataConfig(files=(sys.argv[1],), max_row_characters=2**22)\n"
        "    print(sum(len(d.text) for d in documents(data)))\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
        "print(peak_megabytes() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60,
        check=True, cwd=ROOT,
    )  # fmt: skip
    said, grown = done.stdout.splitlines()
    assert re.search(message, said)
    assert float(grown) < MOST


def test_the_longest_row_is_read(tmp_path: Path) -> None:
    """Exactly as many characters as allowed, however the lines lie in the blocks."""
    row = json.dumps({"text": "a" * 20})
    for name, text, size in (
        ("a.jsonl", f"{row}\n{row}\n", len(row)),
        ("b.jsonl", f"{row}\n{row}", len(row)),
        ("a.csv", f"text\n{'a' * 30}\n", 30),
    ):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name, size)
        with pytest.raises(CorpusError, match=rf"line [12](: a row)? has more than {size - 1} "):
            read(tmp_path / name, size - 1)
    parquet.write_table(pyarrow.table({"text": ["a", "a" * 100]}), tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet", 100)) == 2
    with pytest.raises(CorpusError, match=r"row 2: column 'text' has more than 99 characters"):
        read(tmp_path / "a.parquet", 99)
    assert DataConfig(files=("a",)).longest_row == LONGEST_ROW


def test_white_space_before_a_text_is_kept(tmp_path: Path) -> None:
    text = " " * 9_000_000 + "a"
    (tmp_path / "a.txt").write_text(text)
    assert "".join(read(tmp_path / "a.txt", 2**22)) == text


def test_commas_in_a_text_are_no_values(tmp_path: Path) -> None:
    row = {"text": ',[{\\"' * 100, "n": [1, 2]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert read(tmp_path / "a.jsonl", 1600) == [row["text"]]
    row["n"] = [1] * 60
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(CorpusError, match="line 1 holds more than 50 values"):
        read(tmp_path / "a.jsonl", 1600)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": ' + "[" * 100_000)
    with pytest.raises(CorpusError, match=r"line 1 is not JSON \(maximum recursion depth"):
        read(tmp_path / "a.jsonl")


def test_a_compressed_parquet_file_is_decompressed_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet.gz"
    table = pyarrow.table({"text": ["a" * 3000] * 2000})
    parquet.write_table(table, tmp_path / "a.parquet", compression=None, use_dictionary=False)
    path.write_bytes(COMPRESS[".gz"]((tmp_path / "a.parquet").read_bytes()))
    assert len(read(path)) == 2000
    monkeypatch.setattr(parquet_reader, "_CHECKED_BYTES", 1000)
    with pytest.raises(CorpusError, match=r"more than 100 times as large when it is decomp"):
        read(path)
    monkeypatch.setattr(parquet_reader, "_LARGEST_RATIO", 10_000)
    monkeypatch.setattr(parquet_reader, "_FREE_BYTES", 2**62)
    with pytest.raises(CorpusError, match=r"where no space is left; decompress it yourself, or se"):
        read(path)
