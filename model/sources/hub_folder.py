"""A data set of the hub that is a folder: nothing outside of it is read, and no hidden file.

The fingerprint of the data is made of the files that are listed here, so that two folders with
equal fingerprints must give equal texts. The library `datasets` follows links, patterns and
addresses that the files of a folder name; what it found is compared with the list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.errors import CorpusError
from model.sources.files import SourceFile

_SETTINGS = ".huggingface.yaml"  # read by the library, but hidden and so in no fingerprint
# Readers of the library that read rows of the named files and nothing else.
_KINDS = ("arrow", "csv", "json", "parquet", "text")


def folder_files(root: Path) -> list[SourceFile]:
    """Return the files of a data set in a folder, without hidden ones.

    Raises:
        CorpusError: if a file of the folder links to something outside of it.
    """
    inside = {path.relative_to(root): path for path in root.rglob("*")}
    shown = {
        name: path
        for name, path in sorted(inside.items())
        if not any(part.startswith(".") for part in name.parts)  # .git, .cache
    }
    for path in shown.values():
        if path.is_symlink():
            _check_link(root, path)
    if (root / _SETTINGS).exists():
        raise _refused(root, f"{_SETTINGS} is a hidden file; move its contents to README.md")
    return [SourceFile(name.as_posix(), path) for name, path in shown.items() if path.is_file()]


def check_builder(root: Path, builder: Any) -> None:
    """Raise CorpusError if the library would read other files than those of the folder.

    Args:
        root: the folder.
        builder: of `datasets`, for the chosen configuration.
    """
    kind = type(builder).__module__.rsplit(".", 1)[-1]
    if kind not in _KINDS:
        raise _refused(
            root, f"it would be read as {kind}; give {', '.join(_KINDS)} files, or files: instead"
        )
    parts = (builder.config.data_files or {}).values()
    check_paths(root, (path for paths in parts for path in paths))


def check_paths(root: Path, paths: Iterable[str]) -> None:
    """Raise CorpusError if a path is none of the files of the folder."""
    own = {str(root.resolve() / file.name) for file in folder_files(root)}
    for path in map(os.path.normpath, paths):
        if path not in own:
            raise _refused(root, f"it names {path}, which is hidden or not a file of it")


def _refused(root: Path, reason: str) -> CorpusError:
    return CorpusError(f"data.hub: {root} cannot be read safely: {reason}")


def _check_link(root: Path, link: Path) -> None:
    """Allow links to files of the folder, and those that the cache of the hub consists of."""
    name = link.relative_to(root)
    if link.is_dir():
        raise _refused(root, f"{name} is a link to a folder; copy the folder there")
    folders = [root.resolve()]
    if root.resolve().parent.name == "snapshots":
        folders.append(root.resolve().parent.parent / "blobs")
    target = link.resolve()
    if target.is_file() and not any(target.is_relative_to(folder) for folder in folders):
        raise _refused(root, f"{name} is a link to {target}, outside of it; copy the file there")
