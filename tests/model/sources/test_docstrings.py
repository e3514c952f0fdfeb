"""Pairs of functions and summaries."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest

from model.errors import CorpusError
from model.sources.docstrings import Pair, docstring_pairs
from model.sources.registry import documents
from model.spec.data import DataConfig

CONFIG = DataConfig(source="python-docstrings")

LIBRARY = '''\
def plain(x):
    """Return x.

    And more.
    """
    return x


class Thing:
    """Not a function."""

    @property
    def name(self) -> str:
        """
        The name of it\x0c, with a form feed.
        """

        def inner():
            "What is inside."
            return """
    text that is kept
"""

        return inner()

    async def wait(self): \\
        # no docstring
        return None

    def only(self):
        """Nothing but this."""

    def short(self): "On the same line."; return 1
    def shared(self):
        "It shares a line."; return 1
    def empty(self):
        """   """
        return 2
    async def last(self):
        b"no docstring"
        return 3
'''

EXPECTED = [
    Pair("a.py#0", "def plain(x):\n    return x", "Return x."),
    Pair(
        "a.py#1",
        "@property\ndef name(self) -> str:\n    def inner():\n"
        '        "What is inside."\n        return """\ntext that is kept\n"""\n\n'
        "    return inner()",
        "The name of it\x0c, with a form feed.",
    ),
    Pair(
        "a.py#2",
        'def inner():\n    return """\n    text that is kept\n"""',
        "What is inside.",
    ),
]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    (tmp_path / "a.py").write_text(LIBRARY)
    (tmp_path / "b.py").write_text('def broken(:\n    """No."""\n    return\n')
    (tmp_path / "c.py").write_bytes(b'def latin():\n    """caf\xe9"""\n    return\n')
    (tmp_path / "d.py").write_text('def nul():\n    """\\d."""\n    return "\\d"\n\0')
    (tmp_path / "e.py").write_bytes(b'def f():\r\n    """Ends."""\r\n    return "\\d"\r\n')
    return tmp_path


def test_pairs_are_functions_and_their_first_lines(library: Path) -> None:
    assert list(docstring_pairs()) == [
        *EXPECTED,
        Pair("e.py#0", 'def f():\n    return "\\d"', "Ends."),
    ]


def test_a_pair_as_text_ends_with_the_summary(library: Path) -> None:
    first, *_, last = documents(CONFIG)
    assert first == ("a.py#0", 'def plain(x):\n    return x\n"""Return x."""\n', True)
    assert last.name == "e.py#0"


def test_a_pair_as_two_documents_is_source_and_target(library: Path) -> None:
    found = list(documents(CONFIG.model_copy(update={"pairs": True})))
    assert found[:2] == [
        ("a.py#0", "def plain(x):\n    return x", True),
        ("a.py#0", "Return x.", True),
    ]
    texts = [text for pair in docstring_pairs() for text in (pair.source, pair.target)]
    assert [document.text for document in found] == texts


def test_a_library_that_cannot_be_read_is_named(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CorpusError, match=r"cannot read .*a\.py: Permission denied"):
        list(docstring_pairs())


@pytest.mark.slow
def test_pairs_of_the_library_are_many_and_parse() -> None:
    pairs = list(docstring_pairs())
    assert len({pair.name for pair in pairs}) == len(pairs) > 3000
    assert all(pair.target == pair.target.strip() and "\n" not in pair.target for pair in pairs)
    unparsed = 0
    for pair in pairs:
        try:
            ast.parse(pair.source)
        except SyntaxError:
            unparsed += 1
    assert unparsed < len(pairs) / 200
