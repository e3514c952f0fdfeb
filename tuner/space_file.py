"""Read a search-space file: YAML to a `SearchSpace`, or all mistakes, each with its place.

hyperparameters:
  α_max:     {log: [1e-4, 3e-2]}
  α_min:     {fraction_of: α_max, log: [0.01, 0.5]}
  B:         {choice: [8, 16, 32]}
  optimizer: adamw
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from model.data_config import DataConfig
from model.hyperparameters import find_row
from model.tokenizer_config import TokenizerConfig
from tuner.entries import EntryReader
from tuner.errors import SpaceError
from tuner.init_from import InitFromConfig
from tuner.messages import broken_rule, shown, unknown
from tuner.overrides import Override, annotated
from tuner.parameters import Parameter
from tuner.space import Budget, EngineConfig, Objective, SearchConfig, SearchSpace
from tuner.space_checks import SpaceChecks
from tuner.yaml_file import YamlFile, whole_if_equal

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "init_from": InitFromConfig,
    "budget": Budget,
    "engine": EngineConfig,
    "search": SearchConfig,
    "objective": Objective,
}
_KEYS = ("name", "model", "hyperparameters", *_SECTIONS)


def load_space(path: str | Path, overrides: Sequence[Override] = ()) -> SearchSpace:
    """Read a search-space file.

    Args:
        path: of the file.
        overrides: values instead of those in it.

    Raises:
        SpaceError: with every mistake of the file and the overrides.
    """
    return read_space(path, overrides)[0]


def read_space(path: str | Path, overrides: Sequence[Override] = ()) -> tuple[SearchSpace, str]:
    """The same, and the text that it was read from, overrides included.

    The file is read once: it may be a pipe, or change while a search runs.
    """
    file = YamlFile(path)
    for override in overrides:
        file.override(override.option, _as_spelled(override.path, file.data), override.text)
    entries = EntryReader(file)
    space = _read(file, entries)
    if space is not None:
        SpaceChecks(space, file, entries.places).run()
    if space is None or file.mistakes:
        raise SpaceError(file.name, file.mistakes)
    return space, annotated(file.text, overrides)


def _as_spelled(path: tuple[str, ...], data: Any) -> tuple[str, ...]:
    """A path to a hyperparameter under the name that the file already gives to it."""
    if path[0] != "hyperparameters" or len(path) == 1 or not isinstance(data, dict):
        return path
    row, given = find_row(path[1]), data.get("hyperparameters")
    same = [k for k in given if find_row(k) is row] if row and isinstance(given, dict) else []
    return ("hyperparameters", same[0], *path[2:]) if same else path


def _read(file: YamlFile, entries: EntryReader) -> SearchSpace | None:
    """The space, with defaults where a section is wrong; None if a section may be missing."""
    data = file.data
    if not isinstance(data, dict):
        what = "the file is empty" if data is None else "the file holds no keys"
        file.note((), f"{what}; a search space has the keys {', '.join(_KEYS)}")
        return None
    for key in data:
        if key not in _KEYS:
            file.note((key,), unknown("key", key, _KEYS), at_key=True)
    sections = {
        name: _section(file, name, kind, data[name])
        for name, kind in _SECTIONS.items()
        if data.get(name) is not None
    }
    parts: dict[str, Any] = {name: part for name, part in sections.items() if part is not None}
    parts["model"] = _parameters(file, "model", entries.size)
    parts["hyperparameters"] = _parameters(file, "hyperparameters", entries.row)
    parts["name"] = _name(file, data.get("name"))
    return SearchSpace(**parts) if set(data) <= set(_KEYS) else None


def _name(file: YamlFile, name: Any) -> str:
    """The name as given, or one made from the file's."""
    if name is None:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(file.name).stem)
        return stem.lstrip("_.-")[:64] or "search"
    try:
        return SearchSpace.model_validate({"name": name}, strict=True).name
    except ValidationError as error:
        file.note(("name",), broken_rule("name", error.errors()[0]))
        return "search"


def _section(file: YamlFile, section: str, kind: type[BaseModel], data: Any) -> BaseModel | None:
    """A section of settings; None if it is wrong."""
    if not isinstance(data, dict):
        keys = ", ".join(kind.model_fields)
        file.note(
            (section,), f"{section} must be a mapping with the keys {keys}, got {shown(data)}"
        )
        return None
    if section == "data":
        data = _located_files(file, data)
    elif section == "tokenizer" and "file" in data:
        if len(data) > 1:
            message = "tokenizer: a file has its vocab_size and pattern; leave out either"
            file.note((section,), message)
            return None
        data = _located(file, section, data, "file")
    elif section == "init_from":
        data = _located(file, section, data, "checkpoint")
    try:
        return kind.model_validate({k: whole_if_equal(v) for k, v in data.items()}, strict=True)
    except ValidationError as error:
        for item in error.errors():
            place = (section, *item["loc"])
            if item["type"] == "extra_forbidden":
                message = unknown(f"key in {section}:", item["loc"][-1], kind.model_fields)
                file.note(place, message, at_key=True)
            else:
                field = ".".join(map(str, place[:2]))
                file.note(place, broken_rule(field, item))
        return None


def _located_files(file: YamlFile, data: dict[str, Any]) -> dict[str, Any]:
    """Paths are meant from where the search-space file lies, or the command line was typed."""
    here = file.folder(("data", "hub"))
    hub, files = data.get("hub"), data.get("files")
    if isinstance(hub, str) and "\0" not in hub and (here / hub).is_dir():
        data = data | {"hub": str(here / hub)}
    if isinstance(files, str):
        files = [files]
    if not isinstance(files, list):
        return data
    here = file.folder(("data", "files"))
    return data | {"files": tuple(str(here / f) if isinstance(f, str) else f for f in files)}


def _located(file: YamlFile, section: str, data: dict[str, Any], key: str) -> dict[str, Any]:
    """The same for the path of one key."""
    path = data.get(key)
    if not isinstance(path, str) or not path:
        return data
    return data | {key: str(file.folder((section, key)) / path)}


def _parameters(
    file: YamlFile, section: str, read: Callable[[str, Any], list[Parameter]]
) -> dict[str, Parameter]:
    entries = file.data.get(section)
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        message = f"{section} must be a mapping from names to values or ranges"
        file.note((section,), f"{message}, got {shown(entries)}")
        return {}
    return {p.key: p for key, value in entries.items() for p in read(key, value)}
