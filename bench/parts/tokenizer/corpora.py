"""Corpora of tokenizer.py, as documents; all of them are on every machine."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data import topics

from model.sources.registry import documents
from model.spec.data import DataConfig

END = "<|endoftext|>"  # between documents
DOCSTRINGS_OF = ("numpy", "ray", "mlflow", "optuna", "pydantic")  # dependencies of tuner
QUICK_CHARACTERS = 300_000


def stdlib(is_quick: bool) -> tuple[str, list[str]]:
    """Return the default corpus of a search."""
    found = (document.text for document in documents(DataConfig()))
    return "source text of Python's standard library", _some(found, is_quick)


def prose(is_quick: bool) -> tuple[str, list[str]]:
    """Return English paragraphs of documentation that is installed with tuner."""
    manual = ([text] for _, text in sorted(topics.topics.items()))
    if is_quick:
        return "sentences of Python's manual (pydoc_data)", _some(_paragraphs(manual), True)
    sources = [document.text for document in documents(DataConfig())]
    for name in DOCSTRINGS_OF:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            files = sorted(Path(spec.origin).parent.rglob("*.py"))
            sources += [file.read_text("utf-8", errors="replace") for file in files]
    texts = _paragraphs([*manual, *map(_docstrings, sources)])
    what = "sentences of Python's manual and of the docstrings of its standard library and of "
    return what + ", ".join(DOCSTRINGS_OF), list(texts)


def _some(texts: Iterable[str], is_quick: bool) -> list[str]:
    found, size = list[str](), 0
    for text in texts:
        found.append(text.replace(END, ""))  # the standard library's tests may say anything
        size += len(text)
        if is_quick and size > QUICK_CHARACTERS:
            break
    return found


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # tests of the parser
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _paragraphs(groups: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield a document per group: its paragraphs of sentences, without repetitions."""
    seen = set()
    for texts in groups:
        kept = []
        for text in texts:
            for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
                line = " ".join(paragraph.split())
                letters = sum(map(str.isalpha, line)) + line.count(" ")
                if len(line) >= 100 and letters >= 0.92 * len(line) and line not in seen:
                    seen.add(line)
                    kept.append(line)
        if kept:
            yield "\n\n".join(kept)
