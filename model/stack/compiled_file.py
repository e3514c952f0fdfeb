"""Files of compiled ticks; imports no torch, so that a driver can ask what is compiled already."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import model
from model.device.compiler import cache_folder, find_compiler, machine
from model.stack.tick_kind import TickKind

# rooms whose code the graph of a tick is made of
_ROOMS = ("spec", "device", "network", "optimizers", "stack")
_CAPABILITY = "ATEN_CPU_CAPABILITY"  # limits the instructions that torch uses


def file_name(kind: TickKind) -> str:
    """Return the name of the file of a kind of ticks in the folder of compiled code.

    Raises:
        CompileError: if there is no compiler.
    """
    limit = os.environ.get(_CAPABILITY, "")
    parts = kind.to_json(), _code(), metadata.version("torch"), limit, *machine(find_compiler())
    text = "\0".join(parts)
    return f"{sha256(text.encode()).hexdigest()[:32]}.so"


def is_compiled(kind: TickKind) -> bool:
    """Return True if a kind of ticks was compiled before.

    Raises:
        CompileError: if there is no compiler, or others could have written to the folder.
    """
    return (cache_folder() / file_name(kind)).exists()


@cache
def _code() -> str:
    """Return the digest of the code that graphs are made of."""
    root, digest = Path(str(model.__file__)).parent, sha256()
    files = [root / "randomness.py", *(f for room in _ROOMS for f in (root / room).glob("*.py"))]
    for file in sorted(files):
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()
