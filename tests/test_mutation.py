"""The mutants that `tests/mutation.py` plants: behaviour changes, texts and types do not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.sites import draw_mutants, sites


def mutated(tmp_path: Path, source: str) -> list[str]:
    (tmp_path / "a.py").write_text(source)
    text = source.encode()
    return [
        (text[: site.start] + change.encode() + text[site.end :]).decode()
        for site in sites(tmp_path, "a.py")
        for change in site.changes
    ]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("α < b", ["(α <= b)", "(α >= b)"]),
        ("a == b != c", ["(a != b != c)", "(a == b == c)"]),
        ("a + b // c", ["(a - b // c)", "a + (b * c)"]),
        ("a and not b", ["(a or not b)", "a and (b)"]),
        ("x = 3", ["x = (4)", "x = (2)"]),
        ("x = True", ["x = False"]),
        ("x = a if b else c", ["x = (c if b else a)"]),
        ("x = f(a, b)", ["x = f(b, a)"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("f()\nx.y = z", ["pass\nx.y = z", "f()\npass"]),
        ("x += y", ["pass", "x -= y"]),
        ("raise E(1 + 1)", ["pass"]),
        ("def f():\n    return x", ["def f():\n    return None"]),
    ],
)
def test_each_kind_of_behaviour_is_changed(tmp_path: Path, source: str, changed: list[str]) -> None:
    assert mutated(tmp_path, source) == changed


@pytest.mark.parametrize(
    "source",
    [
        '"""Docstring, 1 < 2."""',
        "x: Literal[1] | None",
        "def f(x: int | None) -> Literal[1]: ...",
        "@dataclass(frozen=True)\nclass A(B, frozen=True): ...",
        'x = f"{a + 1}"',
        'x = "a" + b + c',
        "logger.warning(text, 1)",
        "assert a < 1",
        "if TYPE_CHECKING:\n    x = 1",
        "x = isinstance(a, B | C)",
        "x = int | None",
    ],
)
def test_texts_and_types_are_not_changed(tmp_path: Path, source: str) -> None:
    assert mutated(tmp_path, source) == []


def test_mutants_are_other_programs_and_repeat(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    source = Path(__file__).with_name("mutations.py").read_text()
    (tmp_path / "room" / "a.py").write_text(source)
    mutants = draw_mutants(tmp_path, ["room"], 50, seed=0)
    assert mutants == draw_mutants(tmp_path, ["room"], 50, seed=0)
    assert mutants != draw_mutants(tmp_path, ["room"], 50, seed=1)
    assert len({mutant.site.start for mutant in mutants}) > 40
    for mutant in mutants:
        site, text = mutant.site, source.encode()
        assert text[site.start : site.end].decode() == mutant.before
        changed = text[: site.start] + mutant.after.encode() + text[site.end :]
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
