"""Writing pages to files, and the texts that trials write for the page of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from model.files import replacing
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.results.result import SearchResult
from tuner.trained.recorded_trials import RecordedTrials

if TYPE_CHECKING:  # slow to import
    from plotly.graph_objects import Figure

    from tuner.report.picture import Section

_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
_MOST_SAMPLES = 3
_SAMPLE_TOKENS = 150


def check_output(path: str | Path) -> None:
    """Check that a page can be written to a path, before it is made.

    Raises:
        TunerError: if the folder of the path does not exist or cannot be written, or the path is a
            folder or names a picture.
    """
    path = Path(path)
    if path.suffix.lower() in _PICTURES:
        raise TunerError(
            f"{path}: plots are written as an HTML page, from which each is saved as PNG or SVG; "
            f"name it {path.with_suffix('.html').name}"
        )
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
    return _write(Path(path), html_of(result, samples, reload_seconds))


def _write(path: Path, text: str) -> Path:
    """Write a text and return the path; a reader sees the old file or the new, never a part."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            path.write_text(text, encoding="utf-8")
        else:
            with replacing(path.resolve()) as file:  # what a link names, not the link
                file.write(text.encode("utf-8"))
    except OSError as error:
        raise TunerError(f"{path} cannot be written: {error.strerror}") from error
    return path


def write_pictures(
    path: str | Path, kind: str, name: str, about: str, sections: Sequence[Section]
) -> Path:
    """Write pictures as one HTML file that works without a network.

    A file at the path is replaced when the new one is complete.

    Args:
        path: path of the file.
        kind: kind of the page, above its title.
        name: title of the page, with which files begin that a reader saves.
        about: line below the title.
        sections: the pictures.

    Returns:
        The path.

    Raises:
        TunerError: if the file cannot be written.
    """
    from tuner.report.page import html_of_pictures

    check_output(path)
    return _write(Path(path), html_of_pictures(kind, name, about, sections))


def figures_of(result: SearchResult) -> dict[str, Figure]:
    """Return the figures of the report of a search by name, as objects of Plotly."""
    from tuner.report.page import sections_of
    from tuner.report.series import ReportData
    from tuner.report.shares import shares_of

    series = ReportData(result)
    sections = sections_of(series, shares_of(series))
    return {p.key: p.figure for pictures in sections.values() for p in pictures}


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
    from model.generation.prompts import Prompt
    from model.generation.settings import GenerationSettings
    from tuner.trained.generate import check_finite_weights, sample
    from tuner.trained.load_trial import kept_trial

    finished = [trial for trial in (result.best, *result.ranked) if trial.has_finished]
    best = list({trial.number: trial for trial in finished}.values())[:_MOST_SAMPLES]
    trials = RecordedTrials.of(home)
    trained_by_number = {}
    for trial in best:
        run = result.run_ids.get(trial.number)
        if run is None or trial.spec.architecture.n_encoder_layers:
            continue
        try:
            trained = kept_trial(trials, trials.find(run))
            if trained is not None:
                check_finite_weights(trained)
                trained_by_number[trial.number] = trained
        except RecordError:  # a report is written without the texts that cannot be made
            continue
    if not trained_by_number:
        return {}
    settings = GenerationSettings(max_tokens=_SAMPLE_TOKENS)
    texts = sample(list(trained_by_number.values()), prompt, settings=settings)
    asked = Prompt(prompt)
    return {
        number: prompt + ("\n" if asked.is_message(trained.spec) else "") + text
        for (number, trained), text in zip(trained_by_number.items(), texts, strict=True)
    }
