"""What a user may say of the data, and that reading it stays within its memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import sysconfig
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from model.errors import CorpusError
from model.sources.documents import Document
from model.sources.registry import SOURCES, documents, source_bytes, source_files
from model.spec.data import DataConfig


def config(*files: Path, **more: Any) -> DataConfig:
    return DataConfig(files=tuple(map(str, files)), **more)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "python-stdlib"),
        ({"source": "python-docstrings"}, "python-docstrings"),
        ({"files": ["a.txt"], "errors": "replace", "field": "x", "column": "x"}, "files"),
        ({"hub": "a/b", "split": "test", "hub_config": "x", "revision": "x"}, "hub"),
        ({"source": "python-docstrings", "pairs": True}, "python-docstrings"),
        (
            {"files": ["a"], "pairs": True, "source_field": "target", "target_field": "x"}
            | {"errors": "replace"},
            "files",
        ),
    ],
)
def test_every_kind_of_source_is_in_the_registry(options: dict[str, Any], kind: str) -> None:
    data = DataConfig(**options)
    assert data.kind == kind
    assert DataConfig.model_validate(data.model_dump()) == data
    assert DataConfig.model_validate_json(data.model_dump_json()) == data
    assert set(SOURCES) == {"python-stdlib", "python-docstrings", "files", "hub"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": ["a"], "hub": "b"}, "give exactly one of source, files and hub"),
        ({"source": "python-stdlib", "hub": "b"}, "give exactly one of source, files and hub"),
        ({"hub": None}, "give exactly one of source, files and hub"),
        ({"hub": ""}, "at least 1 character"),
        ({"files": ["a"], "split": "x"}, "split has no effect with files; it is for hub"),
        ({"files": ["a"], "revision": "x"}, "revision has no effect with files; it is for hub"),
        ({"hub_config": "x"}, "hub_config has no effect with source; it is for hub"),
        ({"separator": "x"}, "separator has no effect with source; it is for files"),
        ({"errors": "replace"}, "errors has no effect with source; it is for files"),
        ({"hub": "a/b", "field": "x"}, "field has no effect with hub; it is for files"),
        ({"column": "x"}, "column has no effect with source; it is for files and hub"),
        ({"files": ["a"], "errors": "ignore"}, "'strict' or 'replace'"),
        (
            {"pairs": True},
            "there are no pairs in python-stdlib; use source: python-docstrings, or ",
        ),
        ({"hub": "a/b", "pairs": True}, "there are no pairs in a data set of the hub; use source:"),
        (
            {"files": ["a"], "pairs": True, "column": "x"},
            "column has no effect with files with pairs: true; name source_field and target_field",
        ),
        ({"files": ["a"], "pairs": True, "field": "x"}, "field has no effect with files with pair"),
        ({"files": ["a"], "pairs": True, "separator": "x"}, "separator has no effect with files w"),
        (
            {"files": ["a"], "source_field": "x"},
            "source_field has no effect with files; it is for files with pairs: true",
        ),
        (
            {"source": "python-docstrings", "pairs": True, "target_field": "x"},
            "target_field has no effect with source; it is for files with pairs: true",
        ),
        (
            {"files": ["a"], "pairs": True, "target_field": "source"},
            "source_field and target_field are both 'source'; name two fields",
        ),
    ],
)
def test_data_config_refuses_options_without_effect(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**options)


@pytest.mark.parametrize("name", ["a.txt", "a.md.gz", "b/c.py"])
def test_pairs_are_refused_in_files_that_are_no_tables(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("text")
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}')
    assert len(list(documents(config(tmp_path / "a.jsonl", pairs=True)))) == 2
    message = (
        f"{re.escape(str(path))} is not a table and so has no pairs; name .jsonl, .* leave out"
    )
    for ask in (source_files, lambda data: next(documents(data))):
        with pytest.raises(CorpusError, match=message):
            ask(config(tmp_path, pairs=True))  # type: ignore[operator]


def test_empty_files_of_a_folder_are_skipped(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl", "c.csv", "d.txt.gz"):
        (tmp_path / name).touch()
    with pytest.raises(
        CorpusError, match=r"a\.txt is empty and so are all 4 files of data.files; g"
    ):
        list(documents(config(tmp_path)))
    (tmp_path / "e.txt").write_text("text")
    assert list(documents(config(tmp_path))) == [Document("e.txt#0", "text")]
    with pytest.raises(CorpusError, match=r"c\.csv is empty: no row has text"):
        list(documents(config(tmp_path, tmp_path / "c.csv")))


def test_names_of_documents_do_not_depend_on_other_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one|two")
    alone = set(documents(config(tmp_path, separator="|")))
    (tmp_path / "a.txt").write_text("other|texts")
    (tmp_path / "c.jsonl").write_text('{"text": "more"}')
    assert alone < set(documents(config(tmp_path, separator="|")))


def test_source_files_and_bytes(tmp_path: Path) -> None:
    for name, text in (("a.txt", "12345"), ("b.csv", "text\n1\n"), ("deep/c.jsonl", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = source_files(config(tmp_path))
    assert [(file.name, file.path) for file in found] == [
        (name, tmp_path / name) for name in ("a.txt", "b.csv", "deep/c.jsonl")
    ]
    assert source_bytes(config(tmp_path)) == 12
    assert source_bytes(DataConfig()) == source_bytes(DataConfig(source="python-docstrings"))


@pytest.mark.parametrize("name", ["b.parquet", "b.txt.gz", "b.jsonl.zst"])
def test_source_bytes_is_none_if_unknown_before_reading(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("12345")
    (tmp_path / name).touch()
    assert source_bytes(config(tmp_path)) is None


def test_source_files_names_missing_files(tmp_path: Path) -> None:
    for ask in (source_files, source_bytes):
        with pytest.raises(CorpusError, match=r"cannot read .*a\.txt: No such file"):
            ask(config(tmp_path / "a.txt"))  # type: ignore[operator]
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"cannot read .*b\.txt: No such file"):
        source_files(config(tmp_path / "b.txt"))


LINE = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 16 + "\n"


def write_text(path: Path, lines: int) -> None:
    with path.open("w") as file:
        file.writelines(LINE for _ in range(lines))


def write_zstd(path: Path, lines: int) -> None:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        for _ in range(lines):
            file.write(LINE.encode())


def write_gzip(path: Path, lines: int) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(LINE for _ in range(lines))


def write_jsonl(path: Path, lines: int) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps({"text": LINE}) + "\n" for _ in range(lines))


def write_csv(path: Path, lines: int) -> None:
    with path.open("w") as file:
        file.write("text\n")
        file.writelines(f'"{LINE}"\n' for _ in range(lines))


def write_parquet(path: Path, lines: int) -> None:
    """One row group, so that nothing but the reader's own batches bounds its memory."""
    table = pyarrow.table({"text": [f"{i} {LINE}" for i in range(lines)]})
    parquet.write_table(table, path, row_group_size=lines, use_dictionary=False)


BIG: dict[str, Callable[[Path, int], None]] = {
    "one.txt": write_text,  # a single document of many pieces
    "one.txt.zst": write_zstd,
    "one.txt.gz": write_gzip,
    "rows.jsonl": write_jsonl,
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
}


def total(found: Iterator[Document]) -> int:
    return sum(len(document.text) for document in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    size = 60_000_000 if name.startswith("one") else 30_000_000  # each row costs more
    lines = size // len(LINE)
    BIG[name](tmp_path / name, lines)
    next(documents(config(tmp_path / name)))  # what is imported on the way
    tracemalloc.start()
    try:
        read = total(documents(config(tmp_path / name)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read >= lines * len(LINE)
    assert peak < 0.4 * size


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_a_process_that_reads_a_large_file_stays_small(tmp_path: Path, name: str) -> None:
    """The memory of pyarrow's and zlib's own, which Python does not see."""
    code = (
        "import resource, sys\n"
        "from model.spec.data import DataConfig\n"
        "from model.sources.registry import documents\n"
        "data = DataConfig(files=(sys.argv[1],))\n"
        "next(documents(data))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for document in documents(data): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    BIG[name](tmp_path / name, 120_000_000 // len(LINE))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert int(done.stdout) * 1024 < 32_000_000


def test_python_stdlib_leaves_out_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ["a.py", "json/decoder.py", "turtle.py"]
    left_out = [
        "site-packages/x.py", "dist-packages/x.py", "test/x.py", "json/tests/x.py",
        "idlelib/x.py", "lib2to3/x.py", "ensurepip/_bundled/x.py", "config-3.11-x86_64/x.py",
        "_sysconfigdata__linux_x86_64.py", "sitecustomize.py", "__pycache__/x.py", "x.txt",
    ]  # fmt: skip
    for name in [*reversed(kept), *left_out]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    names = [document.name for document in documents(DataConfig())]
    assert sorted(names) == kept
    assert names == [document.name for document in documents(DataConfig())]


def test_python_stdlib_is_deterministic_library_text() -> None:
    data = DataConfig(source="python-stdlib")
    listing = source_files(data)
    names = [file.name for file in listing]
    assert listing == source_files(data)
    assert len(set(names)) == len(names) > 300
    assert {"json/decoder.py", "argparse.py", "asyncio/events.py"} <= set(names)
    assert not [name for name in names if "/test" in name or "site-packages" in name]
    size = source_bytes(data)
    assert size is not None
    assert 5e6 < size < 20e6
    root = Path(sysconfig.get_paths()["stdlib"])
    assert size == sum((root / name).stat().st_size for name in names)
