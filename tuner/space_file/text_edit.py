"""Changes of single values in the text of a space file; comments and all else stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from model.spec.hyperparameters import find_symbol
from tuner.errors import Mistake, SpaceError
from tuner.space_file.overrides import Override
from tuner.space_file.yaml_file import YamlFile, composed

_LONGEST = 2_000  # characters of a value


def with_value(text: str, path: Sequence[str], value: str | None, name: str = "space") -> str:
    """Return the text of a space with one value replaced, added or removed.

    Args:
        text: the text.
        path: keys from the top to the value: `("budget", "tokens")`. A hyperparameter may have
            another spelling than in the text.
        value: the value as YAML, on one line; None to remove it.
        name: name of the file in messages.

    Raises:
        SpaceError: if the text or the value is no YAML, or the place is not one where this can be
            done; then the text must be edited by hand.
    """
    file = YamlFile(name, text)
    place = as_spelled(tuple(path), file.data)
    where = ".".join(place)
    if value is not None and not _is_one_value(value):
        raise SpaceError(name, [Mistake(0, 0, f"{where}: {value[:80]} is not one YAML value")])
    changed = _changed(text, composed(text), place, value)
    if changed is not None:
        wanted = None if value is None else YamlFile(name, f"value: {value}\n").data["value"]
        try:
            after = YamlFile(name, changed)
            is_done = after.value_at(place) == wanted and not after.mistakes
        except SpaceError:
            is_done = False
        if is_done:
            return changed
    raise SpaceError(name, [Mistake(0, 0, f"{where} cannot be set here; edit the text")])


def with_values(text: str, overrides: Iterable[Override]) -> str:
    """Return the text of a space with the values of overrides in their places.

    Raises:
        SpaceError: as `with_value`.
    """
    for override in overrides:
        value = override.text.replace("\n", " ").strip() or "null"
        text = with_value(text, override.path, value)
    return text


def as_spelled(path: tuple[str, ...], data: Any) -> tuple[str, ...]:
    """Return a path whose hyperparameter has the spelling that the file already uses."""
    if path[0] != "hyperparameters" or len(path) == 1 or not isinstance(data, dict):
        return path
    symbol, entries = find_symbol(path[1]), data.get("hyperparameters")
    if symbol is None or not isinstance(entries, dict):
        return path
    same = [key for key in entries if find_symbol(key) is symbol]
    return ("hyperparameters", same[0], *path[2:]) if same else path


def _is_one_value(value: str) -> bool:
    if "\n" in value or len(value) > _LONGEST or not value.strip():
        return False
    try:
        return isinstance(YamlFile("value", f"value: {value}\n").data, dict)
    except SpaceError:
        return False


def _changed(
    text: str, node: yaml.Node | None, path: Sequence[str], value: str | None
) -> str | None:
    """Return the changed text; None if the path does not lead through mappings."""
    if node is None:
        return text if value is None else f"{text.rstrip()}\n{_entry(path, value)}\n".lstrip("\n")
    if not isinstance(node, yaml.MappingNode):
        return None
    found = next((pair for pair in node.value if pair[0].value == path[0]), None)
    if found is None:
        return text if value is None else _added(text, node, _entry(path, value))
    inner = found[1]
    is_empty = isinstance(inner, yaml.ScalarNode) and inner.value == "" and inner.style is None
    if len(path) > 1 and not is_empty:
        return _changed(text, inner, path[1:], value)
    if value is None:
        return _removed(text, node, found) if len(path) == 1 else text
    new = value if len(path) == 1 else f"{{{_entry(path[1:], value)}}}"
    start, end = inner.start_mark.index, _end(text, inner)
    space = " " if text[start - 1 : start] == ":" else ""
    return f"{text[:start]}{space}{new}{text[end:]}"


def _entry(path: Sequence[str], value: str) -> str:
    """Return an entry as text: `budget: {tokens: 1000}`."""
    inner = value if len(path) == 1 else f"{{{_entry(path[1:], value)}}}"
    key = path[0] if path[0].isidentifier() else json.dumps(path[0], ensure_ascii=False)
    return f"{key}: {inner}"


def _added(text: str, node: yaml.MappingNode, entry: str) -> str:
    """Return the text with one more entry at the end of a mapping."""
    if node.flow_style:
        last = node.value[-1][1].end_mark.index if node.value else node.start_mark.index + 1
        return f"{text[:last]}{', ' if node.value else ''}{entry}{text[last:]}"
    key, value = node.value[-1]
    end = text.find("\n", _end(text, value))
    head, tail = (text.rstrip("\n"), "\n") if end < 0 else (text[:end], text[end:])
    return f"{head}\n{' ' * key.start_mark.column}{entry}{tail}"


def _removed(text: str, node: yaml.MappingNode, entry: tuple[yaml.Node, yaml.Node]) -> str:
    """Return the text without an entry of a mapping."""
    place = node.value.index(entry)
    if len(node.value) == 1:
        return f"{text[: node.start_mark.index]}{{}}{text[_end(text, node) :]}"
    start, end = entry[0].start_mark.index, _end(text, entry[1])
    if not node.flow_style:
        start = text.rfind("\n", 0, start) + 1
        stop = text.find("\n", end)
        return text[:start] + ("" if stop < 0 else text[stop + 1 :])
    if place:
        return text[: node.value[place - 1][1].end_mark.index] + text[end:]
    return text[:start] + text[node.value[1][0].start_mark.index :]


def _end(text: str, node: yaml.Node) -> int:
    """Return the end of a value; the end of a block is that of its last value."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())
    return end
