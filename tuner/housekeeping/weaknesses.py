"""Finds what lets other users of the machine read or change a home, or learn a secret.

Each weakness is one line, with the command that mends it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tuner.home.home import Home
from tuner.notify.receivers import notify_file

_SECRET_FILES = ("~/.mlflow/credentials", "~/.ray/auth_token", "~/.cache/huggingface/token")
_URLS = ("MLFLOW_TRACKING_URI",)


def find_weaknesses(home: Home) -> list[str]:
    """Return what weakens the protection of a home, if it exists, and of secrets, here."""
    root = home.root
    folders = [*_folder(root), *_parents(root), *_disk(root)] if root.is_dir() else []
    return [*folders, *_files(), *_urls()]


def _is_reachable(path: Path) -> bool:
    """Return True if everybody may enter all folders above a path."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)


def _folder(root: Path) -> Iterator[str]:
    status = root.stat()
    is_of_team = bool(status.st_mode & stat.S_IWGRP)
    if status.st_mode & stat.S_IRWXO and _is_reachable(root):
        verb = "change" if status.st_mode & stat.S_IWOTH else "read"
        who = "o" if is_of_team else "go"
        yield f"every user of this machine may {verb} {root}: chmod -R {who}-rwx {_quoted(root)}"
    shares = is_of_team and status.st_gid in {os.getegid(), *os.getgroups()}
    if status.st_uid not in {0, os.getuid()} and not shares:
        yield (
            f"{root} belongs to {_user(status.st_uid)}, who may change every record in it: "
            f"cp -r {_quoted(root)} YOURS, and name that folder with --home"
        )


def _parents(root: Path) -> Iterator[str]:
    """Yield folders in which everybody may put something else in the place of a file of ours."""
    temporary = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir()]
    places = [Path(place).resolve() for place in temporary if place]
    above = (*root.resolve().parents, *(f for place in places for f in (place, *place.parents)))
    for folder in dict.fromkeys(above):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and _is_reachable(folder):
            yield (
                f"every user of this machine may replace what others have in {folder}: "
                f"chmod +t {_quoted(folder)}"
            )


def _disk(root: Path) -> Iterator[str]:
    """Yield what the file system of the home cannot do."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".new-", dir=root)))
        first, second = (stack.enter_context((folder / "lock").open("ab")) for _ in range(2))
        if not _excludes(first.fileno(), second.fileno()):
            yield (
                f"locks do not work in {root}, so two processes could write one search: choose a "
                f"folder of another file system with --home"
            )
        (folder / "lock").chmod(0o600)
        if (folder / "lock").stat().st_mode & 0o077:
            yield (
                f"the file system of {root} has no permissions for single users: choose a folder "
                f"of another one with --home"
            )


def _excludes(first: int, second: int) -> bool:
    """Return True if the lock of one handle of a file excludes that of another."""
    with suppress(OSError):
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _files() -> Iterator[str]:
    """Yield files with secrets that everybody may read."""
    names = [os.environ.get("RAY_AUTH_TOKEN_PATH", ""), *_SECRET_FILES]
    with suppress(RuntimeError):  # no home
        names.append(str(notify_file()))
    for name in names:
        with suppress(OSError, RuntimeError):  # no such file, no home
            path = Path(name).expanduser().absolute()
            status = path.stat()
            is_open = stat.S_ISREG(status.st_mode) and status.st_mode & (
                stat.S_IROTH | stat.S_IWOTH
            )
            if is_open and _is_reachable(path):
                yield f"every user of this machine may read {path}: chmod 600 {_quoted(path)}"


def _urls() -> Iterator[str]:
    for name in _URLS:
        with suppress(ValueError):
            url = urlsplit(os.environ.get(name, ""))
            if url.password:
                is_server = url.scheme.startswith("http")
                file = "~/.mlflow/credentials" if is_server else "a file such as ~/.pgpass"
                yield (
                    f"every program that you start can read the password in {name}: keep it in "
                    f"{file} instead"
                )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
