"""Header of a checkpoint, which names its contents by digest; needs no torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from model.errors import CheckpointError


def recorded_digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint's contents that its header has; `read` compares both.

    Raises:
        CheckpointError: if the file is missing, damaged, or no checkpoint of tuner.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return str(file.metadata()["sha256"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
