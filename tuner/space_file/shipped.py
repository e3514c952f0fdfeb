"""Spaces that come with the package, found by the name of their study: `--space lm`."""

from __future__ import annotations

from pathlib import Path

from tuner.texts.formatting import did_you_mean

_PACKAGE = Path(__file__).parents[1]
# In an installed package; in the repository, which has them on top.
_FOLDERS = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")
_SUFFIX = ".yaml"


def shipped_spaces() -> dict[str, Path]:
    """Return the files of the shipped spaces by the names of their studies."""
    folder = next((each for each in _FOLDERS if each.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def subject(path: Path) -> str:
    """Return the first sentence of the comments of a space file."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words += line.lstrip("# ").split()
    text = " ".join(words)
    end = text.find(". ")
    return text if end < 0 else text[:end]


def find_space(name: str) -> Path | None:
    """Return the file that the name of a study stands for; None if it is a path.

    A file in the working folder, such as `tuner init` writes, hides the shipped one.
    """
    if Path(name).exists() or name not in (shipped := shipped_spaces()):
        return None
    own = Path(name + _SUFFIX)
    return own if own.exists() else shipped[name]


def meaning_of(path: str) -> str:
    """Return a fix for a path without a file: `; did you mean --space lm?`, or an empty text."""
    shipped = shipped_spaces()
    stem = Path(path).stem
    if stem in shipped:
        return f"; --space {stem} takes the shipped one, and 'tuner init {stem}' copies it"
    is_name = Path(path).name == path and not Path(path).suffix
    return did_you_mean(path, shipped) if is_name else ""
