"""A data set of the hub that is a folder: nothing outside of it is read, and no unnamed file.

The fingerprint of the data is made of the files that are listed here, so that two folders with
equal fingerprints must give equal texts. The library `datasets` follows links, patterns and
addresses that the files of a folder name; whatever leads out of the folder is refused.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from model.errors import CorpusError
from model.sources.files import SourceFile
from model.sources.limits import too_long
from model.sources.streams import BLOCK, blocks, unreadable

_CARD = "README.md"
_SETTINGS = ".huggingface.yaml"  # read by the library, but hidden and so in no fingerprint
_STATE = "state.json"  # of a data set that was saved
_LARGEST_CARD = 2**22
_FRONT_MATTER = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---(?:\r?\n|$)", re.DOTALL)
# Readers of the library that read rows of the named files and nothing else.
_KINDS = ("arrow", "csv", "json", "parquet", "text")
_OPENERS: dict[str, Any] = {".bz2": bz2.open, ".xz": lzma.open}


def folder_files(root: Path) -> list[SourceFile]:
    """Return the files of a data set in a folder, without hidden ones.

    Raises:
        CorpusError: if a file of the folder names or links to something outside of it.
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
        raise _refused(root, f"{_SETTINGS} is a hidden file; move its contents to {_CARD}")
    try:
        _check_paths(root, _CARD, _card_paths(root / _CARD))
        _check_paths(root, _STATE, _state_paths(root / _STATE))
    except OSError as error:
        raise unreadable(error.filename or root, error) from error
    return [SourceFile(name.as_posix(), path) for name, path in shown.items() if path.is_file()]


def check_builder(root: Path, builder: Any, longest: int) -> None:
    """Raise CorpusError if the library would read other files than those of the folder.

    Args:
        root: the folder.
        builder: of `datasets`, for the chosen configuration.
        longest: characters of the longest row.
    """
    kind = type(builder).__module__.rsplit(".", 1)[-1]
    if kind not in _KINDS:
        raise _refused(
            root, f"it would be read as {kind}; give {', '.join(_KINDS)} files, or files: instead"
        )
    named = {str(root.resolve() / file.name): file.path for file in folder_files(root)}
    settings = builder.config
    is_whole = getattr(settings, "field", None) or getattr(settings, "sample_by", "line") != "line"
    for parts in (settings.data_files or {}).values():
        for part in map(os.path.normpath, parts):
            if part not in named:
                raise _refused(root, f"it names {part}, which is hidden or not a file of it")
            if kind in ("csv", "json", "text"):
                status = named[part].stat()
                _check_rows(
                    named[part], (status.st_size, status.st_mtime_ns), longest, bool(is_whole)
                )


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


def _check_paths(root: Path, source: str, paths: Iterable[str]) -> None:
    for path in paths:
        pure = PurePosixPath(path)
        if (
            pure.is_absolute()
            or path.startswith("~")
            or ".." in pure.parts
            or "::" in path
            or ("://" in path)
        ):
            raise _refused(root, f"{source} names {path!r}, outside of it; copy the data there")


def _card_paths(card: Path) -> Iterator[str]:
    """Yield the files and folders that the head of a README.md names."""
    if not card.is_file():
        return
    with card.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(_LARGEST_CARD)
    head = _FRONT_MATTER.match(text)
    if not head:
        return
    try:
        facts = yaml.load(head[1], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _refused(card.parent, f"{_CARD} has no valid head ({reason})") from error
    configs = facts.get("configs") if isinstance(facts, dict) else None
    for config in configs if isinstance(configs, list) else ():
        if isinstance(config, dict):
            yield from _texts([config.get("data_files"), config.get("data_dir")])


def _state_paths(state: Path) -> Iterator[str]:
    """Yield the files that the state of a saved data set names."""
    if not state.is_file():
        return
    try:
        contents = json.loads(state.read_text(encoding="utf-8"))
        yield from (str(file["filename"]) for file in contents["_data_files"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise _refused(state.parent, f"{_STATE} is not that of a saved data set") from error


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested lists and dicts, each object once: YAML can repeat one by name."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list | dict) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each if isinstance(each, list) else each.values())


@lru_cache(maxsize=4096)
def _check_rows(path: Path, _state: tuple[int, int], longest: int, is_whole: bool) -> None:
    """Raise CorpusError for a line with more bytes than the longest row has characters.

    The library keeps a line in memory, whatever its length, and all of a file that is one list.

    Args:
        path: the file.
        _state: its size and time of change, so that it is read again after a change.
        longest: characters of the longest row.
        is_whole: True if the library reads the file at once.
    """
    size, number = 0, 0
    for block in _bytes(path):
        if not size and not number:
            is_whole = is_whole or block.lstrip()[:1] == b"["
        first, *more = [block] if is_whole else block.split(b"\n")
        size += len(first)
        if size > longest or (more and max(map(len, more)) > longest):
            raise too_long(f"data.hub: {path}: line {number + 1} or one soon after it", longest)
        if more:
            number, size = number + len(more), len(more[-1])


def _bytes(path: Path) -> Iterator[bytes]:
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        yield from blocks(path)
        return
    try:
        with opener(path) as file:
            while block := file.read(BLOCK):
                yield block
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CorpusError(f"data.hub: {path} is damaged ({error}); download it again") from error
