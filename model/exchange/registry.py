"""Registry of export formats, and the export of a trained model.

A folder is written completely or not at all, with a README and the SHA-256 of every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from model.errors import ExportError
from model.exchange.folder import check_target, write_folder
from model.exchange.format import Format, TrainedModel
from model.exchange.gguf import LLAMA_CPP
from model.exchange.hugging_face import HUGGING_FACE
from model.exchange.peft import PEFT
from model.exchange.torch_state import PLAIN
from model.spec.architecture import Architecture

FORMATS: Mapping[str, Format] = {
    "hf": HUGGING_FACE,
    "gguf": LLAMA_CPP,
    "torch": PLAIN,
    "peft": PEFT,
}


def check(name: str, a: Architecture, pattern: str | None, target: Path, *, force: bool) -> None:
    """Check that a model can be exported, before it is loaded.

    Args:
        name: name of the format in `FORMATS`.
        a: architecture of the model.
        pattern: pattern of its tokenizer; None if unknown yet.
        target: the folder to write.
        force: True to replace an earlier export in the folder.

    Raises:
        ExportError: if the format cannot express the model, the package that writes the format is
            not installed, or the folder is not empty.
    """
    chosen = FORMATS[name]
    obstacles = _obstacles(chosen, a, pattern)
    if obstacles:
        fits = [n for n, other in FORMATS.items() if not _obstacles(other, a, pattern)]
        raise ExportError(
            f"the format {name} writes {chosen.what}, which cannot have {_listed(obstacles)}; use "
            f"--format {_listed(fits)}"
        )
    if chosen.needs is not None and find_spec(chosen.needs) is None:
        raise ExportError(
            f"the format {name} needs the package {chosen.needs}: pip install {chosen.needs}"
        )
    check_target(target, force=force)


def export(name: str, model: TrainedModel, target: Path, *, force: bool = False) -> list[Path]:
    """Write a trained model.

    Args:
        name: name of the format in `FORMATS`.
        model: the model to write.
        target: the folder, created with its parents; an existing one must be empty.
        force: True to replace an earlier export in the folder.

    Returns:
        Paths of the files.

    Raises:
        ExportError: as `check`; or if the files cannot be written.
    """
    check(name, model.architecture, model.tokenizer.pattern, target, force=force)
    chosen = FORMATS[name]

    def write(folder: Path) -> None:
        try:
            chosen.write(model, folder)
        except ValueError as error:  # two tokens with equal names
            raise ExportError(f"the format {name} cannot express the tokenizer: {error}") from error

    parts = (chosen.front + model.about, f"## Use it\n\n{chosen.usage(model)}", model.details)
    return write_folder(target, write, "\n".join(part.rstrip("\n") + "\n" for part in parts))


def _obstacles(chosen: Format, a: Architecture, pattern: str | None) -> list[str]:
    """Return what a format cannot express, each as `entry: value`."""
    fits = pattern is None or pattern in chosen.patterns
    return chosen.obstacles(a) + ([] if fits else [f"tokenizer.pattern: {pattern}"])


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
