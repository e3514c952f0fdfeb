"""Which files are meant, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from model.errors import CorpusError
from model.sources.files import SourceFile, is_named, library_files, named_files
from model.sources.formats import FORMATS
from model.sources.streams import COMPRESSIONS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("wiki/0.txt", "wiki/1.jsonl.gz", "books/0.txt", "books/deep/0.txt", "books/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(*patterns: Path | str) -> list[str]:
    return [file.name for file in named_files(list(map(str, patterns)))]


@pytest.mark.parametrize("compression", ["", *COMPRESSIONS])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_and_a_pattern_hold_every_format(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    for name in (f"a{suffix}{compression}", f"b{suffix}.bz2", f"c{compression}", "d.docx"):
        (tmp_path / name).touch()
    (tmp_path / f"folder{suffix}{compression}").mkdir()
    expected = [SourceFile(f"a{suffix}{compression}", tmp_path / f"a{suffix}{compression}")]
    assert named_files([str(tmp_path)]) == expected
    assert named_files([str(tmp_path / "*")]) == expected


def test_files_of_two_folders_have_distinct_names(tree: Path) -> None:
    """By as many folders as it takes, so that moving them together changes nothing."""
    assert names(tree / "wiki", tree / "books") == [
        "wiki/0.txt",
        "1.jsonl.gz",
        "books/0.txt",
        "deep/0.txt",
    ]
    moved = tree / "elsewhere"
    moved.mkdir()
    for folder in ("wiki", "books"):
        (tree / folder).rename(moved / folder)
    assert names(moved / "wiki/0.txt", moved / "books/0.txt") == ["wiki/0.txt", "books/0.txt"]
    assert names(moved / "wiki/0.txt", moved / "books/*.txt", moved / "books/deep/0.txt") == [
        "wiki/0.txt",
        "books/0.txt",
        "deep/0.txt",
    ]


def test_names_that_collide_again_get_another_folder(tmp_path: Path) -> None:
    for name in ("x/a/0.txt", "y/a/0.txt", "z/a/0.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert names(*(tmp_path / each / "a" for each in "xy"), tmp_path / "z") == [
        "x/a/0.txt",
        "y/a/0.txt",
        "z/a/0.txt",
    ]


def test_a_file_that_is_named_twice_is_read_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    (tree / "books/1.txt").touch()
    patterns = ["books", str(tree / "books/deep/0.txt"), "books/../books/0.txt"]
    assert [(file.name, is_named(file, patterns)) for file in named_files(patterns)] == [
        ("0.txt", True),
        ("1.txt", False),
        ("deep/0.txt", True),
    ]


def test_the_home_folder_may_be_written_as_a_tilde(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tree))
    (found,) = named_files(["~/wiki/0.txt"])
    assert found == SourceFile("0.txt", tree / "wiki/0.txt")
    assert is_named(found, ["~/wiki/0.txt"])
    assert names("~/books/deep") == ["0.txt"]


def test_a_file_that_is_missing_is_named_before_its_suffix(tree: Path) -> None:
    with pytest.raises(CorpusError, match=r"cannot read .*texts: No such file or directory; check"):
        named_files([str(tree / "texts")])


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for pattern in (tmp_path, tmp_path / "*", tmp_path / "nothing-*"):
        with pytest.raises(CorpusError, match=r"holds no \.txt, .*\.parquet file; check the path$"):
            named_files([str(pattern)])


def test_a_folder_that_may_not_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(CorpusError, match=r"cannot read .*a\.txt: Permission denied; check"):
        named_files([str(tmp_path / "a.txt")])


def test_a_closed_folder_inside_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be missing without a word."""
    real = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CorpusError, match=r"cannot read .*books/deep: Permission denied; check"):
        named_files([str(tree / "books")])


def test_library_files_have_names_of_their_own() -> None:
    found = library_files()
    assert len({file.name for file in found}) == len(found) > 300
    assert all(file.path.as_posix().endswith(file.name) for file in found)
