"""Compile the gradients of a kind of ticks: `python -m model.stack.compile_tick FILE KIND`.

A process of its own, because the compiler of torch keeps much memory and changes global settings,
and reads variables of the environment that must not change the code. FILE is the shared library to
write, and KIND a `TickKind` as JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from model.device.precision import Precision
from model.network.dropout import PLACES, Dropping
from model.parallel import end_with_parent
from model.stack.gradients import Gradients
from model.stack.matrices import Matrices
from model.stack.tick_kind import TickKind

# (weights of the slot as a row, share, smoothing, z-loss, rates, keys, token ids …) → loss, with
# smoothing or a z-loss the plain loss, and row of gradients
Function = Callable[..., tuple[Tensor, ...]]


def traceable(kind: TickKind) -> tuple[Function, tuple[Tensor, ...]]:
    """Return the function of a kind of ticks, K = 1, and arguments of their shapes.

    The gradients are one row, laid out as the weights and float32, so that one pass can update all.
    """
    a, cpu = kind.architecture, torch.device("cpu")
    precision = Precision.of(kind.dtype, cpu)
    matrices = Matrices(a, 1, cpu, precision.compute)
    compute = Gradients(a, precision.products, masks_targets=kind.has_examples)
    dropping = Dropping(
        kind.embedding_dropout, (0,) * kind.attention_dropout, kind.residual_dropout, 1, cpu
    )
    # end of each tensor with its padding
    ends = [part.stop for part in matrices.layout.tensors]

    def gradients(
        row: Tensor, share: Tensor, smoothing: Tensor, z_loss: Tensor,
        rates: Tensor, keys: Tensor, *ids: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        weights = {
            name: view.detach().requires_grad_() for name, view in matrices.views(row).items()
        }
        losses, grads = compute(
            weights,
            ids,
            share,
            dropping.masks(keys, rates),
            smoothing if kind.label_smoothing else None,
            z_loss if kind.z_loss else None,
        )
        parts, begin = [], 0
        for grad, end in zip(grads, ends, strict=True):
            parts.append(grad.float().reshape(1, -1))
            parts.append(grad.new_zeros(1, end - begin - grad.numel(), dtype=torch.float32))
            begin = end
        return *losses, torch.cat([part for part in parts if part.numel()], 1)

    lengths = [a.context_length, a.context_length]
    lengths += [a.source_length] if a.n_encoder_layers else []
    lengths += [a.context_length] if kind.is_packed else []
    ids = [torch.zeros(1, kind.micro_batch, length, dtype=torch.int64) for length in lengths]
    numbers = [torch.full((1,), value) for value in (1.0, 0.1, 0.1)]
    rates, keys = torch.full((len(PLACES), 1), 0.1), torch.zeros(1, dtype=torch.int64)
    return gradients, (matrices.copy.detach(), *numbers, rates, keys, *ids)


class _BesideCompiler:
    """Runs the commands of torch's C++ builder; the calls are compiled while the loops are.

    Args:
        run: runs a command and waits for its end.
    """

    def __init__(self, run: Callable[[str, str], None]) -> None:
        self._run, self._pool = run, ThreadPoolExecutor(1)
        self._calls: Future[None] | None = None

    def __call__(self, command: str, cwd: str) -> None:
        """Begin to compile the calls; or run another command, and link only when all is there."""
        is_compilation = " -c " in command
        if is_compilation and ".wrapper." in command:
            # the builder removes its folder once it believes that this has ended
            self._calls = self._pool.submit(self._run, command, str(Path(cwd).parent))
            return
        if not is_compilation and self._calls is not None:
            self._calls.result()
        self._run(command, cwd)


def compile_gradients(kind: TickKind, file: Path) -> None:
    """Write the shared library of a kind of ticks."""
    import torch._inductor
    from torch._inductor import config, cpp_builder, cpu_vec_isa

    torch.set_num_threads(1)
    function, arguments = traceable(kind)
    # With real tensors: the tables that the network keeps must not hold fake ones.
    graph = make_fx(function, tracing_mode="real")(*arguments)
    for node in graph.graph.nodes:  # of fake tensors of the trace, which the compiler makes anew
        node.meta.clear()
    cpp_builder.run_compile_cmd = _BesideCompiler(cpp_builder.run_compile_cmd)
    if config.cpp.vec_isa_ok:
        # the setting skips one test of each instruction set; this skips the tests of its parts
        cpu_vec_isa.VecISA.check_build = lambda isa, code: True
    with config.patch(
        {
            "cpp.threads": 1,
            "compile_threads": 1,
            # a header costs more to compile in advance than one graph gains
            "cpp_cache_precompile_headers": False,
            "aot_inductor.precompile_headers": False,
            "aot_inductor.enable_line_tables": False,
            # the outer function calls the loops; optimizing it gains nothing
            "aot_inductor.compile_wrapper_opt_level": "O0",
        }
    ):
        # not through torch.export, which traces once more to the same code
        made = torch._inductor.aot_compile(
            graph, arguments, options={"aot_inductor.output_path": str(file)}
        )
    assert made == str(file), made


if __name__ == "__main__":
    end_with_parent()
    compile_gradients(TickKind.from_json(sys.argv[2]), Path(sys.argv[1]))
