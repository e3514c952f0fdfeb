"""Spaces that users send: read as plain YAML, and refused if they name what the operator does not.

All drivers are our own code, so what a user may do is what a space may say. Files must lie in the
folders of `tuner serve --data`, storage in its buckets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import Mistake, SpaceError
from tuner.space.remarks import without_copies
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.space_file.yaml_file import Place, YamlFile
from tuner.texts.formatting import shown

_NAME = "search"  # of a space without one
_FILE = f"{_NAME}.yaml"  # stands for the text that a user sends
MayRead = Callable[[str], bool]  # may the user read this search?
UPLOADS = "uploads"


@dataclass(frozen=True)
class Allowed:
    """What a space may name.

    Attributes:
        folders: folders with data, tokenizers and checkpoints, resolved.
        buckets: URLs under which `engine.storage` may lie.
        hub: True if data may come from the Hugging Face hub.
    """

    folders: tuple[Path, ...] = ()
    buckets: tuple[str, ...] = ()
    hub: bool = False


def sent_space(
    data: bytes,
    folder: Path,
    allowed: Allowed,
    may_read: MayRead,
    earlier: Callable[[YamlFile], Sequence[Override]] | None = None,
) -> tuple[SearchSpace, str]:
    """Return the space that a user sent, and its text.

    Args:
        data: text of the file.
        folder: folder of the server, where relative paths begin: `uploads/…`.
        allowed: what a space may name.
        may_read: function that says if the user may read a search, for `init_from`.
        earlier: as for `read_space`.

    Raises:
        SpaceError: with every mistake.
    """
    path, text = folder / _FILE, decoded(data)
    try:
        file = YamlFile(path, text)
        # before anything reads the space: reading it looks for its files
        for place, message in _refused(file, folder, allowed, may_read):
            file.note(place, message)
        if file.mistakes:
            raise SpaceError(_FILE, file.mistakes)
        space, text = read_space(path, earlier=earlier, text=text)
    except SpaceError as error:
        raise SpaceError(_FILE, error.mistakes) from error
    return without_copies(space), text


def decoded(data: bytes) -> str:
    """Return a text that a user sent; raise SpaceError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start}; save the file as UTF-8"
        raise SpaceError(_FILE, [Mistake(1, 1, reason)]) from error


def naming(path: Path, text: str) -> list[str]:
    """Return arguments by which a driver names a space as `sent_space` does, not by its file.

    Args:
        path: path of the file that the driver reads.
        text: text of the file, which is a space.
    """
    is_named = YamlFile(path, text).value_at(("name",)) is not None
    return [] if is_named else ["--set", f"name={_NAME}"]


def hash_of(space: SearchSpace) -> str:
    """Return a digest of what a search would be, whatever its name and place."""
    values = space.model_dump(mode="json", exclude={"name": True, "engine": {"workers", "storage"}})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _refused(
    file: YamlFile, folder: Path, allowed: Allowed, may_read: MayRead
) -> Iterator[tuple[Place, str]]:
    """Yield the places of a file that name what they may not."""
    folders = (*allowed.folders, (folder / UPLOADS).resolve())
    hub, storage = file.value_at(("data", "hub")), file.value_at(("engine", "storage"))
    paths = [*_files(file), ("tokenizer", "file"), ("init_from", "checkpoint")]
    if isinstance(hub, str) and hub.startswith(("/", "~", ".")):
        paths.append(("data", "hub"))
    elif hub is not None and not allowed.hub:
        yield ("data", "hub"), "data.hub: this server reads no hub; use data.files or data.source"
    for place in paths:
        path = _value(file, place)
        if isinstance(path, str) and not _is_inside(path, folder, folders):
            places = ", ".join([*map(str, allowed.folders), "its uploads"])
            message = f"{shown(path)} is outside of what this server reads: {places}"
            yield place, f"{place[0]}.{place[1]}: {message}"
    if isinstance(storage, str) and not any(
        storage == bucket or storage.startswith(f"{bucket}/") for bucket in allowed.buckets
    ):
        named = ", ".join(allowed.buckets)
        message = f"storage must be in {named}" if named else "this server has no bucket"
        yield ("engine", "storage"), f"engine.storage: {message}"
    if file.value_at(("init_from", "run")) is not None:
        yield ("init_from", "run"), "init_from.run: name the search instead, init_from.search"
    search = file.value_at(("init_from", "search"))
    if isinstance(search, str) and not may_read(search):
        yield ("init_from", "search"), f"init_from.search: there is no search {shown(search)}"


def _files(file: YamlFile) -> list[Place]:
    """Return the places of `data.files`, which may be one path or a list of them."""
    files = file.value_at(("data", "files"))
    if isinstance(files, list):
        return [("data", "files", number) for number in range(len(files))]
    return [("data", "files")]


def _value(file: YamlFile, place: Place) -> object:
    value = file.value_at(place[:2])
    number = place[-1]
    return value[number] if isinstance(value, list) and isinstance(number, int) else value


def _is_inside(path: str, base: Path, folders: tuple[Path, ...]) -> bool:
    """Return True if a path, or all that a pattern can match, lies in one of some folders."""
    # `..` could follow a link, or what a pattern matches
    if "\0" in path or path.startswith("~") or ".." in Path(path).parts:
        return False
    resolved = (base / path).resolve()
    return any(resolved.is_relative_to(folder) for folder in folders)
