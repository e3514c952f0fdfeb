"""Identity of a source: a digest of its options and files, and the difference of two sources."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model.errors import CorpusError
from model.files import read_regular, replacing
from model.sources.files import SourceFile
from model.sources.formats import TEXT_FORMATS
from model.sources.hub import commit, hub_name, local_files
from model.sources.registry import source_files
from model.sources.streams import format_suffix, unreadable
from model.spec.data import DataConfig

# Version of the rules that make documents of files; raised when they change.
_RULES = 1
# A file modified less than this ago may change again with an equal modification time, because
# file systems store times coarsely: its digest is not remembered.
_RACY_NS = 2_000_000_000

_Entry = tuple[int, int, str]  # size, time of change in ns, SHA-256


class FileDigest(NamedTuple):
    """Name, size and digest of a file of a source.

    Attributes:
        name: name of the file within the source, the beginning of the names of its documents.
        bytes: size of the file.
        sha256: SHA-256 of the file on disk; the commit of a data set of the hub.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a source.

    Attributes:
        digest: SHA-256 of the options that change documents, and of names and contents of the
            files; the folder of the files and the split of the documents do not count.
        files: the files, to name those that changed.
    """

    digest: str
    files: tuple[FileDigest, ...]


def fingerprint(config: DataConfig, memo: Path | None = None) -> Fingerprint:
    """Compute the identity of a source from all its files, or from the commit of its data set.

    Args:
        config: the source.
        memo: file that keeps digests, so that later calls need not read all files again. A file
            counts as unchanged if its path, size and modification time are. None reads all files.

    Raises:
        CorpusError: if a file cannot be read, or the hub cannot be reached.
    """
    local = local_files(config) if config.hub else source_files(config)
    if local is None:
        # The commit identifies the contents.
        files: tuple[FileDigest, ...] = (FileDigest(hub_name(config), 0, commit(config)),)
    else:
        files = _digests(local, memo)
    options = _options(config, files)
    if config.multiple_choice is not None:  # no document
        path = Path(config.multiple_choice)
        files += _digests([SourceFile(f"multiple choice {path.name}", path)], memo)
    sha = hashlib.sha256()
    for line in (_RULES, options, [[f.name, f.sha256] for f in files]):
        sha.update(json.dumps(line).encode() + b"\n")
    return Fingerprint(sha.hexdigest(), files)


def _options(config: DataConfig, files: Sequence[FileDigest]) -> dict[str, str | bool | None]:
    """Return the options that change the documents of these files."""
    options: dict[str, str | bool | None] = {"kind": config.kind}
    if config.pairs:
        options["pairs"] = True
    if config.files:
        suffixes = {format_suffix(Path(file.name)) for file in files}
        options["errors"] = config.errors
        if config.examples:
            return options | {"examples": True}
        if config.pairs:
            return options | {
                "source_field": config.source_field,
                "target_field": config.target_field,
            }
        if suffixes & set(TEXT_FORMATS):
            options["separator"] = config.separator
        if ".jsonl" in suffixes:
            options["field"] = config.field
        if suffixes & {".csv", ".tsv", ".parquet"}:
            options["column"] = config.column
    elif config.hub:
        options |= {
            "hub_config": config.hub_config,
            "split": config.split,
            "column": config.column,
        }
    return options


def difference(old: Sequence[FileDigest], new: Sequence[FileDigest]) -> str:
    """Describe the changes between two lists of files in one clause; empty if they are equal.

    Example: `a.txt changed, b.txt is gone, c.txt is new and 3 more`.
    """
    before, after = ({file.name: file.sha256 for file in files} for files in (old, new))
    changes = [
        f"{name} changed" for name in before if name in after and after[name] != before[name]
    ]
    changes += [f"{name} is gone" for name in before if name not in after]
    changes += [f"{name} is new" for name in after if name not in before]
    if not changes and [file.name for file in old] != [file.name for file in new]:
        return "the files are in another order"
    most = 3
    named = ", ".join(changes[:most])
    return named + (f" and {len(changes) - most} more" if len(changes) > most else "")


def _digests(files: Sequence[SourceFile], memo: Path | None) -> tuple[FileDigest, ...]:
    entries = _load(memo) if memo else {}
    new_entries: dict[str, _Entry] = {}
    digests = []
    try:
        for file in files:
            path = str(file.path.absolute())
            try:
                size, sha256, entry = _digest(file.path, entries.get(path))
            except OSError as error:
                raise unreadable(file.path, error) from error
            digests.append(FileDigest(file.name, size, sha256))
            if entry is not None and entry != entries.get(path):
                new_entries[path] = entry
    finally:
        # Also after an error or an interrupt: the digests computed so far need not be repeated.
        if memo and new_entries:
            _save(memo, new_entries)
    return tuple(digests)


def _digest(path: Path, remembered: _Entry | None) -> tuple[int, str, _Entry | None]:
    """Return size, SHA-256 and memo entry of a file; no entry if the file changed just now."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        is_settled = before.st_mtime_ns < time.time_ns() - _RACY_NS
        if is_settled and remembered and remembered[:2] == (before.st_size, before.st_mtime_ns):
            return before.st_size, remembered[2], remembered
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CorpusError(f"data: {path} changed while it was read; wait until it is written")
    entry = (after.st_size, after.st_mtime_ns, sha256)
    return after.st_size, sha256, entry if is_settled else None


def _load(memo: Path) -> dict[str, _Entry]:
    """Read the memo; return no entries if it is missing or damaged."""
    try:
        contents = json.loads(read_regular(memo))
        return {
            str(path): (int(size), int(changed), str(sha256))
            for path, (size, changed, sha256) in contents.items()
            if len(sha256) == 64
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _save(memo: Path, new_entries: dict[str, _Entry]) -> None:
    """Add entries to the memo atomically, and drop the entries of files that no longer exist.

    Entries that another process adds at the same moment may be lost: their files are then read
    again. A memo that cannot be written is not an error, either.
    """
    with suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        entries = {path: entry for path, entry in _load(memo).items() if os.path.exists(path)}  # noqa: PTH110 - strings, and many
        with replacing(memo) as file:
            file.write(json.dumps(entries | new_entries).encode())
