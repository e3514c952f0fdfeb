"""Read YAML safely, remembering the line and column of every key and value.

YAML 1.2's scalars: `1e-4` is a number, and `on`, `off`, `yes`, `no` are texts. Merge keys,
`<<: *a`, are those of YAML 1.1.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import Mistake, SpaceError
from tuner.space_file.shipped import find_space, meaning_of
from tuner.texts.formatting import shown

Place = tuple[str | int, ...]  # keys and list indices on the way to a value

# Far more than a search space needs, but read in well under a second.
_MOST_BYTES = 200_000
_MOST_VALUES = 10_000
_DEEPEST = 20
_STREAMS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_MOST_MISTAKES = 100  # more are of no use to anyone
_TOO_MANY_VALUES = f"more than {_MOST_VALUES} values"
_TAG = "tag:yaml.org,2002:"


def _whole(text: str) -> int:
    digits = text.replace("_", "").lstrip("+-")
    if len(digits) > 1 and digits.startswith("0") and digits.isdecimal():
        raise ValueError(
            f"{shown(text)} begins with 0, and YAML 1.1 reads such numbers as octal; write "
            f"{shown(digits.lstrip('0') or '0')}"
        )
    if len(digits) > 16 or int(digits) > 2**53:  # from here on, whole numbers and floats differ
        raise ValueError
    return int(text.replace("_", ""))


def _real(text: str) -> float:
    number = float(text.replace("_", ""))
    if not math.isfinite(number):
        raise ValueError
    return number


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    f"{_TAG}null": lambda text: None,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}int": _whole,
    f"{_TAG}float": _real,
    f"{_TAG}str": str,
}


class _Loader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's scalars, to a bounded depth; constructs nothing."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML copies it before adding
    depth = 0
    num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.num_nodes += 1
        if self.depth > _DEEPEST or self.num_nodes > 2 * _MOST_VALUES:  # keys are nodes, too
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            is_deep = self.depth > _DEEPEST
            problem = f"nested more than {_DEEPEST} deep" if is_deep else _TOO_MANY_VALUES
            raise _error(problem, mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _error(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


for _name, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*$", list("-+0123456789")),  # 010 is ten, 0x1F a text
    (
        "float",  # .inf and .nan are texts: no value here may be infinite
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(_pattern), _first)


class YamlFile:
    """Contents of a YAML file, positions of its parts, and its mistakes.

    Attributes:
        name: path of the file as the user wrote it, or of the shipped study that the user named.
        text: text of the file.
        data: dicts, lists, finite numbers, texts, booleans and None.
        mistakes: noted mistakes; those of the YAML itself (repeated keys, tags) come first.

    Args:
        path: path of the file, or name of a shipped study.
        text: text of the file, if it has been read already.

    Raises:
        SpaceError: if the file is missing, too large, not UTF-8 or not YAML.
    """

    def __init__(self, path: str | Path, text: str | None = None) -> None:
        study = find_space(str(path))
        self.name = str(study or path)
        self._is_study = study is not None
        self.mistakes: list[Mistake] = []
        self._noted: list[Place] = []
        self._keys: dict[Place, yaml.Mark] = {}
        self._values: dict[Place, yaml.Mark] = {}
        self._options: dict[Place, str] = {}  # place of an override → its option
        self.text = text = self._read(Path(self.name)) if text is None else text
        try:
            node = _Loader(text).get_single_node()
            self.data: Any = None if node is None else self._build(node, (), ())
        except yaml.reader.ReaderError as error:
            before = text[: error.position].split("\n")
            message = f"not a text file: it contains the character U+{error.character:04X}"
            raise self._unreadable(message, len(before), len(before[-1]) + 1) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            message = f"not valid YAML: {error.problem}; check brackets, colons and indentation"
            raise self._unreadable(message, line, column) from error

    def override(self, option: str, path: Sequence[str], text: str) -> None:
        """Replace or add one value; mistakes in the value are reported for the option.

        Args:
            option: name of the option in messages.
            path: keys from the top to the value; missing mappings are created.
            text: the value, as YAML.
        """
        place: Place = tuple(path)
        self._options[place] = option
        try:
            node = _Loader(text).get_single_node()
            value = None if node is None else self._build(node, place, ())
        except yaml.YAMLError:
            self.note(place, f"{shown(text)} is not valid YAML; check brackets and quotes")
            return
        if self.data is None:
            self.data = {}
        inside = self.data
        for depth, key in enumerate(path):
            if not isinstance(inside, dict):
                above = ".".join(path[:depth])
                problem = f"{above} is {shown(inside)}" if above else "the file has no keys"
                fix = f"set {above} itself" if above else "check the path of the file"
                self.note(place, f"{problem}, so {key} cannot be set in it; {fix}")
                return
            if depth == len(path) - 1:
                inside[key] = value
            elif inside.get(key) is None:
                inside[key] = {}
            inside = inside[key]

    def value_at(self, place: Place) -> Any:
        """Return the value at a place; None if the file has none there."""
        value = self.data
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def folder(self, place: Place) -> Path:
        """Return the folder of relative paths: that of the file, or for options the current one."""
        is_typed = any(place[: len(path)] == path for path in self._options)
        is_elsewhere = is_typed or self.is_stream or self._is_study
        return Path.cwd() if is_elsewhere else Path(self.name).parent.absolute()

    def note(self, place: Place, message: str, *, at_key: bool = False) -> None:
        """Note a mistake at the value (or key) of a place, or at the nearest place above.

        A place that contains a mistake already gets no second one, because the second mistake would
        usually follow from the first.

        Raises:
            SpaceError: if the file has very many mistakes, which would take long to find and read.
        """
        if any(noted[: len(place)] == place for noted in self._noted):
            return
        if len(self.mistakes) >= _MOST_MISTAKES:
            raise SpaceError(self.name, self.mistakes)
        self._noted.append(place)
        marks = self._keys if at_key else self._values
        above = [option for path, option in self._options.items() if place[: len(path)] == path]
        inside = [option for path, option in self._options.items() if path[: len(place)] == place]
        if above or (inside and place not in marks):  # the file has no part of the value
            self.mistakes.append(Mistake(0, 0, message, (above or inside)[-1]))
            return
        if place and inside:  # the override may have caused the mistake
            message += f" (with {' and '.join(inside)})"
        mark = None
        for length in range(len(place), -1, -1):
            mark = mark or marks.get(place[:length]) or self._values.get(place[:length])
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.mistakes.append(Mistake(line, column, message))

    def is_wrong(self, *keys: str) -> bool:
        """Return True if a mistake was noted under one of some top-level keys."""
        return any(place[0] in keys for place in self._noted if place)

    @property
    def is_stream(self) -> bool:
        """True for a stream of the shell, `<(…)` or /dev/stdin, which has no folder."""
        return self.name.startswith(_STREAMS)

    def _unreadable(self, message: str, line: int = 0, column: int = 0) -> SpaceError:
        return SpaceError(self.name, [Mistake(line, column, message)])

    def _read(self, path: Path) -> str:
        try:
            kind = path.stat().st_mode
            # Reading a named pipe or a device may never end; the shell has opened its own pipes.
            if not stat.S_ISREG(kind) and not (stat.S_ISFIFO(kind) and self.is_stream):
                what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
                raise self._unreadable(f"the search space must be a file, not {what}; give a file")
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            fix = meaning_of(self.name) or "; check the path"
            reason = f"cannot read the search space: {error.strerror}{fix}"
            raise self._unreadable(reason) from error
        except ValueError as error:  # NUL in the path
            raise self._unreadable("not a path; check it") from error
        if len(data) > _MOST_BYTES:
            raise self._unreadable(
                f"larger than {_MOST_BYTES // 1000} kB, the limit of a search space; check the path"
            )
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 at byte {error.start}; save the file as UTF-8"
            raise self._unreadable(reason) from error

    def _build(self, node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> Any:
        if node in above:
            raise _error("an alias contains itself", node.start_mark)
        if len(self._values) >= _MOST_VALUES:  # aliases of aliases can grow without end
            raise _error(_TOO_MANY_VALUES, node.start_mark)
        self._values[place] = node.start_mark
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._build_mapping(node, place, (*above, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._build(n, (*place, i), (*above, node)) for i, n in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            tag = node.tag.replace(_TAG, "!!")
            self.note(place, f"the tag {shown(tag)} is not supported; remove it")
            return None
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError as error:
            octal = str(error) if "octal" in str(error) else ""
            self.note(place, octal or f"{shown(node.value)} is not a valid number, or is too large")
            return None

    def _build_mapping(
        self, node: yaml.MappingNode, place: Place, above: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                self._merge(result, value_node, place, above)
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            self._keys[*place, key or ""] = key_node.start_mark
            if not key:
                self.note((*place, ""), "a key must be a plain name", at_key=True)
                continue
            if key in own:
                self.note((*place, key), f"{shown(key)} is given twice; keep one", at_key=True)
            own.add(key)
            result[key] = self._build(value_node, (*place, key), above)
        return result

    def _merge(
        self, result: dict[str, Any], node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]
    ) -> None:
        """Add the keys of one mapping, or of a list of mappings, of which earlier ones win."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for each in nodes:
            if not isinstance(each, yaml.MappingNode):
                raise _error("<< takes a mapping or a list of mappings", each.start_mark)
            mark = self._values[place]
            merged = self._build(each, place, above)
            self._values[place] = mark
            for key, value in merged.items():
                result.setdefault(key, value)


def composed(text: str) -> yaml.Node | None:
    """Return the nodes of a text that a `YamlFile` has read, with their places; None if empty."""
    return _Loader(text).get_single_node()


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and node.style is None


def whole_if_equal(value: Any) -> Any:
    """Return a whole float as an int: `1e6` in YAML is a float, but means a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
