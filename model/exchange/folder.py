"""Atomic writing of a folder: it either is complete or does not exist."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from zipfile import ZipFile

from safetensors import SafetensorError

from model.errors import ExportError
from model.files import hidden_name

README_FILE, SUMS_FILE = "README.md", "SHA256SUMS"
_BLOCK = 1 << 20  # bytes


def check_target(target: Path, *, force: bool) -> None:
    """Check that a folder may be written.

    Args:
        target: the folder.
        force: True to replace an earlier export; other contents are never replaced.

    Raises:
        ExportError: if the folder may not be written.
    """
    # The folder is renamed into its parent, or into the nearest folder above that exists.
    parent = next(path for path in target.absolute().parents if path.exists())
    if not parent.is_dir():
        raise ExportError(f"{target} cannot be made, because {parent} is a file; give another path")
    try:
        TemporaryFile(dir=parent).close()
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"cannot write {target}: {reason} ({parent})") from error
    if not target.exists():
        return
    if not target.is_dir():
        raise ExportError(f"{target} is a file; give the path of a new folder")
    files = sorted(path.name for path in target.iterdir())
    if not files:
        return
    foreign = [name for name in files if name not in _exported(target)]
    if foreign:
        raise ExportError(
            f"{target} holds {foreign[0]}, which is not part of an export, so the folder is not "
            f"replaced; give another folder"
        )
    if not force:
        raise ExportError(f"{target} holds an earlier export; give another folder, or --force")


def _exported(folder: Path) -> set[str]:
    """Return the files of an earlier export; none for any other folder."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {SUMS_FILE, *(line.partition("  ")[2] for line in lines)}


def write_folder(target: Path, write: Callable[[Path], None], readme: str) -> list[Path]:
    """Write files into a temporary folder beside the target, then rename it to the target.

    Args:
        target: folder that does not exist, is empty, or is an earlier export, which is replaced.
        write: writes files into an empty folder.
        readme: README of the folder, in Markdown; the digests of the files are appended.

    Returns:
        Paths of the files, sorted by name.

    Raises:
        ExportError: if the files cannot be written; the target is then unchanged.
    """

    def complete(temporary: Path) -> None:
        write(temporary)
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        table = "".join(f"| {name} | `{digest}` |\n" for name, digest in sums.items())
        text = f"{readme}\n## Files\n\n| File | SHA-256 |\n| --- | --- |\n{table}"
        (temporary / README_FILE).write_text(text, encoding="utf-8")
        sums[README_FILE] = _sha256(temporary / README_FILE)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
        (temporary / SUMS_FILE).write_text(lines, encoding="utf-8")
        # Some libraries write files that only the user can read; the sums have the default mode.
        mode = (temporary / SUMS_FILE).stat().st_mode
        for path in temporary.iterdir():
            path.chmod(mode)

    return _replace(target, complete)


def unpack_folder(archive: ZipFile, target: Path) -> list[Path]:
    """Write an exported folder that was sent as a zip file, as `write_folder` does.

    Args:
        archive: has one folder of files.
        target: as for `write_folder`.

    Raises:
        ExportError: as `write_folder`; also for an archive of anything else.
    """

    def write(temporary: Path) -> None:
        for member in archive.infolist():
            folder, _, name = member.filename.partition("/")
            if not name or {"/", "\\", "\0"} & {*name} or name in {".", ".."} or not folder:
                raise ExportError(f"the archive has {member.filename!r}, which no export has")
            with archive.open(member) as source, (temporary / name).open("xb") as file:
                shutil.copyfileobj(source, file)

    return _replace(target, write)


def _replace(target: Path, write: Callable[[Path], None]) -> list[Path]:
    """Write files into a temporary folder beside a target, then rename it to the target."""
    target = target.resolve()  # replace the folder behind a link, not the link
    temporary, old = hidden_name(target), hidden_name(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        write(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"cannot write {target}: {reason}") from error
    finally:
        # After a failure between the two renames, the earlier export gets its name back.
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
    return sorted(target.iterdir())


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
