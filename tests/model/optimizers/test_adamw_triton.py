"""The kernel that updates the slots of a GPU, run on a CPU by Triton's interpreter."""

from __future__ import annotations

import re
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import optimizers
from model.optimizers.layout import Layout
from model.optimizers.registry import OPTIMIZERS, coefficients
from model.optimizers.update_rule import Coefficients, stack_rows, update
from model.spec.derive import derive
from model.stack import stack
from model.stack.matrices import Matrices
from tests.conftest import MakeSpec
from tests.model.spec.test_multipliers import proxy
from tests.model.stack.test_stack import SIZES, Recorded, as_on_a_gpu, assert_near  # noqa: F401
from tests.model.test_law import Tokens, assert_same, train

triton = pytest.importorskip("triton")


@pytest.fixture(scope="module")
def interpreted() -> Any:
    """A second copy of the kernel's module, interpreted; GPU tests compile the first one."""
    file = Path(optimizers.__file__).with_name("adamw_triton.py")
    module_spec = spec_from_file_location("interpreted_kernel", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = module_from_spec(module_spec)
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        module_spec.loader.exec_module(module)
    return module


@pytest.fixture
def with_kernel(
    monkeypatch: pytest.MonkeyPatch,
    interpreted: Any,
    as_on_a_gpu: Recorded,  # noqa: F811
) -> list[int]:
    """Stacks as on a GPU, updated by the kernel; number of updated slots of each launch."""
    launches: list[int] = []

    class Counted(interpreted.Kernel):  # type: ignore[misc]
        def apply_(self, *tensors: torch.Tensor) -> None:
            launches.append(int(tensors[-1].sum()))
            super().apply_(*tensors)

    def kernel(own: Matrices) -> Counted:
        return Counted(own.layout, own.theta.shape[1], own.device)

    monkeypatch.setattr(stack, "_kernel", kernel)
    return launches


def adamw_specs(make_spec: MakeSpec) -> list[Any]:
    """Return trials of AdamW that differ in all inputs of the kernel."""
    rows: list[dict[str, Any]] = [
        {"weight_decay": 0.3, "gain_decay": 0.2, "embedding_decay": 0.1, "beta1": 0.8},
        {"eps": 1e-3, "beta2": 0.9, "grad_clip": 0.5},
        {"grad_clip_value": 0.01, "schedule": "wsd"},
        {"ema_decay": 0.9, "batch_size": 6},
    ]
    return [
        make_spec(**{"model": SIZES, "steps": 4, "batch_size": 4, "seed": seed, **row})
        for seed, row in enumerate(rows)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernel_equals_torch(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, request: pytest.FixtureRequest, dtype: str
) -> None:
    """Against updates slot by slot, with torch's own kernel."""
    specs = adamw_specs(make_spec)
    expected = train(tokens, tmp_path / "rows", specs, slots=1, width=1, dtype=dtype)
    launches = request.getfixturevalue("with_kernel")
    actual = train(tokens, tmp_path / "kernel", specs, slots=3, width=3, dtype=dtype)
    for a, b in zip(expected, actual, strict=True):
        assert_near(a, b, 1e-2 if dtype == "bfloat16" else 1e-4)
    assert {1, 3} <= set(launches), "some slots rest while others move"


@pytest.mark.slow
def test_neighbours_do_not_matter(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, with_kernel: list[int]
) -> None:
    specs = adamw_specs(make_spec)
    together = train(tokens, tmp_path, specs, slots=3, width=3)
    for spec, outcome in zip(specs, together, strict=True):
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
        assert_same(alone, outcome)
    assert with_kernel


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "adamw with l1"])
def test_kernel_is_for_adamw_alone(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, with_kernel: list[int], optimizer: str
) -> None:
    """Other features are computed operation by operation."""
    options = {"optimizer": optimizer} if optimizer in OPTIMIZERS else {"l1_penalty": 0.01}
    spec = make_spec(model=SIZES, steps=2, weight_decay=0.1, **options)
    train(tokens, tmp_path, [spec], slots=1, width=1)
    assert bool(with_kernel) == (optimizer == "adamw")


def test_kernel_decays_each_part_and_skips_inactive_slots(interpreted: Any) -> None:
    """A step with m, v and g of zero only decays: θ − α·λ·θ, each kind of weight by its own λ."""
    layout = Layout((slice(64, 192),), (slice(0, 64),), (slice(192, 256),))
    theta = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    row = {"learning_rate": 0.5, "a1": 0.9, "c1": 1.0, "a2": 0.9, "c2": 1.0, "eps": 1e-8}
    decays = {"decoupled": 0.1, "decoupled_embeddings": 0.2, "decoupled_gains": 0.4}
    rows = torch.tensor([[{**row, **decays}.get(name, 0.0) for name in Coefficients._fields]] * 3)
    new, m, v, g, copy = theta.clone(), *torch.zeros(3, 3, 256), torch.zeros(3, 256).bfloat16()
    g[1:] = 7.0  # the second is due but has diverged, the third is between two updates
    due, moves = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    infinite = torch.full((3,), torch.inf)
    kernel = interpreted.Kernel(layout, 256, torch.device("cpu"))
    kernel.apply_(new, m, v, g, copy, rows, torch.ones(3), infinite, due, moves)
    factors = torch.tensor([0.9, 0.95, 0.95, 0.8]).repeat_interleave(64)
    torch.testing.assert_close(new[0], theta[0] * factors)
    torch.testing.assert_close(copy[0].float(), new[0], rtol=0.01, atol=0)
    assert torch.equal(new[1:], theta[1:])
    assert g[:, 0].tolist() == [0.0, 0.0, 7.0]
    assert not m.any()
    assert not copy[1:].any()


def test_kernel_has_the_factors_of_each_tensor(interpreted: Any) -> None:
    """The model of a proxy, beside the single operations of the update rule."""
    own = Matrices(proxy(), 2, torch.device("cpu"), torch.float32)
    generator = torch.Generator().manual_seed(0)
    theta, m, v, g = (torch.randn(own.theta.shape, generator=generator) for _ in range(4))
    values = {"weight_decay": 0.4, "embedding_decay": 0.3, "gain_decay": 0.2, "eps": 0.02}
    h = derive({**values, "total_steps": 9}, train_sequences=100, context_length=8)
    rows = stack_rows(np.array([coefficients(step, 0.05, h) for step in (2, 5)]), "cpu")
    expected = update(theta, m, v.abs(), g, rows, own.layout)
    new = theta.clone(), m.clone(), v.abs(), g.clone()
    packed = torch.stack([torch.as_tensor(x).expand(2, 1)[:, 0] for x in rows], 1).contiguous()
    every = torch.ones(2, dtype=torch.bool)
    kernel = interpreted.Kernel(own.layout, theta.shape[1], torch.device("cpu"))
    infinite = torch.full((2,), torch.inf)
    kernel.apply_(*new, new[0], packed, torch.ones(2), infinite, every, every)
    for one, other in zip(new, expected, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernel_compiles_for_gpus_without_spills_and_rounds_after_each_operation(
    tmp_path: Path, capability: int, dtype: str
) -> None:
    """Compiling needs no GPU. Other rounding would show as `fma` or an approximate quotient."""
    from model.optimizers.adamw_triton import _adamw

    types = {"due": "*u8", "moves": "*u8", "decays": "*i32", "size": "i32", "copy": f"*{dtype}"}
    constants = {
        "columns": len(Coefficients._fields), "HAS_COPY": dtype != "fp32",
        "HAS_FACTORS": dtype != "fp32", "BLOCK": 1024,
    }  # fmt: skip
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32")
        for name in _adamw.arg_names
    }
    # what the launcher finds: torch aligns memory of a GPU, and `Matrices` the parameters
    aligned: dict[Any, Any] = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(_adamw.arg_names)
        if name not in constants
    }
    source = triton.compiler.ASTSource(_adamw, signature, constexprs=constants, attrs=aligned)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm
    words = set(re.findall(r"[a-z][a-z0-9]*(?:\.[a-z0-9]+)+", compiled["ptx"]))
    words = {word.removesuffix("x2") for word in words}  # two numbers at a time, rounded alike
    assert f"sm_{capability}" in compiled["ptx"]
    assert {"div.rn.f32", "sqrt.rn.f32", "mul.rn.f32", "add.rn.f32"} <= words
    assert not [word for word in words if word.startswith("fma") or "approx" in word]
    assert {"ld.global.v4.b32", "st.global.v4.b32"} <= words, "16 bytes at a time"
    code = tmp_path / "kernel.cubin"
    code.write_bytes(compiled["cubin"])
    usage = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(code)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    assert (found["STACK"], found["LOCAL"]) == ("0", "0"), "spilled registers"
    assert int(found["REG"]) <= 128, "at least four blocks of 128 threads on a multiprocessor"
