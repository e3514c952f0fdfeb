"""Pairs of the standard library: a function, and the first line of its docstring."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from model.sources.documents import Document, pair, pieces
from model.sources.files import library_files
from model.sources.streams import unreadable
from model.spec.data import DataConfig

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Pair(NamedTuple):
    """A source text, and the target text that follows from it.

    Attributes:
        name: unique; name of the file and number of the pair in the file.
        source: a function without its docstring.
        target: the first line of its docstring.
    """

    name: str
    source: str
    target: str


def docstring_pairs() -> Iterator[Pair]:
    """Yield the documented functions of the running interpreter's own standard library.

    Files that this Python cannot parse are left out, and functions with no code but a docstring.

    Yields:
        Pairs in the order of the files and of the lines.

    Raises:
        CorpusError: if a file cannot be read.
    """
    for file in library_files():
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise unreadable(file.path, error) from error
        try:
            text = data.decode("utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in the library's source
                tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError, ValueError):
            continue
        # The lines of the parser: `splitlines` would also split at form feeds.
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        functions = [node for node in ast.walk(tree) if isinstance(node, _Function)]
        functions.sort(key=lambda node: (node.lineno, node.col_offset))
        pairs = [texts for node in functions if (texts := _pair(node, lines)) is not None]
        for number, (source, target) in enumerate(pairs):
            yield Pair(f"{file.name}#{number}", source, target)


def _pair(node: _Function, lines: list[str]) -> tuple[str, str] | None:
    """Return source and target of a function; None if one of them is missing."""
    summary = (ast.get_docstring(node) or "").strip().split("\n")[0].strip()
    first, *rest = node.body
    if not summary or not rest or first.end_lineno is None or node.end_lineno is None:
        return None
    begin = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
    above = lines[begin : first.lineno - 1]
    below = lines[first.end_lineno : node.end_lineno]
    shares_a_line = first.lineno == node.lineno or rest[0].lineno == first.end_lineno
    if shares_a_line:
        return None
    while not below[0].strip():  # blank lines after the docstring
        del below[0]
    indent = " " * node.col_offset
    return "\n".join(line.removeprefix(indent) for line in above + below).rstrip(), summary


def documents_of_pairs(config: DataConfig) -> Iterator[Document]:
    """Yield each pair as two documents if `config.pairs` is set, otherwise as one document.

    The one document is the function, then the summary as a docstring.
    """
    for name, source, target in docstring_pairs():
        if config.pairs:
            yield from pair(name, source, target)
            continue
        for piece, ends in pieces(f'{source}\n"""{target}"""\n'):
            yield Document(name, piece, ends)
