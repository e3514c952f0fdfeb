"""A folder of files that is either not there or whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from model.errors import ExportError

README_FILE, SUMS_FILE = "README.md", "SHA256SUMS"
_BLOCK = 1 << 20  # bytes


def check_target(target: Path, *, force: bool) -> None:
    """Whether a folder may be written.

    Args:
        target: the folder.
        force: whether an earlier export in it is replaced; anything else never is.

    Raises:
        ExportError: if it may not.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ExportError(f"{target} is a file; give a folder that is to be made")
    files = sorted(path.name for path in target.iterdir())
    if not files:
        return
    foreign = [name for name in files if name not in _exported(target)]
    if foreign:
        raise ExportError(
            f"{target} holds {foreign[0]}, which is of no export, so it is not replaced; give "
            f"another folder"
        )
    if not force:
        raise ExportError(f"{target} holds an earlier export; give another folder, or --force")


def _exported(folder: Path) -> set[str]:
    """The files of an earlier export; of any other folder none."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {SUMS_FILE, *(line.partition("  ")[2] for line in lines)}


def write_folder(target: Path, write: Callable[[Path], None], readme: str) -> list[Path]:
    """Write files into a folder beside the target, and give it the target's name.

    Args:
        target: where to; not there, empty, or an earlier export, which is replaced.
        write: puts files into an empty folder.
        readme: of the folder, in Markdown; the digests of the files follow it.

    Returns:
        The files, by name.

    Raises:
        ExportError: if they cannot be written; then the target is as it was.
    """
    target = target.resolve()  # a link stays one
    made = target.with_name(f".{target.name}.{os.getpid()}")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.mkdir()
        write(made)
        sums = {path.name: _sha256(path) for path in sorted(made.iterdir())}
        table = "".join(f"| {name} | `{digest}` |\n" for name, digest in sums.items())
        text = f"{readme}\n## Files\n\n| File | SHA-256 |\n| --- | --- |\n{table}"
        (made / README_FILE).write_text(text, encoding="utf-8")
        sums[README_FILE] = _sha256(made / README_FILE)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
        (made / SUMS_FILE).write_text(lines, encoding="utf-8")
        mode = (made / SUMS_FILE).stat().st_mode  # some libraries hide what they write from others
        for path in made.iterdir():
            path.chmod(mode)
        if target.exists():
            target.rename(old)
        made.rename(target)
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (made, old):
            shutil.rmtree(folder, ignore_errors=True)
    return sorted(target.iterdir())


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
