"""Every format gives the same documents of the same texts, and names what is wrong with a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from model.errors import CorpusError
from model.sources import documents as documents_module
from model.sources import streams
from model.sources.formats import FORMATS, NO_SUFFIX, TEXT_FORMATS
from model.sources.registry import documents
from model.sources.streams import COMPRESSIONS
from model.spec.data import DataConfig
from tests.model.sources.compress import COMPRESS

SEPARATOR = "<|endoftext|>"
TEXTS = [
    "plain",
    'comma, tab \t and "quotes"',
    "lines\nand\r\nmore\n",
    " \n",
    "été \U0001f600 \u2028 end",
    "",
    " kept spaces ",
    "\ufeffmark",
    "long " * 3000,
]


def of_text(texts: list[str]) -> bytes:
    return SEPARATOR.join(texts).encode()


def of_jsonl(texts: list[str]) -> bytes:
    return of_objects([{"id": i, "text": text} for i, text in enumerate(texts)])


def of_objects(rows: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)
                   ).encode()  # fmt: skip


def of_table(delimiter: str) -> Callable[[list[str]], bytes]:
    return lambda texts: of_cells([["id", "text"], *map(list, enumerate(texts))], delimiter)


def of_cells(rows: list[list[Any]], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


def of_parquet(texts: list[str], kind: Any = None, **options: Any) -> bytes:
    text = pyarrow.array(texts, kind or pyarrow.string())
    return of_columns({"id": list(range(len(texts))), "text": text}, **options)


def of_columns(columns: Mapping[str, Any], **options: Any) -> bytes:
    table = pyarrow.table(columns)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    **dict.fromkeys(TEXT_FORMATS, of_text),
    ".jsonl": of_jsonl,
    ".csv": of_table(","),
    ".tsv": of_table("\t"),
    ".parquet": of_parquet,
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(*files: Path, **options: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text, _ in documents(DataConfig(files=tuple(map(str, files)), **options)):
        found[name] = found.get(name, "") + text
    return found


def in_columns(delimiter: str) -> Callable[[list[tuple[str, str]]], bytes]:
    return lambda pairs: of_cells([["to", "id", "from"], *([t, 0, s] for s, t in pairs)], delimiter)


# The columns are not in the order in which they are asked for.
PAIR_WRITERS: dict[str, Callable[[list[tuple[str, str]]], bytes]] = {
    ".jsonl": lambda pairs: of_objects([{"to": t, "id": 0, "from": s} for s, t in pairs]),
    ".csv": in_columns(","),
    ".tsv": in_columns("\t"),
    ".parquet": lambda pairs: of_columns(
        {"to": [t for _, t in pairs], "id": [0] * len(pairs), "from": [s for s, _ in pairs]}
    ),
}


def test_every_format_has_a_writer_here() -> None:
    assert set(WRITERS) == {*FORMATS, NO_SUFFIX}
    assert set(PAIR_WRITERS) == set(FORMATS) - set(TEXT_FORMATS)
    assert set(COMPRESS) == {"", *COMPRESSIONS}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("block", [2**20, 13])
def test_every_format_gives_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, compression: str, block: int
) -> None:
    monkeypatch.setattr(streams, "BLOCK", block)
    monkeypatch.setattr(documents_module, "PIECE", 1000)
    name = f"a{suffix}{compression}"
    path = write(tmp_path / name, COMPRESS[compression](WRITERS[suffix](TEXTS)))
    expected = {f"{name}#{i}": text for i, text in enumerate(TEXTS) if text.strip()}
    assert read(path) == expected
    assert read(tmp_path) == expected


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_every_table_keeps_any_text(tmp_path: Path, texts: list[str]) -> None:
    """Text files cannot, because a text may hold the separator."""
    texts = [*texts, "so that there is one"]
    expected = [text for text in texts if text.strip()]
    for suffix in set(WRITERS) - set(TEXT_FORMATS):
        path = write(tmp_path / f"a{suffix}", WRITERS[suffix](texts))
        assert list(read(path).values()) == expected, suffix


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", PAIR_WRITERS)
def test_every_table_gives_the_same_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, compression: str
) -> None:
    monkeypatch.setattr(documents_module, "PIECE", 1000)
    monkeypatch.setattr("model.sources.parquet._MOST_ROWS", 2)
    texts = [text for text in TEXTS if text.strip()]
    pairs = list(zip(texts, reversed(texts), strict=True))
    name = f"a{suffix}{compression}"
    path = write(tmp_path / name, COMPRESS[compression](PAIR_WRITERS[suffix](pairs)))
    config = DataConfig(files=(str(path),), pairs=True, source_field="from", target_field="to")
    found = list(documents(config))
    assert len(found) > 2 * len(pairs), "long texts come in pieces"
    whole, begun = [], ""
    for each in found:
        begun += each.text
        if each.ends:
            whole.append((each.name, begun))
            begun = ""
    numbered = enumerate(pairs)
    assert whole == [(f"{name}#{number}", text) for number, pair in numbered for text in pair]


PAIR_MISTAKES: dict[str, tuple[str, bytes, str]] = {
    "no row": ("a.tsv", b"source\ttarget\n", r"a\.tsv is empty: it has no row; leave it out"),
    "empty": (
        "a.jsonl",
        b'{"source": "a", "target": "b"}\n\n{"source": "a", "target": ""}',
        r"a\.jsonl line 3 has no text in 'target', which is the target of a pair; add a text, or",
    ),
    "null": ("a.jsonl", b'{"source": null, "target": "b"}', r"line 1 has no text in 'source', whi"),
    "blank": ("a.csv", b'source,target\na,b\n" \n",b\n', r"line 4 has no text in 'source', which"),
    "cell": ("a.tsv", b"source\ttarget\na\t\n", r"a\.tsv line 2 has no text in 'target', which is"),
    "short": ("a.csv", b"target,source\na\n", "2 has 1 fields, but column 'source' is number 2; c"),
    "no key": ("a.jsonl", b'{"source": "a"}', "1 has no field 'target', only 'source'; set data"),
    "number": ("a.jsonl", b'{"source": "a", "target": 1}', "is not a text but int; set data.targ"),
    "no column": ("a.csv", b"target,text\n", "has no column 'source', .*; set data.source_field"),
    "no parquet column": (
        "a.parquet",
        of_columns({"source": ["a"]}),
        "has no column 'target', only 'source'; set data.target_field",
    ),
    "parquet null": (
        "a.parquet",
        of_columns({"source": ["a", "b"], "target": ["a", None]}),
        r"a\.parquet row 2 has no text in 'target', which is the target of a pair",
    ),
    "parquet numbers": (
        "a.parquet",
        of_columns({"source": ["a"], "target": [1]}),
        "column 'target' holds int64 and not text; set data.target_field",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIR_MISTAKES)
def test_a_row_that_is_no_pair_is_named(tmp_path: Path, case: str) -> None:
    name, data, message = PAIR_MISTAKES[case]
    path = write(tmp_path / name, data)
    with pytest.raises(CorpusError, match=message) as caught:
        read(path, pairs=True)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_text_is_cut_at_the_separator(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"one\n\n\ntwo\n\n \n\nthree")
    name = path.name
    assert read(path, separator="\n\n") == {
        f"{name}#0": "one",
        f"{name}#1": "\ntwo",
        f"{name}#3": "three",
    }


def test_jsonl_takes_the_field_and_counts_all_lines(tmp_path: Path) -> None:
    lines = [
        '{"content": "a"}',
        "",
        '{"content": null, "x": 1}',
        '{"content": "b\\ud83d\\ude00"}\r',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines).encode())
    assert read(path, field="content") == {"a.jsonl#0": "a", "a.jsonl#3": "b\U0001f600"}


def test_csv_takes_the_column_and_skips_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfcontent,id\r\na,1\r\n\r\n,2\r\nb\r\n")
    assert read(path, column="content") == {"a.csv#0": "a", "a.csv#3": "b"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_csv_has_fields_of_any_length(tmp_path: Path, suffix: str) -> None:
    csv.field_size_limit(131072)
    text = 'x"' * 200_000
    assert read(write(tmp_path / f"a{suffix}", WRITERS[suffix]([text]))) == {f"a{suffix}#0": text}


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.large_string(),
        pyarrow.binary(),
        pyarrow.large_binary(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_parquet_reads_every_kind_of_text(tmp_path: Path, kind: Any) -> None:
    texts: list[Any] = ["a", None, "é", "a"]
    path = write(tmp_path / "a.parquet", of_parquet(texts, kind, row_group_size=3))
    assert read(path) == {"a.parquet#0": "a", "a.parquet#2": "é", "a.parquet#3": "a"}


def test_parquet_counts_rows_across_batches_and_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.sources.parquet._MOST_ROWS", 7)
    texts = [f"row {i}" for i in range(100)]
    path = write(tmp_path / "a.parquet", of_parquet(texts, row_group_size=30))
    assert read(path) == {f"a.parquet#{i}": text for i, text in enumerate(texts)}


LATIN = {
    ".txt": b"caf\xe9",
    ".jsonl": b'{"text": "caf\xe9"}\n',
    ".csv": b"text\ncaf\xe9\n",
    ".tsv": b"text\ncaf\xe9\n",
    ".parquet": of_parquet([b"ok", b"caf\xe9"], pyarrow.binary()),  # type: ignore[list-item]
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", LATIN)
def test_errors_replace_reads_what_is_not_utf8(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    path = write(tmp_path / f"a{suffix}{compression}", COMPRESS[compression](LATIN[suffix]))
    with pytest.raises(CorpusError, match=r"is not UTF-8 at byte \d+.*\(0xe9\).*errors: replace"):
        read(path)
    assert "caf\ufffd" in read(path, errors="replace").values()


def zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(100) + data[middle + 100 :]


# name of the file, its bytes, options, what is said
MISTAKES: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "empty": ("a.txt", b"", {}, r"a\.txt is empty: there are no doc.*; leave it out or add text"),
    "blank": ("a.md", b" \n\t", {}, r"a\.md is empty"),
    "separators": ("a.txt", b"\n\n \n\n", {"separator": "\n\n"}, r"only separators \('\\n\\n'\)"),
    "empty gz": ("a.txt.gz", COMPRESS[".gz"](b""), {}, r"a\.txt\.gz is empty"),
    "no bytes in zst": ("a.txt.zst", b"", {}, r"a\.txt\.zst is empty"),
    "jsonl empty": ("a.jsonl", b"\n", {}, r"a\.jsonl is empty: no row has text in its field"),
    "jsonl blank": ("a.jsonl", b'{"text": " "}', {}, "no row has text in its field 'text'"),
    "csv empty": ("a.csv", b"", {}, r"a\.csv is empty: no row has text in its column 'text'"),
    "csv header only": ("a.csv", b"text\n", {}, r"a\.csv is empty: no row"),
    "parquet empty": ("a.parquet", of_parquet([]), {}, r"a\.parquet is empty: no row"),
    "not JSON": ("a.jsonl", b'{"text": "a"}\n{"text": ', {}, r"line 2 is not JSON \(.*umn 10\)"),
    "JSON array file": ("a.jsonl", b'[\n{"text": "a"}\n]', {}, r"line 1 is not JSON"),
    "deep JSON": ("a.jsonl", b"[" * 100_000, {}, r"line 1 is not JSON"),
    "JSON list": ("a.jsonl", b'["a"]', {}, r"a\.jsonl line 1 is not an object"),
    "no field": (
        "a.jsonl",
        b'{"text": "a"}\n\n{"content": "a", "id": 1}',
        {},
        r"a\.jsonl line 3 has no field 'text', only 'content', 'id'; set data.field",
    ),
    "field is a number": ("a.jsonl", b'{"text": 1}', {}, "field 'text' is not a text but int; set"),
    "half a character": ("a.jsonl", b'{"text": "a\\uD83d"}', {}, r"line 1 holds half a character"),
    "no column": (
        "a.csv",
        b"id,content\n1,a\n",
        {},
        r"a\.csv has no column 'text', only 'id', 'content'; set data.column",
    ),
    "many columns": ("a.csv", b"a,b,c,d,e,f,g,h,i,j", {}, r"'g', 'h' and 2 more; set"),
    "no tsv column": ("a.tsv", b"text,id\n", {}, r"a\.tsv has no column 'text', only 'text,id'"),
    "short row": ("a.csv", b"id,text\n1,a\n2\n", {}, r"a\.csv line 3 has 1 fields, but column"),
    "open quote": ("a.csv", b'text\n"never\nclosed\n', {}, r"a\.csv line 3 cannot be read \(unexp"),
    "stray quote": ("a.csv", b'text\n"a" b\n', {}, r"a\.csv line 2 cannot be read \(',' expected"),
    "old line ends": ("a.csv", b"text\ra\rb\r", {}, r"a\.csv line 1 cannot be read \(new-line"),
    "no parquet column": (
        "a.parquet",
        of_parquet(["a"]),
        {"column": "content"},
        r"a\.parquet has no column 'content', only 'id', 'text'; set data.column",
    ),
    "numbers": ("a.parquet", of_parquet(["a"]), {"column": "id"}, "'id' holds int64 and not text"),
    "no parquet": ("a.parquet", b"text", {}, r"is not a Parquet file or is damaged \(.*again"),
    "no bytes": ("a.parquet", b"", {}, r"a\.parquet is not a Parquet file or is damaged"),
    "half a parquet": ("a.parquet", of_parquet(["a"] * 99)[:-9], {}, "is not a Parquet file or is"),
    "damaged parquet": (
        "a.parquet",
        zeroed(of_parquet([f"{i * i}" for i in range(999)], write_page_checksum=True)),
        {},
        r"a\.parquet is not a Parquet file or is damaged",
    ),
    "damaged name": (
        "a.parquet",
        of_parquet(["a"]).replace(b"text", b"t\x9cxt"),
        {},
        r"a\.parquet is not a Parquet file or is damaged",
    ),
    "damaged gz of parquet": ("a.parquet.gz", b"PAR1", {}, r"a\.parquet\.gz is damaged after 0 by"),
    "unknown suffix": (
        "a.docx",
        b"x",
        {},
        r"a\.docx has no suffix that is known; rename it to \.txt if it is plain text, or "
        r"convert it to one of \.txt, .*\.gz or \.zst$",
    ),
    "html": ("a.html", b"<p>x", {}, r"a\.html is HTML.* with pandoc a\.html -t plain -o a\.txt$"),
    "json": ("a.json", b"[]", {}, r"a\.json is JSON.*\.jsonl.* rename it .* > a\.jsonl$"),
    "pdf": ("a.pdf", b"%PDF", {}, r"a\.pdf is PDF.* with pdftotext a\.pdf a\.txt$"),
    "compressed json": ("a.json.gz", b"[]", {}, r"a\.json\.gz has no suffix that is known"),
    "no gzip": ("a.gz", b"x", {}, r"a\.gz is damaged"),
    "no text": ("a", b"\x7fELF\0", {}, r"a has no suffix and is read as text, but it holds NUL"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    name, data, options, message = MISTAKES[case]
    path = write(tmp_path / name, data)
    with pytest.raises(CorpusError, match=message) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_without_suffix_is_read_if_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "input", "a text é".encode())
    assert read(path) == {"input#0": "a text é"}
    assert read(write(tmp_path / "input.gz", gzip.compress(b"more"))) == {"input.gz#0": "more"}
    write(tmp_path / "a.txt", b"in a folder")
    for pattern in (tmp_path, tmp_path / "*"):
        found = documents(DataConfig(files=(str(pattern),)))
        assert [document.name for document in found] == ["a.txt#0"]


def test_the_advice_for_a_list_in_json_works(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b'[{"text": "one"}, {"text": "two \xc3\xa9\\n"}]')
    with pytest.raises(CorpusError) as caught:
        read(path)
    command = str(caught.value).partition(" with ")[2]
    command = command[command.index("python3") :]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert list(read(tmp_path / "a.jsonl").values()) == ["one", "two é\n"]


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(CorpusError, match=r"a\.txt is not a regular file; copy its contents"):
        read(tmp_path / "a.txt")


def test_half_a_character_is_replaced_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a\\ud83d b \\ud83d\\ude00"}')
    assert read(path, errors="replace") == {"a.jsonl#0": "a\ufffd b \U0001f600"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_vanishes_is_named(tmp_path: Path, suffix: str) -> None:
    """After it was listed, and before its turn."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}{suffix}", WRITERS[suffix](["text"]))
    found = documents(DataConfig(files=(str(tmp_path),)))
    assert next(found).text == "text"
    (tmp_path / f"b{suffix}").unlink()
    with pytest.raises(CorpusError, match=rf"cannot read .*b\{suffix}: No such file.*; check that"):
        list(found)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The permission is taken by hand: tests may run as root, who may read everything."""
    path = write(tmp_path / f"a{suffix}", WRITERS[suffix](["text"]))

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, os.strerror(13), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError, match=r"cannot read .*: Permission denied; check that"):
        read(path)
