"""The shipped spaces, with the files that a user must bring written by the test; their data."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FOLDER = Path(__file__).parents[1] / "search_spaces"
# Name of a space → name of the text beside it, which is not shipped.
_BROUGHT = {"shakespeare": "input.txt"}
_SPEECHES = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak.\n\n"


def shipped(name: str, folder: Path) -> Path:
    """Return the path of a shipped space; of a copy in a folder, if it needs a text beside it."""
    path = FOLDER / f"{name}.yaml"
    if name not in _BROUGHT:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _BROUGHT[name]).write_text(_SPEECHES * 400, encoding="utf-8")
    copy = folder / path.name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return copy


def load_shipped(name: str, folder: Path) -> SearchSpace:
    """Load a shipped space, as `shipped` finds it."""
    return load_space(shipped(name, folder))


NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def small_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the standard library be some of its packages: to parse all of it takes seconds."""
    if not folder.exists():
        library = Path(sysconfig.get_paths()["stdlib"])
        for name in ("asyncio", "email", "http", "importlib", "logging", "multiprocessing",
                     "unittest"):  # fmt: skip
            shutil.copytree(library / name, folder / name)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(folder)})
