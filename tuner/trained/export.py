"""Trained trials, written for other tools."""

from __future__ import annotations

from pathlib import Path

from model.errors import ExportError
from model.export import registry as formats
from model.export.format import TrainedModel
from model.spec.trial import TrialSpec
from tuner.errors import TunerError
from tuner.results.result import SearchResult
from tuner.trained.generate import check_written, named
from tuner.trained.load_trial import TrainedTrial
from tuner.trained.readme import card, details, spec_pattern


def check_export(spec: TrialSpec, folder: str | Path, file_format: str, *, force: bool) -> None:
    """Whether a trial can be exported, by its specification alone.

    Raises:
        TunerError: if the format cannot express it, or the folder may not be written.
    """
    try:
        formats.check(file_format, spec.architecture, spec_pattern(spec), Path(folder), force=force)
    except ExportError as error:
        raise TunerError(str(error)) from error


def export(
    trained: TrainedTrial,
    folder: str | Path,
    file_format: str = "hf",
    *,
    force: bool = False,
    result: SearchResult | None = None,
) -> list[Path]:
    """Write a trained trial for other tools.

    Args:
        trained: as `tuner.load_trial` gives it.
        folder: is made; it appears whole or not at all.
        file_format: `hf` (Hugging Face transformers), `gguf` (llama.cpp) or `torch` (a plain state
            dict, which `model.load_exported` loads).
        force: replace an earlier export in the folder.
        result: of the trial's search, for the README.

    Returns:
        The files.

    Raises:
        TunerError: if there is no such format, it cannot express the trial, or the folder cannot
            be written.
        RecordError: if the weights of the trial are no numbers, as it diverged.
    """
    if file_format not in formats.FORMATS:
        known = ", ".join(formats.FORMATS)
        raise TunerError(f"the format must be one of {known}, got {file_format!r}")
    check_export(trained.spec, folder, file_format, force=force)
    check_written(trained)
    model = TrainedModel(
        trained.spec,
        trained.weights,
        trained.tokenizer,
        name=named(trained),
        about=card(trained, result),
        details=details(trained),
    )
    try:
        return formats.export(file_format, model, Path(folder), force=force)
    except ExportError as error:
        raise TunerError(str(error)) from error
