"""Read a search-space file: YAML to a `SearchSpace`, or all mistakes with their positions.

hyperparameters:
  α_max:     {log: [1e-4, 3e-2]}
  α_min:     {fraction_of: α_max, log: [0.01, 0.5]}
  B:         {choice: [8, 16, 32]}
  optimizer: adamw
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from model.errors import CorpusError
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.hyperparameters import find_symbol
from model.spec.lora import DEFAULT_RANK
from tuner.errors import SpaceError
from tuner.space.objective import Compare, Objective
from tuner.space.parameter import LORA_KEYS, SIZES, Parameter
from tuner.space.proposals import is_table
from tuner.space.settings import (
    Budget,
    Confirm,
    EngineConfig,
    InitFromConfig,
    Proxy,
    SearchConfig,
    ascend,
)
from tuner.space.space import SearchSpace
from tuner.space_file.checks.rules import check
from tuner.space_file.entries import EntryReader
from tuner.space_file.overrides import Override, annotated
from tuner.space_file.text_edit import as_spelled
from tuner.space_file.yaml_file import Place, YamlFile, whole_if_equal
from tuner.texts.formatting import broken_rule, shown, unknown

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "init_from": InitFromConfig,
    "budget": Budget,
    "proxy": Proxy,
    "engine": EngineConfig,
    "search": SearchConfig,
    "compare": Compare,
    "confirm": Confirm,
    "objective": Objective,
}
_KEYS = ("name", "model", "lora", "hyperparameters", *_SECTIONS)


def load_space(path: str | Path, overrides: Sequence[Override] = ()) -> SearchSpace:
    """Read a search-space file.

    Args:
        path: path of the file, or name of a shipped study such as `lm`.
        overrides: values that replace those of the file.

    Raises:
        SpaceError: with every mistake of the file and the overrides.
    """
    return read_space(path, overrides)[0]


def read_space(
    path: str | Path,
    overrides: Sequence[Override] = (),
    earlier: Callable[[YamlFile], Sequence[Override]] | None = None,
    text: str | None = None,
) -> tuple[SearchSpace, str]:
    """Return the space of a file, and the text of the file with the overrides.

    The file is read once: it may be a pipe, or change while a search runs.

    Args:
        path: as for `load_space`.
        overrides: as for `load_space`.
        earlier: function from the file to overrides of an earlier session, which come first.
        text: text of the file, if it has been read already; relative paths begin at its folder.

    Raises:
        SpaceError: with every mistake of the file and the overrides.
    """
    file = YamlFile(path, text)
    overrides = [*(earlier(file) if earlier else ()), *overrides]
    _override(file, overrides)
    entries = EntryReader(file)
    space = _read(file, entries)
    if space is not None:
        check(space, file, entries.places)
    if space is None or file.mistakes:
        raise SpaceError(file.name, file.mistakes)
    return space, annotated(file.text, overrides)


def located(
    error: CorpusError, path: str, overrides: Sequence[Override] = ()
) -> CorpusError | SpaceError:
    """Return an error of the data or the tokenizer with its place in the file of a space.

    An error of something else, or of a stream, which cannot be read again, is returned unchanged.

    Args:
        error: error whose message begins with the key, `data.hub: …`.
        path: as for `load_space`.
        overrides: as for `load_space`.
    """
    key = re.match(r"(data|tokenizer)(?:\.(\w+))?: ", str(error))
    try:
        file = YamlFile(path)
        if key is None or file.is_stream:
            return error
        _override(file, overrides)
    except SpaceError:
        return error
    file.note(tuple(filter(None, key.groups())), str(error))
    return SpaceError(file.name, file.mistakes)


def _override(file: YamlFile, overrides: Sequence[Override]) -> None:
    for override in overrides:
        file.override(override.option, as_spelled(override.path, file.data), override.text)


def _read(file: YamlFile, entries: EntryReader) -> SearchSpace | None:
    """Return the space, with defaults for wrong sections; None if a key is unknown.

    An unknown key may be a misspelled section, whose defaults would cause further mistakes.
    """
    data = file.data
    if not isinstance(data, dict):
        what = "the file is empty" if data is None else "the file has no keys"
        file.note((), f"{what}; a search space has the keys {', '.join(_KEYS)}")
        return None
    for key in data:
        if key not in _KEYS:
            section = _section_of(key)
            fix = f"unknown key {shown(key)}; did you mean {section}.{key}?" if section else ""
            file.note((key,), fix or unknown("key", key, _KEYS), at_key=True)
    parts: dict[str, Any] = {}
    for name, kind in _SECTIONS.items():
        if name == "objective" and isinstance(data.get(name), list):
            parts |= _objectives(file, data[name])
        elif data.get(name) is not None:
            part = _section(file, (name,), kind, data[name])
            parts |= {name: part} if part is not None else {}
    parts["model"] = _parameters(file, "model", entries.size)
    parts["hyperparameters"] = _parameters(file, "hyperparameters", entries.hyperparameter)
    for parameter in _lora(file, entries):
        section = "model" if parameter.name in SIZES else "hyperparameters"
        parts[section] |= {parameter.key: parameter}
    parts["name"] = _name(file, data.get("name"))
    return SearchSpace(**parts) if set(data) <= set(_KEYS) else None


def _section_of(key: str) -> str:
    """Return the section that a key belongs to; empty if none has it."""
    if find_symbol(key):
        return "hyperparameters"
    if key in SIZES:
        return "model"
    return next((name for name, kind in _SECTIONS.items() if key in _keys_of(kind)), "")


def _name(file: YamlFile, name: Any) -> str:
    """Return the name in the file, or one made from the file name."""
    if name is None:
        if file.is_stream:
            return "search"
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(file.name).stem)
        return stem.lstrip("_.-")[:64] or "search"
    try:
        return SearchSpace.model_validate({"name": name}, strict=True).name
    except ValidationError as error:
        file.note(("name",), broken_rule("name", error.errors()[0]))
        return "search"


def _objectives(file: YamlFile, data: list[Any]) -> dict[str, Any]:
    """Return several objectives as fields of the space; empty if one of them is wrong."""
    if not data:
        file.note(("objective",), "objective must be a mapping, or a list of mappings, got []")
    read = [_section(file, ("objective", i), Objective, one) for i, one in enumerate(data)]
    objectives = [one for one in read if isinstance(one, Objective)]
    for i, one in enumerate(objectives):
        if one.metric in [other.metric for other in objectives[:i]]:
            file.note(("objective", i), f"{one.metric} is given twice as an objective; keep one")
    if file.is_wrong("objective"):
        return {}
    return {"objective": objectives[0], "further_objectives": tuple(objectives[1:])}


def _section(file: YamlFile, place: Place, kind: type[BaseModel], data: Any) -> BaseModel | None:
    """Return a section of settings; None if it is wrong."""
    section = cast(str, place[0])
    if section == "confirm" and (data == "off" or data is False):
        return Confirm(top=0)
    if not isinstance(data, dict):
        keys = ", ".join(_keys_of(kind))
        off = "off, or " if section == "confirm" else ""
        message = f"{section} must be {off}a mapping with the keys {keys}, got {shown(data)}"
        if section == "data" and isinstance(data, str):
            message = f"data must be a mapping such as {{files: {shown(data)}}}, got {shown(data)}"
        file.note(place, message)
        return None
    if section == "tokenizer" and "file" in data and len(data) > 1:
        message = (
            "tokenizer: file already determines vocab_size and pattern; give either file or them"
        )
        file.note(place, message)
        return None
    data = _prepared(file, section, data)
    try:
        return kind.model_validate({k: whole_if_equal(v) for k, v in data.items()}, strict=True)
    except ValidationError as error:
        for item in error.errors():
            where = (*place, *item["loc"])
            if item["type"] == "extra_forbidden":
                message = unknown(f"key in {section}:", item["loc"][-1], _keys_of(kind))
                file.note(where, message, at_key=True)
            else:
                field = ".".join(map(str, (section, *item["loc"][:1])))
                file.note(where, broken_rule(field, item))
        return None


def _keys_of(kind: type[BaseModel]) -> list[str]:
    """Return the keys of a section; `shorter` is a part of the list `tokens`."""
    return [key for key in kind.model_fields if (kind, key) != (Budget, "shorter")]


def _prepared(file: YamlFile, section: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return a section with absolute paths, and with points in the type of the model."""
    if section == "data":
        return _located_files(file, data)
    if section == "tokenizer":
        return _located(file, section, data, "file")
    if section == "init_from":
        return _located_model(file, _located(file, section, data, "checkpoint"))
    if section == "budget":
        return _budgets(file, data)
    if section == "compare" and (row := find_symbol(str(data.get("by")))):
        data = data | {"by": row.name}
    if section == "search" and "try_first" in data:
        data = data | {"try_first": _points(file, data["try_first"])}
    if section == "search" and isinstance(data.get("learn_from"), list):
        return data | {"learn_from": _sources(file, data["learn_from"])}
    return data


def _budgets(file: YamlFile, data: dict[str, Any]) -> dict[str, Any]:
    """Return `budget:` with the longest of a list of budgets, and the others by themselves."""
    if "shorter" in data:
        message = unknown("key in budget:", "shorter", _keys_of(Budget))
        file.note(("budget", "shorter"), f"{message}; give budget.tokens a list", at_key=True)
        return {}
    if not isinstance(data.get("tokens"), list):
        return data
    budgets = [whole_if_equal(value) for value in data["tokens"]]
    if not budgets or not ascend(budgets):
        message = "must be a number of tokens, or a list of them from the shortest to the longest"
        file.note(("budget", "tokens"), f"budget.tokens {message}, got {shown(data['tokens'])}")
        return {}
    return data | {"tokens": budgets[-1], "shorter": tuple(budgets[:-1])}


def _sources(file: YamlFile, names: list[Any]) -> list[Any]:
    """Return `learn_from` with absolute paths; names of searches and URLs stay as they are."""
    place: Place = ("search", "learn_from")
    return [
        str(_path(file, place, name))
        if isinstance(name, str) and is_table(name) and "://" not in name
        else name
        for name in names
    ]


def _points(file: YamlFile, data: Any) -> tuple[dict[str, Any], ...]:
    """Return the points of `try_first` that are mappings from names to values."""
    place: Place = ("search", "try_first")
    if not isinstance(data, list):
        message = "search.try_first must be a list of points, for instance [{α_max: 3e-3, B: 8}]"
        file.note(place, f"{message}, got {shown(data)}")
        return ()
    points = []
    for i, point in enumerate(data):
        if not isinstance(point, dict) or not point:
            message = "a point must be a mapping from names to values, for instance {α_max: 3e-3}"
            file.note((*place, i), f"search.try_first: {message}, got {shown(point)}")
            continue
        for key, value in point.items():
            if not isinstance(value, int | float | str):
                message = f"search.try_first: {key} must be one value, got {shown(value)}"
                file.note((*place, i, key), message)
        points.append({key: whole_if_equal(value) for key, value in point.items()})
    return tuple(points) if not file.is_wrong("search") else ()


def _located_files(file: YamlFile, data: dict[str, Any]) -> dict[str, Any]:
    """Return `data:` with absolute paths.

    Relative paths begin at the folder of the search-space file, or at the working directory if
    they come from the command line; `~` is the home folder.
    """
    data = _located(file, "data", data, "multiple_choice")
    hub, files = data.get("hub"), data.get("files")
    if isinstance(hub, str) and "\0" not in hub:
        path = _path(file, ("data", "hub"), hub)
        data = data | {"hub": str(path)} if path.is_dir() else data
    if isinstance(files, str):
        files = [files]
    if not isinstance(files, list):
        return data
    place: Place = ("data", "files")
    paths = (str(_path(file, place, f)) if isinstance(f, str) else f for f in files)
    return data | {"files": tuple(paths)}


def _located(file: YamlFile, section: str, data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section with an absolute path at one key."""
    path = data.get(key)
    if not isinstance(path, str) or not path:
        return data
    return data | {key: str(_path(file, (section, key), path))}


def _located_model(file: YamlFile, data: dict[str, Any]) -> dict[str, Any]:
    """Return `init_from:` with the absolute path of a model's folder; an id, owner/name, stays."""
    located = _located(file, "init_from", data, "huggingface")
    name, path = data.get("huggingface"), located.get("huggingface")
    is_id = isinstance(name, str) and name.count("/") == 1 and name.strip("./~") == name
    return data if is_id and not Path(str(path)).is_dir() else located


def _path(file: YamlFile, place: Place, path: str) -> Path:
    """Return the absolute path of a path that the user wrote at a place."""
    return file.folder(place) / os.path.expanduser(path)  # noqa: PTH111 - keeps ~ of no user


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


def _lora(file: YamlFile, entries: EntryReader) -> list[Parameter]:
    """Return the parameters of `lora:`, with a rank; none without the section, or if it is off."""
    data = file.data.get("lora")
    if "lora" not in file.data or data == "off" or data is False:
        return []
    if not isinstance(data, dict):
        message = f"lora must be off or a mapping with the keys {', '.join(LORA_KEYS)}"
        file.note(("lora",), f"{message}, got {shown(data)}")
        return []
    data = {"rank": DEFAULT_RANK} | data
    return [p for key, value in data.items() for p in _lora_entry(file, entries, key, value)]


def _lora_entry(file: YamlFile, entries: EntryReader, key: str, value: Any) -> list[Parameter]:
    if key not in LORA_KEYS:
        file.note(("lora", key), unknown("key in lora:", key, [*LORA_KEYS]), at_key=True)
        return []
    name, place = LORA_KEYS[key], ("lora", key)
    value = _joined_names(value) if key == "targets" else value
    read = entries.size if name in SIZES else entries.hyperparameter
    parameters = read(name, value, place)
    if key == "rank" and any(0 in p.distribution.ends() for p in parameters):
        file.note(place, "lora_rank must be at least 1, got 0; lora: off trains all weights")
    return parameters


def _joined_names(data: Any) -> Any:
    """Return targets of LoRA with each list of names as one text: [q_proj, v_proj] is a value."""
    if isinstance(data, dict):
        kinds = ("value", "choice", "grid")
        return {k: _joined_names(v) if k == "value" else
                [*map(_joined_names, v)] if k in kinds and isinstance(v, list) else v
                for k, v in data.items()}  # fmt: skip
    is_names = isinstance(data, list) and data and all(isinstance(v, str) for v in data)
    return ",".join(data) if is_names else data
