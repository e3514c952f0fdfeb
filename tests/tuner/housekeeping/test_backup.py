"""Backups: what is in them, what is left out, and files that are none."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from model.files import hidden_name
from tests.model.test_files import umask
from tests.tuner.simulated_search import FACTS
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.housekeeping import backup as module
from tuner.housekeeping.backup import back_up, restore
from tuner.journal.events import Event, MessageSent, SearchBegun
from tuner.journal.journal import JOURNAL_FILE, Journal, read_journal
from tuner.lease.folder import is_running
from tuner.space.space import SearchSpace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a database, a search, a corpus, and what a backup leaves out."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home.at(tmp_path / "runs")
    with closing(sqlite3.connect(home.root / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE draws (value INTEGER)")
        database.execute("INSERT INTO draws VALUES (7)")
    for path in ("corpora/c1/train.bin", "artifacts/r1/artifacts/spec.json"):
        (home.root / path).parent.mkdir(parents=True)
        (home.root / path).write_text(path)
    (home.root / "corpora" / ".c1.lock").write_text("")
    (home.root / "artifacts" / "link").symlink_to("/etc/passwd")
    with closing(Journal.open(home.search("lm-1"))) as journal:
        journal.append(SearchBegun(SearchSpace(name="lm"), "", FACTS))
    return home


def events(root: Path) -> list[Event]:
    return read_journal(root / "searches" / "lm-1")


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz", "b.tgz"])
def test_restored_home_has_all_files_but_locks_and_links(
    home: Home, tmp_path: Path, name: str
) -> None:
    made = back_up(home, tmp_path / name)
    assert made.searches == ("lm-1",)
    root = tmp_path / "new" / "place"
    found = restore(tmp_path / name, root)
    assert (found.home, found.searches) == (str(home.root), ("lm-1",))
    assert (found.files, found.bytes) == (made.files, made.bytes)
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        assert database.execute("SELECT value FROM draws").fetchall() == [(7,)]
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == [
        "artifacts/r1/artifacts/spec.json", "corpora/c1/train.bin", "format", "mlflow.db",
        "searches/lm-1/epochs/0001", f"searches/lm-1/{JOURNAL_FILE}",
    ]  # fmt: skip
    assert events(root) == events(home.root)
    assert all(p.stat().st_mode & 0o077 == 0 for p in root.rglob("*"))


def test_backup_of_a_running_search_can_go_on_at_once(home: Home, tmp_path: Path) -> None:
    """The journal is cut at a complete line, and the driver that goes on counts as ended."""
    with closing(Journal.open(home.search("lm-1"))) as journal:
        journal.append(MessageSent("boom"))
        with (home.search("lm-1") / JOURNAL_FILE).open("ab") as file:
            file.write(b'{"event": "fai')
        back_up(home, tmp_path / "b.tar")
        root = tmp_path / "other"
        restore(tmp_path / "b.tar", root)
        assert is_running(home.search("lm-1"))
        assert not is_running(root / "searches" / "lm-1")
        with closing(Journal.open(root / "searches" / "lm-1")) as copy:
            assert copy.epoch > journal.epoch
    assert len(events(root)) == 2


def test_state_that_goes_meanwhile_is_replaced_by_the_next(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home.search("lm-1")
    (folder / "states").mkdir()
    (folder / "states" / "10.safetensors").write_text("old")
    add: Callable[..., bool] = module._add_file

    def adding(archive: tarfile.TarFile, path: Path, relative: Path) -> bool:
        if path.name == "10.safetensors":  # the driver was faster
            path.unlink()
            (folder / "states" / "20.safetensors").write_text("new")
            with closing(Journal.open(folder)) as journal:
                journal.append(MessageSent("later"))
        return add(archive, path, relative)

    monkeypatch.setattr(module, "_add_file", adding)
    back_up(home, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "other")
    states = tmp_path / "other" / "searches" / "lm-1" / "states"
    assert [path.name for path in states.iterdir()] == ["20.safetensors"]
    assert len(events(tmp_path / "other")) == 2


def archive_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    manifest = json.dumps({"format": 1, "home": "/h", "date": "", "searches": []}).encode()
    first = tarfile.TarInfo("tuner-backup.json")
    with tarfile.open(path, "w") as archive:
        for member, data in ((first, manifest), *members):
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    "member",
    [tarfile.TarInfo("../out"), tarfile.TarInfo("/tmp/out"), link("in", "/etc/passwd")],
)
def test_archive_that_leads_outside_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = archive_of(tmp_path / "evil.tar", (tarfile.TarInfo("a"), b"x"), (member, b""))
    with pytest.raises(StoreError, match="which is no file of a home; nothing was restored"):
        restore(path, tmp_path / "home")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.tar"]


def member_of(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("a")
    member.type = kind
    return member


def member_with(headers: dict[str, str]) -> tarfile.TarInfo:
    member = tarfile.TarInfo("a")
    member.pax_headers = headers
    return member


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        (member_of(tarfile.GNUTYPE_SPARSE), b"", "has headers that no backup has"),
        (member_with({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), b"9\n", "has headers"),
        (member_with({"GNU.sparse.map": "0,1"}), b"x", "which is no file of a home"),
        (member_with({"GNU.sparse.map": "x,y"}), b"x", "cannot restore"),
        (member_with({"size": "-2048"}), b"", "which is no file of a home"),
        (member_with({"path": "a\0b"}), b"x", "cannot restore"),
        (member_of(tarfile.XHDTYPE), bytes(70_000), "has headers that no backup has"),
        (member_of(tarfile.XHDTYPE), bytes(2_000_000), "has headers that no backup has"),
        (member_of(tarfile.GNUTYPE_LONGNAME), bytes(2_000_000), "has headers that no backup has"),
        (member_of(tarfile.XGLTYPE), b"13 comment=x\n", "has headers that no backup has"),
        (tarfile.TarInfo("a"), bytes(910), "needs 1 kB or more, and 1 kB are free"),
    ],
)
def test_archive_that_is_a_bomb_is_refused(
    tmp_path: Path,
    member: tarfile.TarInfo,
    data: bytes,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1000))
    path = archive_of(tmp_path / "bomb.tar", (member, data), (tarfile.TarInfo("b"), b""))
    with pytest.raises(StoreError, match=message):
        restore(path, tmp_path / "home")
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.tar"]


def test_archive_has_no_more_files_than_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    members = [(tarfile.TarInfo(name), b"") for name in "abc"]
    restore(archive_of(tmp_path / "two.tar", *members[:2]), tmp_path / "home")
    with pytest.raises(StoreError, match="has more than 2 files"):
        restore(archive_of(tmp_path / "three.tar", *members), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_headers_in_headers_are_refused(tmp_path: Path) -> None:
    header = (member_of(tarfile.XHDTYPE), b"13 comment=x\n")
    path = archive_of(tmp_path / "deep.tar", *[header] * 3000)
    with pytest.raises(StoreError, match="cannot restore"):
        restore(path, tmp_path / "home")


@pytest.mark.parametrize("mask", [0, 0o022])
def test_backup_is_private(home: Home, tmp_path: Path, mask: int) -> None:
    """It holds what a home does, which only its user can enter."""
    with umask(mask):
        back_up(home, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def test_what_killed_commands_left_is_removed_by_the_next(home: Home, tmp_path: Path) -> None:
    """Unless something was written to it within an hour: it may be of a process that lives."""
    path, root = tmp_path / "b.tar", tmp_path / "new"
    old, young, other = (hidden_name(p) for p in (path, path, tmp_path / "c.tar"))
    folder = hidden_name(root)
    folder.mkdir()
    for leftover in (old, young, other, folder / "file"):
        leftover.write_text("half")
    for leftover in (old, other, folder / "file", folder):
        os.utime(leftover, (0, 0))
    back_up(home, path)
    restore(path, root)
    hidden = {p for p in tmp_path.iterdir() if p.name.startswith(".")}
    assert hidden == {young, other}


def test_other_files_are_refused_in_one_sentence(home: Home, tmp_path: Path) -> None:
    back_up(home, good := tmp_path / "good.tar.gz")
    (tmp_path / "text").write_text("no archive")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:400])
    with tarfile.open(tmp_path / "plain.tar", "w") as archive:
        archive.add(tmp_path / "text", "text")
    newer = archive_of(tmp_path / "newer.tar")
    newer.write_bytes(newer.read_bytes().replace(b'"format": 1', b'"format": 9'))
    for name, message in (
        ("text", "is no backup of 'tuner backup'"),
        ("plain.tar", "is no backup of 'tuner backup'"),
        ("cut", "is no backup of 'tuner backup', or was cut off|cannot restore"),
        ("missing", "there is no file"),
        ("pipe", "is no regular file"),
        ("", "is no regular file"),
        ("newer.tar", "has format 9, and this tuner reads formats up to 1"),
    ):
        with pytest.raises(StoreError, match=message):
            restore(tmp_path / name, tmp_path / "new")
        assert not (tmp_path / "new").exists()
    with pytest.raises(StoreError, match="is not empty; restore to a new folder with --home"):
        restore(good, home.root)
