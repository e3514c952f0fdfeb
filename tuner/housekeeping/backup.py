"""Backups: a home as one file, also while searches run in it, and a home from such a file."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

import tuner
from model.files import (
    NotRegular,
    hidden_name,
    open_regular,
    read_regular,
    replacing,
    unfinished,
)
from tuner.errors import StoreError
from tuner.home.artifact_locations import copy_database
from tuner.home.formats import FORMAT, newer
from tuner.home.home import Home
from tuner.home.private_folder import private_folder
from tuner.housekeeping.sizes import remove
from tuner.journal.journal import JOURNAL_FILE
from tuner.lease.holder import Holder
from tuner.texts.formatting import size_text

_MANIFEST = "tuner-backup.json"
_DATABASE = "mlflow.db"
_SIDECARS = ("-wal", "-shm", "-journal")  # of SQLite: what they hold is in the copies
_LOCK, _EPOCHS = "lock", "epochs"
_TRIES = 5  # to read the states of a search that goes on meanwhile
# What `restore` takes of an archive, which may be anybody's. Header: what names a member.
_MOST_MANIFEST = 1_000_000  # bytes
_MOST_HEADER = 1 << 16  # bytes; a path has 4,096, and a member may have a chain of hundreds
_HEADERS = {
    tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
}  # fmt: skip
_FOREIGN = "the archive has headers that no backup has; nothing was restored"
# ValueError, IndexError: what `tarfile` and paths raise for members that are forged
_UNREADABLE = (
    tarfile.TarError, EOFError, OSError, RecursionError, zlib.error, ValueError, IndexError,
)  # fmt: skip
_MOST_FILES = 1_000_000
_MOST_OF_DISK = 0.9  # of what is free before


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        home: folder that it was made of.
        date: when, UTC.
        searches: names of its searches.
        files: number of files.
        bytes: their size.
    """

    home: str
    date: str
    searches: tuple[str, ...]
    files: int
    bytes: int


def back_up(home: Home, path: Path) -> Backup:
    """Write a home to a tar archive, compressed if its name ends in .gz or .tgz.

    Searches may run meanwhile: databases are copied as they are at one moment, and each journal up
    to a complete line, with the states that its trials need to go on from there. Locks are left
    out, and drivers count as ended: a restored search goes on at once.

    Args:
        home: the home.
        path: the archive, which only this user can read; a file there is replaced when the new one
            is complete.

    Raises:
        StoreError: if a file cannot be read or written.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for leftover in unfinished(path.parent, path.name):
        remove(leftover)
    try:
        with replacing(path, mode=0o600, durable=True) as file, private_folder() as scratch:
            mode: Any = "w:gz" if path.suffix in {".gz", ".tgz"} else "w"
            options: dict[str, Any] = {"compresslevel": 3} if mode == "w:gz" else {}
            with tarfile.open(fileobj=file, mode=mode, **options) as archive:
                return _write(home, archive, scratch, date)
    except OSError as error:
        raise StoreError(f"cannot write the backup {path}: {error.strerror or error}") from error


def _write(home: Home, archive: tarfile.TarFile, scratch: Path, date: str) -> Backup:
    root = home.root
    names = [f.name for f in home.searches() if _is_file(f / JOURNAL_FILE)]
    manifest = {
        "format": FORMAT, "tuner": tuner.__version__, "home": str(root), "date": date,
        "searches": names,
    }  # fmt: skip
    _add(archive, _MANIFEST, json.dumps(manifest).encode())
    # first the database: all files that its rows name are still to be read
    if (root / _DATABASE).is_file():
        copy_database(root / _DATABASE, scratch / _DATABASE)
        archive.add(scratch / _DATABASE, _DATABASE, recursive=False)
    for name in names:
        _add_search(root, root / "searches" / name, archive)
    for path in _files(root):
        relative = path.relative_to(root)
        if relative.parts[0] != "searches" and str(relative) != _DATABASE:
            _add_file(archive, path, relative)
    members = [m for m in archive.getmembers() if m.name != _MANIFEST]
    return Backup(str(root), date, tuple(names), len(members), sum(m.size for m in members))


def _add_search(root: Path, folder: Path, archive: tarfile.TarFile) -> None:
    """Add a search: its states, then the journal as it was before they were read.

    A driver deletes a state when a later one is safe. So if one has gone, a newer journal and newer
    states are read.
    """
    added: set[Path] = set()
    for _ in range(_TRIES):
        with os.fdopen(open_regular(folder / JOURNAL_FILE), "rb") as file:
            journal = file.read()
        gone = False
        for path in _files(folder):
            if path.name == JOURNAL_FILE or path in added:
                continue
            added.add(path)
            relative = path.relative_to(root)
            if path.parent.name == _EPOCHS:
                _add(archive, str(relative), _ended(path))
            else:
                gone |= not _add_file(archive, path, relative)
        if not gone:
            break
        time.sleep(0.2)
    complete = journal[: journal.rfind(b"\n") + 1]
    _add(archive, str((folder / JOURNAL_FILE).relative_to(root)), complete)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder by name, without locks, links and what is being written."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        is_lock = path.name == _LOCK or path.suffix == f".{_LOCK}"
        if hidden or is_lock or path.name.endswith(_SIDECARS):
            continue
        if _is_file(path):
            yield path


def _ended(path: Path) -> bytes:
    """Return a file of a folder of leases; the driver of a lease counts as ended."""
    record = read_regular(path)
    if not path.name.isdigit():
        return record
    return replace(Holder.parse(int(path.name), record), has_ended=True).record


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, path: Path, relative: Path) -> bool:
    """Add a file; return False if it has gone, or was shortened, since it was listed."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            member = archive.gettarinfo(arcname=str(relative), fileobj=file)
            member.uname = member.gname = ""
            archive.addfile(member, file)
    except (FileNotFoundError, NotRegular):
        return False
    return True


def restore(path: Path, root: Path) -> Backup:
    """Make a home from a backup.

    Args:
        path: archive that `back_up` wrote.
        root: folder of the home, which is missing or empty; it appears when all files are written.

    Raises:
        StoreError: if the file is no backup, is damaged, is of a newer format, or names a place
            outside of the home; if the folder has files; or if something cannot be written.
    """
    _check_paths(path, root)
    building = hidden_name(root)
    for leftover in unfinished(root.parent, root.name):
        remove(leftover)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, tarinfo=_Member) as archive:
            backup = _manifest(archive, path)
            building.mkdir(mode=0o700)
            free = shutil.disk_usage(building).free
            count = size = 0
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # a list of all, for nothing
                count, size = count + 1, size + member.size
                if count > _MOST_FILES:
                    raise StoreError(f"{path} has more than {_MOST_FILES:,} files, as no home has")
                if size > _MOST_OF_DISK * free:
                    raise StoreError(
                        f"{path} needs {size_text(size)} or more, and {size_text(free)} are free "
                        f"at {root.parent}; choose another disk with --home"
                    )
                _extract(archive, member, building)
        if root.exists():
            root.rmdir()
        building.rename(root)
    except _UNREADABLE as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise StoreError(f"there is no file {path}") from error
        if isinstance(error, tarfile.ReadError):
            raise StoreError(f"{path} is no backup of 'tuner backup', or was cut off") from error
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"cannot restore {path}: {reason}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Backup(backup["home"], backup["date"], tuple(backup["searches"]), count, size)


def _check_paths(path: Path, root: Path) -> None:
    """Raise StoreError if an archive is no regular file, or the folder of a home has files."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StoreError(f"{root} is not empty; restore to a new folder with --home")
    if path.exists() and not path.is_file():  # reading a pipe or a device may have no end
        raise StoreError(f"{path} is no regular file; name the file that 'tuner backup' wrote")


class _Member(tarfile.TarInfo):
    """A member whose headers are refused, before they are read, where they may have no end.

    Backups have no global headers, whose number no size of one bounds, and no sparse files, whose
    maps `tarfile` reads as far as they go.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        is_large = member.type in _HEADERS and member.size > _MOST_HEADER
        if is_large or member.type in {tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE}:
            raise StoreError(_FOREIGN)
        return member

    def _proc_gnusparse_10(self, *_: Any) -> None:
        """Refuse the map of a sparse file, which PAX headers announce."""
        raise StoreError(_FOREIGN)


def _manifest(archive: tarfile.TarFile, path: Path) -> dict[str, Any]:
    """Return the first member of a backup, which says what it is."""
    first = archive.next()
    values: Any = None
    if first is not None and first.name == _MANIFEST and first.size < _MOST_MANIFEST:
        file = archive.extractfile(first)
        try:
            values = json.loads(file.read()) if file else None
        except (ValueError, RecursionError):
            values = None
    if not isinstance(values, dict) or "format" not in values:
        raise StoreError(f"{path} is no backup of 'tuner backup'")
    if refusal := newer(f"the backup {path}", values["format"]):
        raise StoreError(refusal)
    searches = values.get("searches")
    names = [str(name) for name in searches] if isinstance(searches, list) else []
    return {"home": str(values.get("home")), "date": str(values.get("date")), "searches": names}


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one member below a folder: plain files only, and never outside."""
    name = PurePosixPath(member.name)
    # a sparse file is larger than its archive, and a negative size makes up for a large one
    is_plain = member.isfile() and not member.issparse() and member.size >= 0
    source: IO[bytes] | None = archive.extractfile(member) if is_plain else None
    if source is None or name.is_absolute() or ".." in name.parts:
        raise StoreError(
            f"the backup has {member.name!r}, which is no file of a home; nothing was restored"
        )
    target = folder / name
    for parent in reversed(target.relative_to(folder).parents):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    with target.open("xb") as file:
        target.chmod(0o600)
        shutil.copyfileobj(source, file)
