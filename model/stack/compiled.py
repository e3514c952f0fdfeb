"""Compiled gradients of ticks, for stacks one slot wide on a CPU.

On a CPU a stack has one slot, so that the code can be made for one trial's specification, and the
law holds. torch's compiler makes the code ahead of time, in a process of its own: a shared library
for each kind of ticks, which all workers and later searches load in milliseconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.device.compiler import compiled_once, find_compiler, run_compiler
from model.errors import CompileError
from model.spec.trial import TrialSpec
from model.stack.compiled_file import file_name
from model.stack.tick_kind import TickKind

_VARIABLES = ("TORCH", "AOT_INDUCTOR", "AOTINDUCTOR", "PYTHON", "CXXFLAGS", "CPPFLAGS")


def prepare(spec: TrialSpec, dtype: str) -> None:
    """Compile the ticks of a trial, and of those it continues, unless this was done before.

    Args:
        spec: specification of the trial.
        dtype: dtype of the computation.

    Raises:
        CompileError: if they cannot be compiled.
    """
    for each in spec.chain:
        _load(TickKind.of(each, dtype))


def run(kind: TickKind, arguments: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the losses (1,) and the gradients (1, P) of a tick; arguments as in `compile_tick`."""
    *losses, grads = _load(kind)([x.contiguous() for x in arguments])
    return tuple(losses), grads


@cache
def _load(kind: TickKind) -> Callable[[list[Tensor]], list[Tensor]]:
    """Load the code of a kind of ticks; it stays loaded."""
    file = _file_of(kind)
    try:
        # `torch._inductor.aoti_load_package` does this too, but imports the compiler for it, which
        # takes seconds and 150 MB
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(file), 1)
    except (OSError, RuntimeError) as error:
        file.unlink(missing_ok=True)  # damaged: the next start compiles anew
        reason = str(error).partition("\n")[0]
        raise CompileError(f"{file} cannot be loaded and was deleted: {reason}") from error
    return runner.run


def _file_of(kind: TickKind) -> Path:
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
