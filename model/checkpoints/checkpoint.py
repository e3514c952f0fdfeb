"""Checkpoints: one safetensors file, written atomically, checked by SHA-256, without pickle.

The header's metadata holds JSON, and the digest of everything else in the file, so that the
tensors, what they mean and their checksum cannot come apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from model.errors import CheckpointError

_FORMAT = "tuner/1"


def digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 over names, dtypes, shapes and bytes of CPU tensors, and over a text."""
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # no copy
    return sha.hexdigest()


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    is_wanted: Callable[[], bool] = lambda: True,
) -> bool:
    """Write tensors and JSON to a file that is either the old one or the whole new one.

    Args:
        path: where to; its folder is made if need be.
        tensors: CPU tensors.
        about: what they are; anything that JSON can say.
        is_wanted: is asked when all is on the disk, before the file gets its name.

    Returns:
        Whether it was wanted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_pack(tensors, about))
            file.flush()
            os.fsync(file.fileno())
        if is_wanted():
            Path(temporary).replace(path)
            return True
        Path(temporary).unlink()
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return False


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint and verify its checksum.

    Returns:
        The tensors, on the CPU, and the JSON that was saved with them.

    Raises:
        CheckpointError: if there is no such file, or it is damaged or no checkpoint of ours.
    """
    try:
        return _unpack(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def _pack(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {"format": _FORMAT, "about": text, "sha256": digest(plain, text)}
    return save_bytes(plain, metadata)


def _unpack(data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load_bytes(data)
        # safetensors offers the metadata of a file on disk only; the header is 8 bytes of length
        # and then JSON, by its specification
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{where} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{where} is a safetensors file, but not a checkpoint of tuner")
    about = metadata.get("about", "")
    if digest(tensors, about) != metadata.get("sha256"):
        raise CheckpointError(f"{where} is damaged: its checksum does not match its contents")
    return tensors, json.loads(about)
