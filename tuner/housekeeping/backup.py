"""Backups: a home as one file, also while searches run in it, and a home from such a file."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

import tuner
from model.files import hidden_name, replacing
from tuner.artifact_locations import copy_database
from tuner.errors import StoreError
from tuner.formats import FORMAT, newer
from tuner.home import Home
from tuner.journal.journal import JOURNAL_FILE
from tuner.lease.holder import Holder

_MANIFEST = "tuner-backup.json"
_DATABASES = ("mlflow.db",)
_SIDECARS = ("-wal", "-shm", "-journal")  # of SQLite: what they hold is in the copies
_LOCK, _EPOCHS = "lock", "epochs"
_TRIES = 5  # to read the states of a search that goes on meanwhile
_MOST_MANIFEST = 1_000_000  # bytes

Say = Callable[[str], None]


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
        path: the archive; a file there is replaced when the new one is complete.

    Raises:
        StoreError: if a file cannot be read or written.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    try:
        with replacing(path) as file, TemporaryDirectory(prefix="tuner-backup-") as scratch:
            mode: Any = "w:gz" if path.suffix in {".gz", ".tgz"} else "w"
            options: dict[str, Any] = {"compresslevel": 3} if mode == "w:gz" else {}
            with tarfile.open(fileobj=file, mode=mode, **options) as archive:
                return _write(home.root, archive, Path(scratch), date)
    except OSError as error:
        raise StoreError(f"cannot write the backup {path}: {error}") from error


def _write(root: Path, archive: tarfile.TarFile, scratch: Path, date: str) -> Backup:
    names = sorted(p.parent.name for p in root.glob(f"searches/*/{JOURNAL_FILE}"))
    manifest = {
        "format": FORMAT, "tuner": tuner.__version__, "home": str(root), "date": date,
        "searches": names,
    }  # fmt: skip
    _add(archive, _MANIFEST, json.dumps(manifest).encode())
    # first the databases: all files that their rows name are still to be read
    for name in _DATABASES:
        if (root / name).is_file():
            copy_database(root / name, scratch / name)
            archive.add(scratch / name, name, recursive=False)
    for name in names:
        _add_search(root, root / "searches" / name, archive)
    for path in _files(root):
        relative = path.relative_to(root)
        if relative.parts[0] != "searches" and str(relative) not in _DATABASES:
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
        journal = (folder / JOURNAL_FILE).read_bytes()
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
        if path.is_file() and not path.is_symlink():
            yield path


def _ended(path: Path) -> bytes:
    """Return a file of a folder of leases; the driver of a lease counts as ended."""
    record = path.read_bytes()
    if not path.name.isdigit():
        return record
    return replace(Holder.parse(int(path.name), record), has_ended=True).record


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, path: Path, relative: Path) -> bool:
    """Add a file; return False if it has gone, or was shortened, since it was listed."""
    try:
        with path.open("rb") as file:
            member = archive.gettarinfo(arcname=str(relative), fileobj=file)
            member.uname = member.gname = ""
            archive.addfile(member, file)
    except FileNotFoundError:
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
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StoreError(f"{root} is not empty; restore to a new folder with --home")
    building = hidden_name(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path) as archive:
            backup = _manifest(archive, path)
            building.mkdir(mode=0o700)
            count = size = 0
            for member in archive:
                if member.name == _MANIFEST:
                    continue
                _extract(archive, member, building)
                count, size = count + 1, size + member.size
        if root.exists():
            root.rmdir()
        building.rename(root)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise StoreError(f"there is no file {path}") from error
        if isinstance(error, tarfile.ReadError):
            raise StoreError(f"{path} is no backup of 'tuner backup', or was cut off") from error
        raise StoreError(f"cannot restore {path}: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Backup(backup["home"], backup["date"], tuple(backup["searches"]), count, size)


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
    source: IO[bytes] | None = archive.extractfile(member) if member.isfile() else None
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
