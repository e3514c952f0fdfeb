"""Files written in one piece, where somebody else may have laid links and names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from model import files
from model.checkpoints import checkpoint
from model.exchange.folder import write_folder
from model.files import NotRegular, hidden_name, open_regular, read_regular, replacing, unfinished
from model.tokenizer import formats


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_file_is_replaced_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "mask", "expected"), [(0o666, 0o027, 0o640), (0o600, 0, 0o600)])
def test_file_has_the_permissions_that_it_shall_have(
    tmp_path: Path, mode: int, mask: int, expected: int
) -> None:
    with umask(mask), replacing(tmp_path / "a", mode=mode):
        pass
    assert (tmp_path / "a").stat().st_mode & 0o777 == expected


def test_durable_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda file: synced.append((os.readlink(f"/proc/self/fd/{file}"), path.exists())),  # noqa: PTH115 - of a file in /proc
    )
    path = tmp_path / "a"
    with replacing(path) as file:
        file.write(b"x")
    path.unlink()
    assert synced == []
    with replacing(path, durable=True) as file:
        file.write(b"x")
    (name, had_name), folder = synced
    assert Path(name).name.startswith(".a.")
    assert not had_name
    assert folder == (str(tmp_path), True)


def test_unfinished_files_are_known_by_their_names_and_age(tmp_path: Path) -> None:
    old, young, other = (hidden_name(tmp_path / name) for name in ("a.tar", "a.tar", "b"))
    for path in (old, young, other, tmp_path / ".a.tar", tmp_path / ".b.notahex1"):
        path.touch()
    folder = hidden_name(tmp_path / "c")
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "young").touch()
    for path in (old, other, folder):
        os.utime(path, (0, 0))
    assert unfinished(tmp_path, "a.tar") == [old]
    assert set(unfinished(tmp_path)) == {old, other}
    assert unfinished(tmp_path / "missing") == []


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_only_regular_files_are_opened(tmp_path: Path, flags: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "file").symlink_to(tmp_path / "folder" / "file")
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    os.close(open_regular(tmp_path / "folder" / "file", flags))
    os.close(open_regular(tmp_path / "linked" / "file", flags))
    os.close(open_regular(tmp_path / "folder" / "file", flags, below=tmp_path))
    for name in ("file", "pipe", "folder", "/dev/zero"):
        with pytest.raises(NotRegular, match=f"{name} is (a link|no regular file)"):
            open_regular(tmp_path / name, flags)
    with pytest.raises(NotRegular, match="linked is a link or no folder"):
        open_regular(tmp_path / "linked" / "file", flags, below=tmp_path)
    assert read_regular(tmp_path / "folder" / "file") == b"mine"
    with pytest.raises(OSError, match="has more than 3 bytes"):
        read_regular(tmp_path / "folder" / "file", 3)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of this process, in one call
    for _ in range(10):
        with pytest.raises(NotRegular):
            open_regular(tmp_path / "linked" / "file", flags, below=tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_names_differ(tmp_path: Path) -> None:
    path = tmp_path / "a"
    names = {hidden_name(path) for _ in range(100)}
    assert len(names) == 100
    assert all(name.name.startswith(".a.") and name.parent == tmp_path for name in names)


def test_link_is_not_followed_even_if_its_name_was_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (tmp_path / "victim").write_bytes(b"mine")
    files.hidden_name(tmp_path / "a").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), replacing(tmp_path / "a"):
        pass
    with pytest.raises(FileExistsError):
        checkpoint.write(tmp_path / "a", {}, {})
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o007, 0o660), (0o022, 0o644)])
def test_checkpoint_has_the_permissions_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        checkpoint.write(tmp_path / "a" / "1.safetensors", {"x": torch.ones(1)}, {})
    assert (tmp_path / "a" / "1.safetensors").stat().st_mode & 0o777 == mode


def test_tokenizer_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".tokenizer.json.{os.getpid()}").symlink_to(tmp_path / "victim")
    (tmp_path / "tokenizer.json").symlink_to(tmp_path / "victim")
    formats.write(tmp_path, {"tokenizer.json": "{}"})
    assert (tmp_path / "tokenizer.json").read_text() == "{}"
    assert (tmp_path / "victim").read_text() == "mine"


def test_export_does_not_meet_a_name_that_others_made(tmp_path: Path) -> None:
    (tmp_path / f".lm.{os.getpid()}").mkdir()

    def write(folder: Path) -> None:
        (folder / "weights").write_text("x")

    names = [path.name for path in write_folder(tmp_path / "lm", write, "")]
    assert names == ["README.md", "SHA256SUMS", "weights"]
