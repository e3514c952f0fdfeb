"""The report of a search: one HTML page to read, and the same pictures as PNGs for papers.

The numbers are in `series`, `axes` and `shares`; `figures` and `parallel` draw them for the page,
`pictures` for papers; `captions` and `contents` say them in words; `page` puts it all together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import RecordError, TunerError
from tuner.home import Home
from tuner.results.result import SearchResult
from tuner.tracking.record import Record

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

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


_MOST_TRIALS = 3


_TOKENS = 150


def samples_of(result: SearchResult, home: Home, prompt: str = "") -> dict[int, str]:
    """A short text of each of the best trials whose weights were kept, the winner's first.

    Args:
        result: of the search.
        home: where it lives.
        prompt: what the texts begin with; by default they begin a document.

    Returns:
        Trial → its text, the prompt included. Empty if no weights were kept, and for
        encoder–decoders, which would need something to read.

    Raises:
        StoreError: if the tracking store cannot be used.
    """
    # not imported with the module: they load torch
    from model.generation.settings import GenerationSettings
    from tuner.trained.generate import check_finite_weights, sample
    from tuner.trained.load_trial import kept_trial

    finished = [row for row in (result.best, *result.ranked) if row.has_finished]
    rows = list({row.number: row for row in finished}.values())[:_MOST_TRIALS]
    record = Record(home.tracking_uri)
    found = {}
    for row in rows:
        run = result.run_ids.get(row.number)
        if run is None or row.spec.architecture.n_encoder_layers:
            continue
        try:
            trained = kept_trial(record, record.trial(run), home)
            if trained is not None:
                check_finite_weights(trained)
                found[row.number] = trained
        except RecordError:
            continue
    if not found:
        return {}
    texts = sample(list(found.values()), prompt, settings=GenerationSettings(max_tokens=_TOKENS))
    return {number: prompt + text for number, text in zip(found, texts, strict=True)}
