from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import SpaceError
from tuner.space_file.yaml_file import YamlFile


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def from_text(text: str | bytes) -> YamlFile:
        path = tmp_path / "file.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return YamlFile(path)

    return from_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000_000", 1_000_000),
        ("1_000.5", 1000.5),
        ("+7", 7),
        ("0x1F", "0x1F"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("'1e-4'", "1e-4"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("[1, [a]]", [1, ["a"]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("{1: x, null: y}", {"1": "x", "null": "y"}),
        ("0", 0),
        ("-0", 0),
        ("[&x {b: 1, c: 2}, {<<: *x, c: 3}]", [{"b": 1, "c": 2}, {"b": 1, "c": 3}]),
        ("[{a: 1, <<: {a: 2, b: 2}}]", [{"a": 1, "b": 2}]),
        ("{<<: [{a: 1}, {a: 2, b: 2}]}", {"a": 1, "b": 2}),
        ("{'<<': {a: 1}}", {"<<": {"a": 1}}),
        ("[&x 1, *x]", [1, 1]),
    ],
)
def test_yaml_reads_values_as_in_version_1_2(read: Any, text: str, value: Any) -> None:
    file = read(text)
    assert file.data == value
    assert type(file.data) is type(value)
    assert file.mistakes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [1, 2", (1, 9), "not valid YAML"),
        ("a: 1\n b: 2", (2, 3), "not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- 1", (2, 1), "cannot start any token"),
        ("a: *nothing", (1, 4), "undefined alias"),
        ("a: 1\n---\nb: 1", (2, 1), "another document"),
        ("a: &a [*a]", (1, 4), "an alias contains itself"),
        ("[" * 40 + "]" * 40, (1, 22), "nested more than 20 deep"),
        ("[" * 100_000, (1, 22), "nested more than 20 deep"),
        ("a: &a {<<: *a}", (1, 4), "an alias contains itself"),
        ("a: {<<: 1}", (1, 9), "<< takes a mapping or a list of mappings"),
        ("a: [" + "1," * 60_000 + "]", (1, 39999), "more than 10000 values"),
        ("a: x\x00y", (1, 5), "the character U+0000"),
        (b"\xff\xfe\x00", (0, 0), "not UTF-8 at byte 0"),
        ("a" * 200_001, (0, 0), "larger than 200 kB"),
        ("a" * 1_000_001, (0, 0), "larger than 200 kB"),
    ],
)
def test_yaml_refuses_unreadable_files(
    read: Any, text: str, where: tuple[int, int], message: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        read(text)
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.column) == where
    assert message in mistake.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: 1\na: 2", (2, 1), "a is given twice; keep one"),
        ("a: !!python/object/apply:os.system [ls]", (1, 4), "the tag !!python/object/apply:os"),
        ("a: !mine 1", (1, 4), "the tag !mine is not supported"),
        ("a: !!set {b}", (1, 4), "the tag !!set is not supported"),
        ("a: !!timestamp 2024-01-01", (1, 4), "the tag !!timestamp"),
        ("a: !!int x", (1, 4), "x is not a valid number, or is too large"),
        ("a: 010", (1, 4), "010 begins with 0, and YAML 1.1 reads such numbers as octal; write 10"),
        ("a: {<<: {b: 1e999}}", (1, 13), "1e999 is not a valid number, or is too"),
        ("a: 1e999", (1, 4), "1e999 is not a valid number, or is too"),
        ("a: " + "9" * 5000, (1, 4), "is not a valid number, or is too large"),
        ("a: !!float nan", (1, 4), "nan is not a valid number, or is too"),
        ("? [b]\n: 1", (1, 3), "a key must be a plain name"),
        ("? {b: 1}\n: 1", (1, 3), "a key must be a plain name"),
    ],
)
def test_yaml_notes_mistakes_and_reads_on(
    read: Any, text: str, where: tuple[int, int], message: str
) -> None:
    (mistake,) = read(text + "\nlast: 1").mistakes
    assert (mistake.line, mistake.column) == where
    assert message in mistake.message
    assert len(mistake.message) < 150


def test_yaml_stops_aliases_that_grow_without_end(read: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    started = time.thread_time()
    with pytest.raises(SpaceError, match="more than 10000 values"):
        read("\n".join(lines))
    assert time.thread_time() - started < 2


def test_yaml_refuses_paths_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"missing\.yaml: .*No such file"):
        YamlFile(tmp_path / "missing.yaml")


def test_yaml_ignores_a_byte_order_mark(read: Any) -> None:
    file = read(b"\xef\xbb\xbfa: 1")
    file.note(("a",), "here")
    assert file.data == {"a": 1}
    assert (file.mistakes[0].line, file.mistakes[0].column) == (1, 4)


def test_note_uses_nearest_place_once(read: Any) -> None:
    file = read("a:\n  b: [1, 2]\nc: 3")
    file.note(("a", "b", 1), "the two")
    file.note(("a", "b"), "follows from the two")
    file.note(("a", "x", "y"), "missing, so at a", at_key=True)
    file.note(("d",), "missing, so at the whole")
    assert [(m.line, m.column, m.message) for m in file.mistakes] == [
        (2, 10, "the two"),
        (1, 1, "missing, so at a"),
        (1, 1, "missing, so at the whole"),
    ]
    assert file.is_wrong("a") and file.is_wrong("x", "d") and not file.is_wrong("c")


@settings(max_examples=150)
@given(st.text(max_size=80) | st.text(alphabet="[]{}:,-?&*!|>'\"%@`# \n\tab01.", max_size=60))
def test_yaml_never_fails_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    try:
        YamlFile(path)
    except SpaceError as error:
        assert "\n" not in str(error)


def test_yaml_override_replaces_adds_and_is_named(read: Any) -> None:
    file = read("a: {b: 1, c: [1]}\nd: 2")
    for path, text in (("a.b", "1e-3"), ("a.x.y", "{log: [1, 2]}"), ("a.c", "")):
        file.override(f"--set {path}", path.split("."), text)
    assert file.data == {"a": {"b": 1e-3, "c": None, "x": {"y": {"log": [1, 2]}}}, "d": 2}
    file.note(("a", "x", "y", "log", 0), "too low")
    file.note(("a", "b"), "too small", at_key=True)
    file.note(("d",), "too large")
    assert [m.at("f") for m in file.mistakes] == [
        "--set a.x.y: too low",
        "--set a.b: too small",
        "f:2:4 too large",
    ]


def test_yaml_mistake_of_a_whole_names_the_overrides_inside(read: Any) -> None:
    file = read("a:\n  b: 1\n  c: 2\n")
    file.override("--set a.b", ["a", "b"], "3")
    file.note(("a",), "b does not fit c")
    assert file.mistakes[0].at("f") == "f:2:3 b does not fit c (with --set a.b)"


@pytest.mark.parametrize(
    ("content", "path", "text", "message"),
    [
        ("a: 1", "a.b", "2", "a is 1, so b cannot be set in it; set a itself"),
        ("[1]", "a", "2", "the file has no keys"),
        ("a: 1", "a", "[1, 2", "[1, 2 is not valid YAML; check brackets and quotes"),
        ("a: 1", "a", "x: y: z", "x: y: z is not valid YAML"),
        ("a: 1", "a", "1e999", "1e999 is not a valid number, or is too large"),
        ("a: 1", "a", "!!set {}", "the tag !!set is not supported; remove it"),
        ("a: 1", "a", "\x07", "is not valid YAML"),
    ],
)
def test_yaml_override_that_is_wrong_is_a_mistake_of_the_option(
    read: Any, content: str, path: str, text: str, message: str
) -> None:
    file = read(content)
    file.override(f"--set {path}", path.split("."), text)
    (mistake,) = file.mistakes
    assert mistake.at("f").startswith(f"--set {path}: ")
    assert message in mistake.message


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    """A named pipe without a writer, and /dev/zero, would never end."""
    path = {"pipe": tmp_path / "p.yaml", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    what = "a folder" if kind == "folder" else "a pipe or a device"
    with pytest.raises(SpaceError, match=f"^{path}: the search space must be a file, not {what}"):
        YamlFile(path)


def test_very_many_mistakes_end_the_reading(read: Any) -> None:
    file = read("a: 1")
    with pytest.raises(SpaceError) as caught:
        for number in range(1000):
            file.note((str(number),), f"mistake {number}")
    assert len(caught.value.mistakes) == 100
