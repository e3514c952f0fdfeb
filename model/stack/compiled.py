"""Compiled gradients of ticks, for stacks one slot wide on a CPU.

On a CPU a stack has one slot, so that the code can be made for one trial's specification, and the
law holds. torch's compiler makes the code ahead of time, in a process of its own: a shared library
for each kind of ticks, which all workers and later searches load in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from model.errors import CompileError
from model.spec.trial import TrialSpec
from model.stack.compiled_file import compiled_file
from model.stack.tick_kind import TickKind


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
    file = compiled_file(kind)
    try:
        # `torch._inductor.aoti_load_package` does this too, but imports the compiler for it, which
        # takes seconds and 150 MB
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(file), 1)
    except (OSError, RuntimeError) as error:
        file.unlink(missing_ok=True)  # damaged: the next start compiles anew
        reason = str(error).partition("\n")[0]
        raise CompileError(f"{file} cannot be loaded and was deleted: {reason}") from error
    return runner.run
