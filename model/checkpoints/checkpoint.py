"""Checkpoints: one safetensors file, written atomically, checked by SHA-256, without pickle.

The header of the file holds the tensors' metadata as JSON, and a digest of metadata and tensors:
tensors, metadata and checksum are always in one file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from model.errors import CheckpointError
from model.files import hidden_name

_FORMAT = "tuner/1"
_LONGEST_REASON = 200


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of CPU tensors, and of a text."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # no copy
    return sha.hexdigest()


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    is_wanted: Callable[[], bool] = lambda: True,
) -> bool:
    """Write tensors and metadata to a file, atomically.

    Whenever the process is killed, the path has the complete old file, if any, or the complete
    new one.

    Args:
        path: path of the file; its folder is made if needed.
        tensors: CPU tensors.
        metadata: description of the tensors; must be JSON.
        is_wanted: called when all bytes are on the disk; if it returns False, the file is deleted
            instead of renamed to `path`.

    Returns:
        True if the file was written, False if it was not wanted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_name(path)
    opened = temporary.open("xb")
    try:
        with opened as file:
            file.write(pack(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        if is_wanted():
            temporary.replace(path)
            return True
        temporary.unlink()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return False


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint and verify its checksum.

    Returns:
        The tensors, on the CPU, and their metadata.

    Raises:
        CheckpointError: if the file is missing, damaged, or no checkpoint of tuner.
    """
    try:
        return unpack(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint."""
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    dense = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {"format": _FORMAT, "about": text, "sha256": digest(dense, text)}
    return save_bytes(dense, header)


def unpack(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a checkpoint's bytes; verify their checksum.

    Args:
        data: bytes of the file.
        source: name of the file, for errors.

    Raises:
        CheckpointError: if the bytes are damaged, or no checkpoint of tuner.
    """
    try:
        tensors = load_bytes(data)
        # safetensors reads the metadata only of files on disk. By its specification the header is
        # a length of 8 bytes and then JSON.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        fields = header.get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError) as error:
        # safetensors quotes what it could not read
        reason = str(error)[:_LONGEST_REASON].encode("unicode_escape").decode()
        raise CheckpointError(f"{source} is damaged or no safetensors file: {reason}") from error
    if fields.get("format") != _FORMAT:
        raise CheckpointError(f"{source} is a safetensors file, but not a checkpoint of tuner")
    text = fields.get("about", "")
    if digest(tensors, text) != fields.get("sha256"):
        raise CheckpointError(f"{source} is damaged: its checksum does not match its contents")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{source} is a checkpoint whose metadata are damaged")
    return tensors, metadata
