"""Trained models in the formats that others read, and a registry of them.

A folder is written whole or not at all, with a README and the SHA-256 of every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from model.errors import ExportError
from model.export.folder import check_target, write_folder
from model.export.format import Format, TrainedModel
from model.export.gguf import LLAMA_CPP
from model.export.hugging_face import HUGGING_FACE
from model.export.torch_state import PLAIN
from model.spec.architecture import Architecture

__all__ = ["FORMATS", "ExportError", "Format", "TrainedModel", "check", "export"]

FORMATS: Mapping[str, Format] = {"hf": HUGGING_FACE, "gguf": LLAMA_CPP, "torch": PLAIN}


def check(name: str, a: Architecture, pattern: str | None, target: Path, *, force: bool) -> None:
    """Whether a model can be exported, before it is loaded.

    Args:
        name: of the format, in `FORMATS`.
        a: architecture of the model.
        pattern: how its tokenizer cuts text; None if that is not known yet.
        target: the folder to write.
        force: whether an earlier export in it is replaced.

    Raises:
        ExportError: if the format cannot express the model, the package that writes it is not
            there, or the folder holds something.
    """
    made = FORMATS[name]
    found = _obstacles(made, a, pattern)
    if found:
        fits = [n for n, other in FORMATS.items() if not _obstacles(other, a, pattern)]
        raise ExportError(
            f"the format {name} writes {made.what}, which cannot have {_listed(found)}; use "
            f"--format {_listed(fits)}"
        )
    if made.needs is not None and find_spec(made.needs) is None:
        raise ExportError(
            f"the format {name} needs the package {made.needs}: pip install {made.needs}"
        )
    check_target(target, force=force)


def export(name: str, model: TrainedModel, target: Path, *, force: bool = False) -> list[Path]:
    """Write a trained model.

    Args:
        name: of the format, in `FORMATS`.
        model: what to write.
        target: the folder; it is made with its parents, and must be empty if it is there.
        force: whether an earlier export in it is replaced.

    Returns:
        The files.

    Raises:
        ExportError: as `check`; or if the files cannot be written.
    """
    check(name, model.architecture, model.tokenizer.pattern, target, force=force)
    made = FORMATS[name]

    def write(folder: Path) -> None:
        try:
            made.write(model, folder)
        except ValueError as error:  # two tokens of one name
            raise ExportError(f"the format {name} cannot express the tokenizer: {error}") from error

    parts = (made.front + model.about, f"## Use it\n\n{made.usage(model)}", model.details)
    return write_folder(target, write, "\n".join(part.rstrip("\n") + "\n" for part in parts))


def _obstacles(made: Format, a: Architecture, pattern: str | None) -> list[str]:
    """What a format cannot express, each as `entry: value`."""
    fits = pattern is None or pattern in made.patterns
    return made.obstacles(a) + ([] if fits else [f"tokenizer.pattern: {pattern}"])


def _listed(found: list[str]) -> str:
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
