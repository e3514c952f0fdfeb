"""Bytes, text and lines of one file, in blocks of any size."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CorpusError
from model.sources import streams
from model.sources.streams import blocks, format_suffix, is_compressed, lines, texts
from tests.model.sources.compress import COMPRESS

ANY_SUFFIX = pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(COMPRESS[path.suffix if is_compressed(path) else ""](data))
    return path


@ANY_SUFFIX
@pytest.mark.parametrize("size", [1, 7, 2**20])
def test_blocks_are_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, size: int
) -> None:
    monkeypatch.setattr(streams, "BLOCK", size)
    data = bytes(range(256)) * 20
    found = list(blocks(write(tmp_path / f"a.txt{suffix}", data)))
    assert b"".join(found) == data
    assert max(map(len, found)) <= size


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_blocks_reads_members_that_were_joined(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one ") + COMPRESS[suffix](b"two"))
    assert b"".join(blocks(path)) == b"one two"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3],
        lambda data: b"no compressed data at all" * 9,
        lambda data: data + b"something else",
    ],
    ids=["half", "end", "other", "more"],
)
def test_blocks_names_a_damaged_file(tmp_path: Path, suffix: str, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / f"a.txt{suffix}"
    data = "".join(f"{i * i} and " for i in range(20_000)).encode()
    path.write_bytes(damage(COMPRESS[suffix](data)))
    with pytest.raises(CorpusError, match=r"a\.txt\.\w+ is damaged after [\d,]+ bytes .*again$"):
        list(blocks(path))


def test_blocks_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"cannot read .*a\.txt: No such file or directory; che"):
        list(blocks(tmp_path / "a.txt"))


def test_blocks_names_a_file_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    for name in ("a.txt", "a.txt.gz", "a.txt.zst"):
        with pytest.raises(CorpusError, match=r"cannot read .*a\.txt.*: Permission denied; check"):
            list(blocks(tmp_path / name))


def test_blocks_names_a_file_that_fails_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, mode: Failing())
    for name in ("a.txt", "a.txt.gz", "a.txt.zst"):
        with pytest.raises(CorpusError, match=r"cannot read .*a\.txt.*: Input/output error; che"):
            list(blocks(tmp_path / name))


@settings(max_examples=200)
@given(
    data=st.lists(st.sampled_from([b"a", b"\xe2\x82\xac", b"\xf0\x9f", b"\xff", b"\xe2", b"\n"])),
    size=st.integers(1, 9),
)
def test_texts_is_the_whole_text_decoded(tmp_path: Path, data: list[bytes], size: int) -> None:
    """Also where bytes are wrong: the same place in the error, the same U+FFFD."""
    whole = b"".join(data)
    path = write(tmp_path / "a.txt", whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", size)
        assert "".join(texts(path, "replace")) == whole.decode("utf-8", "replace")
        try:
            expected = whole.decode()
        except UnicodeDecodeError as error:
            place = rf"is not UTF-8 at byte {error.start} \(0x{whole[error.start]:02x}\)"
            with pytest.raises(CorpusError, match=place):
                list(texts(path, "strict"))
        else:
            assert "".join(texts(path, "strict")) == expected


@ANY_SUFFIX
def test_texts_gives_position_of_invalid_utf8(tmp_path: Path, suffix: str) -> None:
    data = "é".encode() * 2_000_000 + b"\xe9" + b" and more" * 100
    path = write(tmp_path / f"a.txt{suffix}", data)
    inside = " of the decompressed text" if suffix else ""
    with pytest.raises(CorpusError, match=rf"at byte 4000000{inside} \(0xe9\).* errors: replace$"):
        list(texts(path, "strict"))


@pytest.mark.parametrize("size", [1, 2, 100])
def test_texts_drops_the_mark_at_the_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(streams, "BLOCK", size)
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\xef\xbb\xbftwo")
    assert "".join(texts(path, "strict")) == "one\ufefftwo"
    assert list(texts(write(path, b"\xef\xbb\xbf"), "strict")) == []


@given(st.lists(st.text(st.sampled_from("ab\n\r\x0c\u2028"))))
def test_lines_end_at_line_feeds_only(found: list[str]) -> None:
    whole = "".join(found)
    assert list(lines(found)) == [
        part for part in (line + "\n" for line in whole.split("\n")[:-1])
    ] + [last for last in whole.split("\n")[-1:] if last]


@pytest.mark.parametrize(
    ("name", "suffix", "compressed"),
    [
        ("a.txt", ".txt", False),
        ("a.TXT", ".txt", False),
        ("a.jsonl.gz", ".jsonl", True),
        ("a.b.CSV.ZST", ".csv", True),
        ("a", "", False),
        ("a.gz", "", True),
        (".txt", "", False),
    ],
)
def test_format_suffix_looks_under_the_compression(
    name: str, suffix: str, compressed: bool
) -> None:
    assert format_suffix(Path("folder.txt", name)) == suffix
    assert is_compressed(Path("folder.txt", name)) == compressed


def test_blocks_checks_the_checksum(tmp_path: Path) -> None:
    """Of gzip always; of zstd where there is one, as the command zstd writes it."""
    frame = "28b52ffd0458b100006120746578742077697468206120636865636b73756d50e28960"
    for suffix, data in ((".zst", bytes.fromhex(frame)), (".gz", gzip.compress(b"a text", 0))):
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(data)
        assert b"".join(blocks(path)).startswith(b"a text")
        path.write_bytes(data.replace(b"text", b"tent"))
        with pytest.raises(CorpusError, match="is damaged after"):
            list(blocks(path))


def test_gzip_of_a_truncated_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"text")[:5])
    with pytest.raises(CorpusError, match="is damaged after 0 bytes"):
        list(blocks(path))
