"""The identity of a source, what changes it, and what is remembered of files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from model.errors import CorpusError
from model.files import replacing
from model.sources import fingerprint as fingerprints
from model.sources.fingerprint import FileDigest, difference, fingerprint
from model.spec.data import DataConfig


def settle(path: Path, seconds: float = 3600) -> None:
    """Make a file look as if it had not been touched for some time."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.jsonl", "deep/c.csv"):
        (folder / name).write_text(f"text of {name}")
        settle(folder / name)
    return folder


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "memo.json"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes are read."""
    found: list[str] = []
    real = hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        found.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return found


def config(*files: Path, **more: Any) -> DataConfig:
    return DataConfig(files=tuple(map(str, files)), **more)


def test_fingerprint_holds_the_digest_of_each_file(texts: Path) -> None:
    found = fingerprint(config(texts))
    assert found.files == tuple(
        FileDigest(
            name,
            (texts / name).stat().st_size,
            hashlib.sha256((texts / name).read_bytes()).hexdigest(),
        )
        for name in ("a.txt", "b.jsonl", "deep/c.csv")
    )
    assert len(found.digest) == 64
    assert hash(found) == hash(fingerprint(config(texts)))


def test_fingerprint_does_not_depend_on_where_files_lie_or_when_they_came(texts: Path) -> None:
    first = fingerprint(config(texts))
    moved = texts.rename(texts.with_name("moved"))
    settle(moved / "a.txt", 10)
    assert fingerprint(config(moved)) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.txt").write_text("other"),
        lambda folder: (folder / "a.txt").rename(folder / "d.txt"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "d.md").write_text("more"),
    ],
    ids=["bytes", "name", "fewer", "more"],
)
def test_fingerprint_changes_with_the_files(texts: Path, change: Callable[[Path], object]) -> None:
    first = fingerprint(config(texts))
    change(texts)
    assert fingerprint(config(texts)).digest != first.digest


def test_fingerprint_changes_with_options_that_change_documents(texts: Path) -> None:
    plain = fingerprint(config(texts)).digest
    options: list[dict[str, Any]] = [
        {"separator": "\n"}, {"field": "x"}, {"column": "x"}, {"errors": "replace"},
    ]  # fmt: skip
    digests = {fingerprint(config(texts, **option)).digest for option in options}
    assert len(digests | {plain}) == 5
    assert fingerprint(config(texts, validation_fraction=0.5)).digest == plain


def test_fingerprint_changes_with_pairs_and_their_fields(texts: Path) -> None:
    (texts / "a.txt").unlink()
    options: list[dict[str, Any]] = [
        {}, {"pairs": True}, {"pairs": True, "errors": "replace"},
        {"pairs": True, "source_field": "x"}, {"pairs": True, "target_field": "x"},
    ]  # fmt: skip
    digests = {fingerprint(config(texts, **option)).digest for option in options}
    library = [DataConfig(source="python-docstrings", pairs=pairs) for pairs in (False, True)]
    assert len(digests | {fingerprint(data).digest for data in library}) == 7


def test_options_for_other_formats_do_not_matter(texts: Path) -> None:
    def digest(name: str, **options: Any) -> str:
        return fingerprint(config(texts / name, **options)).digest

    assert digest("a.txt", field="x", column="x") == digest("a.txt")
    assert digest("b.jsonl", separator="x", column="x") == digest("b.jsonl")
    assert digest("deep/c.csv", separator="x", field="x") == digest("deep/c.csv")


def test_sources_of_the_library_differ_and_stay(memo: Path) -> None:
    stdlib, pairs = (
        fingerprint(DataConfig(source=source), memo)
        for source in ("python-stdlib", "python-docstrings")
    )
    assert stdlib.files == pairs.files
    assert stdlib.digest != pairs.digest
    assert fingerprint(DataConfig(), memo) == stdlib


def test_memo_saves_reading_again(texts: Path, memo: Path, hashed: list[str]) -> None:
    first = fingerprint(config(texts), memo)
    assert hashed == ["a.txt", "b.jsonl", "c.csv"]
    assert fingerprint(config(texts), memo) == first
    assert len(hashed) == 3
    assert fingerprint(config(texts)) == first
    assert len(hashed) == 6, "without a memo all is read"
    assert [path.name for path in memo.parent.iterdir()] == ["memo.json"]


def test_memo_notices_size_and_time(texts: Path, memo: Path, hashed: list[str]) -> None:
    before = fingerprint(config(texts), memo)
    path = texts / "a.txt"
    times = path.stat().st_mtime_ns
    path.write_text("longer than before")
    os.utime(path, ns=(times, times))
    assert fingerprint(config(texts), memo) != before
    path.write_text("shorter than before"[:-1])
    settle(path, 60)
    fingerprint(config(texts), memo)
    assert hashed[3:] == ["a.txt", "a.txt"]


def test_memo_does_not_trust_a_file_just_written(
    texts: Path, memo: Path, hashed: list[str]
) -> None:
    """It may be written again in the same tick of the clock, with the same size."""
    path = texts / "a.txt"
    path.write_text("one")
    first = fingerprint(config(path), memo)
    times = path.stat().st_mtime_ns
    path.write_text("two")
    os.utime(path, ns=(times, times))
    assert fingerprint(config(path), memo) != first
    assert not memo.exists()
    settle(path, -3600)
    fingerprint(config(path), memo)
    fingerprint(config(path), memo)
    assert hashed == ["a.txt"] * 4, "nor one from the future"


def test_a_file_that_changes_while_it_is_read_is_named(
    texts: Path, memo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        found = real(file, name)
        with (texts / "a.txt").open("a") as more:
            more.write("!")
        return found

    monkeypatch.setattr(hashlib, "file_digest", digest)
    with pytest.raises(CorpusError, match=r"a\.txt changed while it was read; wait until it is"):
        fingerprint(config(texts), memo)
    assert not memo.exists()


DAMAGE = ["", "[]", "null", '{"a": 1}', '{"a": [1, 2]}', '{"a": [1, 2, 3]}', '{"a": "xyz"}', "\0"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_memo_that_is_damaged_is_made_again(
    texts: Path, memo: Path, hashed: list[str], damage: str
) -> None:
    first = fingerprint(config(texts), memo)
    memo.write_text(damage)
    assert fingerprint(config(texts), memo) == first
    assert len(hashed) == 6
    assert fingerprint(config(texts), memo) == first
    assert len(hashed) == 6


def test_memo_that_cannot_be_written_stops_nothing(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for memo in (tmp_path / "file" / "memo.json", tmp_path / "folder"):
        assert fingerprint(config(texts), memo) == fingerprint(config(texts))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "texts"]


def test_memo_keeps_what_was_read_before_an_error(
    texts: Path, memo: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    real = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "c.csv":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(CorpusError, match=r"cannot read .*c\.csv: Permission denied; check"):
            fingerprint(config(texts), memo)
    fingerprint(config(texts), memo)
    assert hashed == ["a.txt", "b.jsonl", "c.csv"]


def test_memo_forgets_files_that_are_gone(texts: Path, memo: Path) -> None:
    fingerprint(config(texts), memo)
    (texts / "a.txt").unlink()
    (texts / "d.txt").write_text("new")
    settle(texts / "d.txt")
    fingerprint(config(texts), memo)
    assert {Path(path).name for path in json.loads(memo.read_text())} == {
        "b.jsonl",
        "c.csv",
        "d.txt",
    }


def test_memo_is_sound_after_many_at_once(texts: Path, memo: Path, hashed: list[str]) -> None:
    for i in range(20):
        (texts / f"{i}.txt").write_text(str(i))
        settle(texts / f"{i}.txt")
    configs = [config(texts / f"{i}.txt") for i in range(20)] + [config(texts)] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fingerprint, configs, [memo] * len(configs)))
    fingerprint(config(texts), memo)
    hashed.clear()
    assert fingerprint(config(texts), memo) == fingerprint(config(texts))
    assert len(hashed) == 23, "only the one without a memo reads"
    assert [path.name for path in memo.parent.iterdir()] == ["memo.json"]


def test_a_memo_that_is_interrupted_stays_whole(
    texts: Path, memo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint(config(texts / "a.txt"), memo)
    before = memo.read_text()

    @contextmanager
    def interrupted(path: Path) -> Iterator[IO[bytes]]:
        with replacing(path) as file:
            yield file
            raise KeyboardInterrupt  # all is written, but not yet under its name

    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "replacing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fingerprint(config(texts), memo)
    assert memo.read_text() == before
    assert list(memo.parent.iterdir()) == [memo]


def digests(**contents: str) -> list[FileDigest]:
    return [FileDigest(f"{name}.txt", 1, text) for name, text in contents.items()]


@pytest.mark.parametrize(
    ("old", "new", "clause"),
    [
        (digests(a="1"), digests(a="1"), ""),
        (digests(a="1"), digests(a="2"), "a.txt changed"),
        (digests(a="1", b="1"), digests(a="1"), "b.txt is gone"),
        (digests(a="1"), digests(a="1", b="1"), "b.txt is new"),
        (
            digests(c="1", b="1", a="1"),
            digests(a="2", d="1", c="1"),
            "a.txt changed, b.txt is gone, d.txt is new",
        ),
        (
            digests(a="1", b="1", c="1", d="1", e="1"),
            digests(a="2", c="2", f="1"),
            "a.txt changed, c.txt changed, b.txt is gone and 3 more",
        ),
        (digests(a="1", b="1"), digests(b="1", a="1"), "the files are in another order"),
    ],
)
def test_difference_names_what_changed(
    old: list[FileDigest], new: list[FileDigest], clause: str
) -> None:
    assert difference(old, new) == clause
