"""Writing a report to files: the page, the PNGs, and the texts that trials write for the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from model.files import replacing
from tuner.errors import RecordError, TunerError
from tuner.home import Home
from tuner.results.result import SearchResult
from tuner.tracking.record import Record

_MOST_SAMPLES = 3
_SAMPLE_TOKENS = 150


def check_output(path: str | Path) -> None:
    """Check that a report can be written to a path, before the report is made.

    Raises:
        TunerError: if the folder of the path does not exist or cannot be written, or the path is a
            folder.
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
    try:
        if path.exists():
            path.open("ab").close()
        if path.is_file() or not path.exists():  # no device
            TemporaryFile(dir=path.resolve().parent).close()  # it has no name and leaves nothing
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error


def check_folder(path: str | Path) -> None:
    """Create a folder for PNGs, if it does not exist.

    Raises:
        TunerError: if the path is not a folder, or cannot be created or written.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error


def write_report(
    result: SearchResult,
    path: str | Path,
    samples: Mapping[int, str] | None = None,
    *,
    reload_seconds: int | None = None,
) -> Path:
    """Write a search as one HTML file that works without a network.

    A file at the path is replaced when the new one is complete.

    Args:
        result: result of a search, which may be unfinished.
        path: path of the file.
        samples: short texts by number of the trial that wrote them; None for no such section.
        reload_seconds: time after which a browser loads the page again; None for never.

    Returns:
        The path.

    Raises:
        TunerError: if the file cannot be written.
    """
    from tuner.report.page import html_of

    check_output(path)
    path, text = Path(path), html_of(result, samples, reload_seconds)
    _write(path, text)
    return path


def _write(path: Path, text: str) -> None:
    """Write a text; a reader sees the old file or the new one, never a part."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            path.write_text(text, encoding="utf-8")
        else:
            with replacing(path.resolve()) as file:  # what a link names, not the link
                file.write(text.encode("utf-8"))
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error


def write_pictures(result: SearchResult, folder: str | Path) -> list[Path]:
    """Write the plots of the report as PNGs of 300 dots per inch.

    Args:
        result: result of a search.
        folder: folder of the files, created if it does not exist.

    Returns:
        Paths of the files.

    Raises:
        TunerError: if a file cannot be written.
    """
    from tuner.report.pictures import draw_all

    folder = Path(folder)
    check_folder(folder)
    try:
        return draw_all(result, folder)
    except OSError as error:
        raise TunerError(f"{folder} cannot be written: {error.strerror}") from error


def samples_of(result: SearchResult, home: Home, prompt: str = "") -> dict[int, str]:
    """Generate a short text with each of the best trials whose weights were kept.

    Args:
        result: result of a search.
        home: home of the search.
        prompt: start of each text; by default a text starts a document.

    Returns:
        Texts by number of the trial, the prompt included, the winner's first. Empty if no weights
        were kept, and for encoder–decoders, which need a source.

    Raises:
        StoreError: if the tracking store cannot be used.
    """
    # imported here because they load torch
    from model.generation.settings import GenerationSettings
    from tuner.trained.generate import check_finite_weights, sample
    from tuner.trained.load_trial import kept_trial

    finished = [trial for trial in (result.best, *result.ranked) if trial.has_finished]
    best = list({trial.number: trial for trial in finished}.values())[:_MOST_SAMPLES]
    record = Record(home.tracking_uri)
    trained_by_number = {}
    for trial in best:
        run = result.run_ids.get(trial.number)
        if run is None or trial.spec.architecture.n_encoder_layers:
            continue
        try:
            trained = kept_trial(record, record.trial(run), home)
            if trained is not None:
                check_finite_weights(trained)
                trained_by_number[trial.number] = trained
        except RecordError:  # a report is written without the texts that cannot be made
            continue
    if not trained_by_number:
        return {}
    settings = GenerationSettings(max_tokens=_SAMPLE_TOKENS)
    texts = sample(list(trained_by_number.values()), prompt, settings=settings)
    return {number: prompt + text for number, text in zip(trained_by_number, texts, strict=True)}
