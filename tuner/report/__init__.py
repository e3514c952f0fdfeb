"""The report of a search: one HTML page to read, and the same pictures as PNGs for papers.

The numbers are in `series`, `axes` and `shares`; `figures` and `parallel` draw them for the page,
`pictures` for papers; `captions` and `contents` say them in words; `page` puts it all together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import TunerError

if TYPE_CHECKING:
    from tuner.result import SearchResult

__all__ = ["check_folder", "check_output", "write_pictures", "write_report"]


def check_output(path: str | Path) -> None:
    """Whether a report can be written there, before it is made.

    Raises:
        TunerError: if its folder is not there, or it is a folder itself.
    """
    path = Path(path)
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error
    if not has_folder:
        raise TunerError(f"there is no folder {path.parent} to write {path.name} to")
    if is_folder:
        raise TunerError(f"{path} is a folder; name a file in it, such as report.html")


def check_folder(path: str | Path) -> None:
    """Whether pictures can be written to a folder, which is made if need be.

    Raises:
        TunerError: if it is something else, or cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error


def write_report(
    result: SearchResult, path: str | Path, samples: Mapping[int, str] | None = None
) -> Path:
    """Write a search as one HTML file that works without a network.

    Args:
        result: of the search; it may be unfinished.
        path: of the file.
        samples: trial → a short text that it wrote; left out without.

    Returns:
        The path.

    Raises:
        TunerError: if it cannot be written.
    """
    from tuner.report.page import html_of

    check_output(path)
    path, text = Path(path), html_of(result, samples)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error
    return path


def write_pictures(result: SearchResult, folder: str | Path) -> list[Path]:
    """Write the pictures of the report as PNGs of 300 dots per inch.

    Args:
        result: of the search.
        folder: where to; made if need be.

    Returns:
        The files.

    Raises:
        TunerError: if they cannot be written.
    """
    from tuner.report.pictures import draw_all

    folder = Path(folder)
    check_folder(folder)
    try:
        return draw_all(result, folder)
    except OSError as error:
        raise TunerError(f"{folder} cannot be written: {error.strerror}") from error
