"""Exports trained trials for other tools."""

from __future__ import annotations

from pathlib import Path

from model.errors import ExportError
from model.exchange import registry as formats
from model.exchange.format import TrainedModel
from model.spec.trial import TrialSpec
from tuner.errors import TunerError
from tuner.results.result import SearchResult
from tuner.trained.generate import check_finite_weights, trial_name
from tuner.trained.load_trial import TrainedTrial
from tuner.trained.readme import card, details, spec_pattern


def check_export(spec: TrialSpec, folder: str | Path, file_format: str, *, force: bool) -> None:
    """Check by its specification alone that a trial can be exported.

    Raises:
        TunerError: if the format cannot express the trial, or the folder cannot be written.
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
        trained: the trial (`tuner.load_trial`).
        folder: folder to create; it is created completely or not at all.
        file_format: `hf` (Hugging Face transformers), `gguf` (llama.cpp), `torch` (a plain state
            dict for `model.load_exported`), or `peft` (LoRA's matrices alone; the others have
            them in the weights).
        force: replace an earlier export in the folder.
        result: result of the trial's search, for the README.

    Returns:
        The written files.

    Raises:
        TunerError: if the format is unknown or cannot express the trial, or the folder cannot be
            written.
        RecordError: if the weights of the trial are not finite, because it diverged.
    """
    if file_format not in formats.FORMATS:
        names = ", ".join(formats.FORMATS)
        raise TunerError(f"the format must be one of {names}, got {file_format!r}")
    check_export(trained.spec, folder, file_format, force=force)
    check_finite_weights(trained)
    model = TrainedModel(
        trained.spec,
        trained.weights,
        trained.tokenizer,
        name=trial_name(trained),
        about=card(trained, result),
        details=details(trained),
        adapters=trained.adapters,
    )
    try:
        return formats.export(file_format, model, Path(folder), force=force)
    except ExportError as error:
        raise TunerError(str(error)) from error
