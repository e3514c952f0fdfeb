"""A stand-in for a GPU: tensors that say `cuda` and keep their numbers on the CPU.

The code under test takes every branch of a GPU, with real numbers. The stand-in does what a GPU
would notice: it refuses operations on tensors of two devices, by torch's own fake tensors; replays
graphs with the memory and the host's numbers of their capture; delays copies on other streams as
long as the code allows; and records each moment at which the host waits for the device.

It says nothing about kernels: their speed, their memory, their rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from typing_extensions import override

from tests.gpu.stand_in_attention import KERNELS, efficient_attention

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
ROOT = Path(__file__).parents[2]

# Shapes of their results follow from values, which the host must read.
_SHAPED_BY_VALUES = {
    "nonzero", "masked_select", "unique_consecutive", "_unique", "_unique2", "unique_dim",
    "bincount", "repeat_interleave",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_READING = {"_local_scalar_dense", "equal", "is_nonzero", "allclose"}
# Refused on a GPU in torch's deterministic mode: those operations of the list in the documentation
# of torch.use_deterministic_algorithms that a Transformer might use.
_REFUSED = {"histc", "kthvalue", "put_", "scatter_reduce", "_embedding_bag_dense_backward"}
_REFUSED_FLOATS = {"cumsum", "cumsum_"}


class Wait(NamedTuple):
    """A moment at which the host waits for the device, and the place in `model/` that asked."""

    what: str
    place: str


class OnGpu(Tensor):
    """A tensor that says `cuda:0`; `numbers` is a tensor of the CPU with its numbers.

    For the C++ code of torch it is a tensor without numbers, of the device "meta": autograd of a
    build without CUDA would end the process for another device.
    """

    numbers: Tensor
    device = GPU  # type: ignore[assignment]
    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, device="meta",
        )  # fmt: skip
        made.numbers = numbers
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the stand-in")

    @override
    def get_device(self) -> int:
        return 0

    @override
    def tolist(self) -> Any:
        return self.cpu().tolist()

    @override
    def record_stream(self, stream: Any) -> None:
        pass

    @override
    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.numbers!r})"


class WithIndex(TorchFunctionMode):
    """Names the device by its index: without one torch would ask the driver for it."""

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:  # the code under test may tell "cuda" from "cuda:0"
            return func(*args, **(kwargs or {}))
        device = "meta" if func is Tensor.to and isinstance(args[0], OnGpu) else GPU

        def named(x: Any) -> Any:
            return device if _is_gpu(x) else x

        kwargs = {name: named(value) for name, value in (kwargs or {}).items()}
        if func in {Tensor.__getitem__, Tensor.__setitem__} and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1], device=args[0].device), *args[2:])
        if func is F.scaled_dot_product_attention and isinstance(args[0], OnGpu):
            result = efficient_attention(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*map(named, args), **kwargs)


def _is_gpu(x: Any) -> bool:
    """True if an argument names the device of the stand-in, outside or inside of torch."""
    if isinstance(x, str):
        return x.startswith("cuda")
    return isinstance(x, torch.device) and x.type in {"cuda", "meta"}


class _Step(NamedTuple):
    """An operation of a graph, on tensors of the CPU; `results` keep their memory."""

    run: Callable[[], Any]
    results: list[Tensor]


class StandIn(TorchDispatchMode):
    """Runs operations on tensors of the GPU, and writes down what a GPU would mind.

    Attributes:
        waits: moments at which the host waited.
        uploads: number of copies to the device for which the host did not wait.
        graphs: number of graphs that were captured.
        replays: number of replays.
        steps: operations of the graph that is being captured; None outside of captures.
    """

    # Torch then initialises no GPU when a tensor is made on one: that is the place of the mode
    # of fake tensors.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.uploads = self.graphs = self.replays = 0
        self.steps: list[_Step] | None = None
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self.first = self.stream = stream
        self._pinned: dict[int, Tensor] = {}  # kept, so that nobody else gets their memory

    # what a host waits for -------------------------------------------------------------------

    def wait(self, what: str) -> None:
        """Write down that the host waits."""
        place = _place()
        if self.steps is not None:
            raise RuntimeError(f"not permitted when stream is capturing: {what} at {place}")
        self.waits.append(Wait(what, place))

    def _copy(self, source: Tensor, target: torch.device, is_asynchronous: bool) -> None:
        """Write down a copy between the devices."""
        if source.device == target:
            return
        host = source if source.device == CPU else None
        if target == CPU and not is_asynchronous:
            self.wait("copy to the host")
        elif host is not None and not (is_asynchronous and _memory(host) in self._pinned):
            self.wait("copy of pageable memory to the device")
        else:
            self.uploads += host is not None

    # operations ------------------------------------------------------------------------------

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, inputs = func._schema.name.removeprefix("aten::"), _tensors((args, kwargs))
        if name == "is_pinned":
            return _memory(args[0]) in self._pinned
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if _is_gpu(target):
            kwargs["device"] = target = GPU
        on_gpu = [x for x in inputs if isinstance(x, OnGpu)]
        if not on_gpu and target != GPU:
            return self._on_the_host(func, name, args, kwargs)
        self._notice(name, args, kwargs, target, on_gpu)
        if name not in _READING and not _is_shaped_by_values(name, args, kwargs):
            _check(func, args, kwargs)
        return self._compute(func, name, args, kwargs, target)

    def _on_the_host(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        is_pinned = kwargs.pop("pin_memory", False) or name == "_pin_memory"
        result = args[0].clone() if name == "_pin_memory" else func(*args, **kwargs)
        if is_pinned:
            self._pinned[_memory(result)] = result
        return result

    def _notice(
        self, name: str, args: Any, kwargs: Any, target: torch.device | None, on_gpu: list[OnGpu]
    ) -> None:
        """Write down if the host waits for an operation."""
        if name == "_to_copy" and target is not None:
            self._copy(args[0], target, kwargs.get("non_blocking", False))
        elif name == "copy_":
            later = kwargs.get("non_blocking", len(args) > 2 and args[2])
            if args[0].device == CPU:
                later = later and _memory(args[0]) in self._pinned
            self._copy(args[1], args[0].device, later)
        elif name in _READING or _is_shaped_by_values(name, args, kwargs):
            self.wait(name)
        elif name in _INDEXING and any(x is not None and x.device == CPU for x in args[1]):
            self.wait(f"{name} by an index on the host")
        is_float = bool(on_gpu) and on_gpu[0].is_floating_point()
        if name in _REFUSED or (is_float and name in _REFUSED_FLOATS):
            raise RuntimeError(f"{name} does not have a deterministic implementation")

    def _compute(
        self, func: Any, name: str, args: Any, kwargs: Any, target: torch.device | None
    ) -> Any:
        owners: dict[int, OnGpu] = {}

        def numbers(x: OnGpu) -> Tensor:
            owners[id(x.numbers)] = x
            return x.numbers

        cpu_args, cpu_kwargs = tree_map_only(OnGpu, numbers, (args, kwargs))
        if "device" in cpu_kwargs:
            cpu_kwargs["device"] = CPU
            cpu_kwargs.pop("pin_memory", None)
        if name == "_to_copy":
            cpu_kwargs.pop("non_blocking", None)
            run = lambda: cpu_args[0].to(  # noqa: E731
                dtype=cpu_kwargs.get("dtype"), copy=True,
                memory_format=cpu_kwargs.get("memory_format") or torch.preserve_format,
            )  # fmt: skip
        else:
            compute = KERNELS.get(name, func)
            run = lambda: compute(*cpu_args, **cpu_kwargs)  # noqa: E731
        if self.stream is not self.first and self.steps is None:
            assert name == "copy_", f"{name} on another stream"
            if self.stream.seen != self.first.operations:
                raise RuntimeError("a stream reads what another one may not have written yet")
            self.stream.delayed.append(run)
            return args[0]
        if self.steps is not None:
            self._keep_before(func, cpu_args)
        self.first.operations += 1
        result = run()
        to_host = target == CPU or (name == "copy_" and args[0].device == CPU)
        if self.steps is not None:
            self._record(func, run, result)

        def on_gpu(x: Tensor) -> Tensor:
            return owners[id(x)] if id(x) in owners else OnGpu(x)

        if to_host or name in _READING:
            return args[0] if name == "copy_" else result
        return tree_map_only(Tensor, on_gpu, result)

    # graphs ----------------------------------------------------------------------------------

    def _keep_before(self, func: Any, args: Any) -> None:
        """Keep what an operation will overwrite: a capture computes nothing."""
        for index in _written(func):
            for x in tree_leaves(args[index]) if index < len(args) else ():
                storage = x.untyped_storage()
                if storage.data_ptr() not in self._before:
                    whole = torch.empty(0, dtype=torch.uint8).set_(storage)
                    self._before[storage.data_ptr()] = whole, whole.clone()

    def _record(self, func: Any, run: Callable[[], Any], result: Any) -> None:
        assert self.steps is not None
        if not func.is_view:
            results = [] if _written(func) else _tensors(result)
            self.steps.append(_Step(run, results))

    def launch(self, run: Callable[[], None]) -> None:
        """Run a kernel, or capture it; its tensors are older than the capture."""
        if self.steps is None:
            run()
        else:
            self.steps.append(_Step(run, []))

    def begin_capture(self) -> None:
        assert self.steps is None
        self.steps, self._before = [], {}
        self.graphs += 1

    def end_capture(self) -> list[_Step]:
        steps, self.steps = self.steps, None
        assert steps is not None
        for whole, before in self._before.values():
            whole.copy_(before)
        self._before = {}
        return steps

    def replay(self, steps: list[_Step]) -> None:
        self.replays += 1
        for step in steps:
            for old, new in zip(step.results, _tensors(step.run()), strict=False):
                old.copy_(new)


_checked: set[Any] = set()  # calls that fake tensors allow


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """Ask torch's fake tensors, once, if an operation may be computed on these devices."""
    flat, spec = tree_flatten((args, kwargs))
    facts = tuple(
        (x.shape, x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else repr(x) for x in flat
    )
    if (func, facts, spec) in _checked:
        return

    def fake(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)

    with FakeTensorMode():
        fake_args, fake_kwargs = tree_map_only(Tensor, fake, (args, kwargs))
        func(*fake_args, **fake_kwargs)
    _checked.add((func, facts, spec))


def _is_shaped_by_values(name: str, args: Any, kwargs: Any) -> bool:
    """True if the shapes of results, or of what is written, follow from values."""
    if name in _INDEXING:
        return any(x is not None and x.dtype in {torch.bool, torch.uint8} for x in args[1])
    return name in _SHAPED_BY_VALUES and kwargs.get("output_size") is None


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@cache
def _written(func: Any) -> tuple[int, ...]:
    """Return the places of the arguments that an operation writes to."""
    infos = [argument.alias_info for argument in func._schema.arguments]
    return tuple(i for i, info in enumerate(infos) if info is not None and info.is_write)


def _place() -> str:
    """Return the line of the trainer that is running."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "model"):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"
