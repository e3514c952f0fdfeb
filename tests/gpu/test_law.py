"""The law on a real GPU, through graphs and refills: `pytest -m gpu`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine import engine
from model.spec.trial import TrialSpec
from model.stack import stack
from model.stack.cuda_graphs import Compute, Graphs, Result, capturing
from model.stack.plan import Tick
from model.stack.stack import Stack
from tests.conftest import MakeSpec
from tests.model.architectures import SINGLE
from tests.model.optimizers.test_adamw_triton import adamw_specs
from tests.model.stack.test_stack import SIZES, assert_near, everything
from tests.model.test_law import Tokens, assert_same, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = ("float32", "tf32", "bfloat16")
WIDTH = 4
CUDA = torch.device("cuda")
on_gpu = partial(train, slots=WIDTH, width=WIDTH, device="cuda")


@pytest.fixture
def make_spec(make_spec: MakeSpec) -> MakeSpec:
    """The specification with two layers; on a GPU they cost nothing."""

    def make(*, model: dict[str, Any] | None = None, **options: Any) -> TrialSpec:
        return make_spec(model={"n_layers": 2, **(model or {})}, **options)

    return make


class Counted(Graphs):
    """Graphs that count the replayed ticks."""

    replayed = 0

    def run(self, kind: Any, compute: Compute, tick: Tick) -> Result:
        Counted.replayed += self._known.get(kind) is not None
        return super().run(kind, compute, tick)


class NoGraphs(Graphs):
    """Runs every tick without a graph."""

    def run(self, kind: Any, compute: Compute, tick: Tick) -> Result:
        return compute(tick)


def _stack(kind: type[Graphs], *arguments: Any, **options: Any) -> Stack:
    return Stack(*arguments, **options, graphs=kind(capturing(CUDA)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_slot_and_neighbours_do_not_matter(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, dtype: str
) -> None:
    """All optimizers and regularizers, stopped and refilled: each trial equals the trial alone."""
    specs = everything(make_spec)
    together = on_gpu(tokens, tmp_path, specs, stop={1: 1}, dtype=dtype)
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        stop = {0: 1} if number == 1 else None
        (alone,) = on_gpu(tokens, tmp_path, [spec], stop=stop, dtype=dtype)
        assert_same(alone, outcome)


@pytest.mark.parametrize("choice", SINGLE)
def test_slot_does_not_matter_for_any_choice(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, choice: str
) -> None:
    spec = make_spec(model={**SIZES, **SINGLE[choice]}, dropout=0.1, steps=8)
    first, *others = on_gpu(tokens, tmp_path, [spec] * WIDTH, dtype="bfloat16")
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 8])
def test_width_matters_in_the_last_bits_at_most(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, dtype: str, width: int
) -> None:
    specs = [make_spec(seed=i, steps=12, dropout=0.1) for i in range(3)]
    expected = on_gpu(tokens, tmp_path, specs, dtype=dtype)
    found = train(tokens, tmp_path, specs, slots=width, width=width, device="cuda", dtype=dtype)
    for a, b in zip(expected, found, strict=True):
        assert_near(a, b, 1e-2 if dtype == "bfloat16" else 1e-3)


def test_cuda_graphs_change_no_bits(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [make_spec(seed=i, steps=20, batch_size=4) for i in range(6)]
    counted, plain = (partial(_stack, kind) for kind in (Counted, NoGraphs))
    monkeypatch.setattr(engine, "Stack", counted)
    graphs = on_gpu(tokens, tmp_path, specs)
    assert Counted.replayed > 50
    monkeypatch.setattr(engine, "Stack", plain)
    for a, b in zip(graphs, on_gpu(tokens, tmp_path, specs), strict=True):
        assert_same(a, b)


def test_kernel_of_the_update_changes_nothing(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a last bit: a trial's neighbours decide if the kernel is used."""
    kernel = pytest.importorskip("model.optimizers.adamw_triton")
    specs = adamw_specs(make_spec)
    launches = 0

    class Watched(kernel.Kernel):  # type: ignore[misc, name-defined]
        def apply_(self, *tensors: torch.Tensor) -> None:
            nonlocal launches
            launches += 1
            super().apply_(*tensors)

    monkeypatch.setattr(kernel, "Kernel", Watched)
    with_kernel = on_gpu(tokens, tmp_path, specs)
    assert launches
    monkeypatch.setattr(stack, "_kernel", lambda _: None)
    for a, b in zip(with_kernel, on_gpu(tokens, tmp_path, specs), strict=True):
        assert_same(a, b)


def test_float32_is_near_the_cpu(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    specs = everything(make_spec)
    on_cpu = train(tokens, tmp_path / "cpu", specs, slots=2, width=1)
    for a, b in zip(on_cpu, on_gpu(tokens, tmp_path / "gpu", specs), strict=True):
        assert_near(a, b, 1e-3)


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16"])
def test_lower_precision_reaches_the_loss_of_float32(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, dtype: str
) -> None:
    spec = make_spec(steps=60, reports=3)
    (exact,) = on_gpu(tokens, tmp_path, [spec])
    (rounded,) = on_gpu(tokens, tmp_path, [spec], dtype=dtype)
    assert [r[2] for r in rounded[0]] == pytest.approx([r[2] for r in exact[0]], rel=0.02)
