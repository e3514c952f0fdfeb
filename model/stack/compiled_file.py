"""Files of compiled ticks; imports no torch, so that a driver can ask what is compiled already."""

from __future__ import annotations

import os
import sys
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import model
from model.device.compiler import (
    cache_folder,
    compiled_once,
    find_compiler,
    machine,
    run_compiler,
)
from model.errors import CompileError
from model.stack.tick_kind import TickKind

# rooms whose code the graph of a tick is made of
_ROOMS = ("spec", "device", "network", "optimizers", "stack")
_VARIABLES = ("TORCH", "AOT_INDUCTOR", "AOTINDUCTOR", "PYTHON", "CXXFLAGS", "CPPFLAGS")
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


def compiled_file(kind: TickKind) -> Path:
    """Return the file of a kind of ticks; compile it, in a process, if there is none.

    Raises:
        CompileError: if it cannot be compiled.
    """
    with compiled_once(file_name(kind)) as (file, new):
        if new is not None:
            command = [sys.executable, "-P", "-m", "model.stack.compile_tick"]
            command += [str(new), kind.to_json()]
            variables = _environment(new.parent, find_compiler().path)
            try:
                run_compiler(command, variables | {"TORCHINDUCTOR_VEC_ISA_OK": "1"})
            except CompileError:
                # Once more, with a test of each instruction set: the compiler may be too old for
                # one that the processor has. The tests take as long as the compilation.
                run_compiler(command, variables)
    return file


def _environment(folder: Path, compiler: str) -> dict[str, str]:
    """Return the variables of the process that compiles, without those that change the code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_VARIABLES)}
    paths = [str(Path(path).absolute()) for path in sys.path if path]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TMPDIR": str(folder),
        "CXX": compiler,
        "OMP_NUM_THREADS": "1",
    }


@cache
def _code() -> str:
    """Return the digest of the code that graphs are made of."""
    root, digest = Path(str(model.__file__)).parent, sha256()
    files = [root / "randomness.py", *(f for room in _ROOMS for f in (root / room).glob("*.py"))]
    for file in sorted(files):
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()
