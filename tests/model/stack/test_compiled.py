"""Compiled ticks: the law, the numbers of eager ticks, one compilation for many trials.

Two kinds of ticks are compiled once for all runs of the tests; another process compiles a third.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.engine.engine import Engine
from model.engine.report import Status
from model.errors import CompileError
from model.optimizers.adamw_compiled import CompiledAdamW, load_kernel
from model.optimizers.adamw_fused import adamw_
from model.optimizers.update_rule import Coefficients
from model.spec.trial import TrialSpec
from model.stack import compiled
from model.stack.matrices import Matrices
from tests.conftest import MakeSpec, last_state
from tests.model.test_law import Tokens, assert_same, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SHAPE = {"d_model": 12, "n_layers": 1, "n_heads": 2, "context_length": 7, "d_ff": 32}
_KEPT = 12  # files of the cache
RICH = {"dropout": 0.2, "label_smoothing": 0.1, "z_loss": 0.01}  # adds code to a tick
CODE = """
import sys
import numpy as np
from model.engine.engine import Engine
from model.spec.trial import TrialSpec
tokens = np.load(sys.argv[1]), np.load(sys.argv[2])
spec = TrialSpec.model_validate_json(sys.argv[3])
for report in Engine(*tokens, slots=1, is_compiled=True, dtype=sys.argv[4]).run([spec]):
    print(list(report.metrics().values()))
"""


@pytest.fixture(scope="module")
def cache_home() -> Iterator[Path]:
    """A cache of compiled code that outlives this run: names are digests of source and compiler."""
    home = Path.home() / ".cache" / "tuner-tests"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in sorted(packages(home), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        load_kernel.cache_clear()  # a test before may have loaded it from another cache
        yield home


@pytest.fixture(autouse=True)
def _cache(cache_home: Path) -> None:
    """Every test of this module uses the cache."""


@pytest.fixture
def make(make_spec: MakeSpec) -> MakeSpec:
    """A specification of the one shape of these tests."""
    return partial(make_spec, model=SHAPE)


def various(make: MakeSpec) -> list[TrialSpec]:
    """Trials of two kinds of ticks, all ways of updating, and one that diverges."""
    return [
        make(seed=0, batch_size=2, steps=6),
        make(seed=1, batch_size=6, steps=5, grad_clip=0.3, **RICH),
        make(seed=2, batch_size=4, steps=7, optimizer="momentum"),
        make(seed=3, batch_size=2, steps=9, max_learning_rate=0.03, ema_decay=0.5),
        make(seed=4, batch_size=4, steps=6, grad_clip_value=0.05, **RICH),
        make(seed=5, batch_size=2, steps=8, target_sparsity=0.5, prune_interval_steps=1),
        make(
            seed=6, steps=9, optimizer="sgd", schedule="constant", learning_rate=100.0,
            weight_decay=10.0, grad_clip=0.0, warmup_steps=0,
        ),
        make(seed=7, batch_size=2, steps=6, weight_decay=0.3, embedding_decay=0.2, gain_decay=0.1),
    ]  # fmt: skip


def packages(home: Path) -> set[Path]:
    """Compiled code in a cache: the kinds of ticks, the loop of AdamW."""
    return set((home / "tuner" / "compiled").glob("*.so"))


def test_compiled_trial_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make: MakeSpec, cache_home: Path
) -> None:
    """Alone, in interleaved stacks and after refills: the same bits, by two kinds of ticks."""
    specs, stop, before = various(make), {1: 1, 2: 2}, packages(cache_home)
    together = train(tokens, tmp_path, specs, slots=3, width=1, stop=stop, late=1, is_compiled=True)
    # the kept libraries may have some of them already
    assert len(packages(cache_home) - before) <= 2 + 1
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        stopped = {0: stop[number]} if number in stop else None
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, stop=stopped, is_compiled=True)
        assert_same(alone, outcome)
    assert together[6][0][-1][0] is Status.DIVERGED


def test_compiled_ticks_have_the_numbers_of_eager_ones(
    tmp_path: Path, tokens: Tokens, make: MakeSpec
) -> None:
    specs = [spec for spec in various(make) if spec.seed != 6]
    both = (
        train(tokens, tmp_path / str(on), specs, slots=1, width=1, is_compiled=on)
        for on in (False, True)
    )
    for spec, eager, ours in zip(specs, *both, strict=True):
        for old, new in zip(eager[0], ours[0], strict=True):
            assert new[0] is old[0]
            assert new[2:] == pytest.approx(old[2:], rel=2e-4), spec.seed
        assert eager[1] is not None
        assert ours[1] is not None
        for name, tensor in eager[1].items():
            if name.startswith("weights."):
                assert (ours[1][name] - tensor).norm() <= 2e-3 * tensor.norm(), (spec.seed, name)


@pytest.mark.parametrize("more", [{}, RICH])
def test_compiled_resume_equals_uninterrupted(
    tmp_path: Path, tokens: Tokens, make: MakeSpec, more: dict[str, Any]
) -> None:
    spec = make(steps=11, reports=4, token_noise=0.2, grad_clip=0.5, **more)
    run = partial(train, tokens, width=1, is_compiled=True)
    (whole,) = run(tmp_path / "whole", [spec], slots=1)
    (begun,) = run(tmp_path / "begun", [spec], slots=1, stop={0: 2})
    saved = last_state(tmp_path / "begun")
    other = make(seed=9, steps=7)
    _, rest = run(tmp_path / "rest", [other, spec], slots=2, resume={1: saved})
    assert_same(whole, (begun[0] + rest[0], rest[1]))


def test_cold_and_warm_processes_give_the_same_bits(
    tmp_path: Path, tokens: Tokens, make: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With products in bfloat16; also beside others, and near to the numbers of eager ticks."""
    dtype = "mixed_bfloat16"
    spec = make(batch_size=2, steps=6)
    files = [tmp_path / "train.npy", tmp_path / "validation.npy"]
    for path, array in zip(files, tokens, strict=True):
        with path.open("wb") as file:
            np.save(file, array)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, files), spec.model_dump_json(), dtype],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {file: file.stat().st_ino for file in packages(tmp_path)}
    assert len(made) == 1 + 1  # that process was cold
    alone, eager, *others = (
        [
            [*report.metrics().values()]
            for report in Engine(*tokens, slots=3, dtype=dtype, is_compiled=is_compiled).run(specs)
            if report.trial_id == "0"
        ]
        for specs, is_compiled in (([spec], True), ([spec], False), ([spec] * 3, True))
    )
    assert {file: file.stat().st_ino for file in packages(tmp_path)} == made  # warm here
    assert done.stdout.splitlines() == [str(row) for row in alone]
    assert others == [alone]
    assert eager != alone
    for old, new in zip(eager, alone, strict=True):
        assert new == pytest.approx(old, rel=1e-2)


def test_damaged_code_is_deleted(
    tmp_path: Path, tokens: Tokens, make: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start compiles anew: a trial that fails names the file."""
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(b"\x7fELF")
    monkeypatch.setattr(compiled, "compiled_file", lambda kind: damaged)
    engine = Engine(*tokens, slots=1, is_compiled=True)
    with pytest.raises(CompileError, match=r"damaged\.so cannot be loaded and was deleted"):
        list(engine.run([make(micro_batch=1, batch_size=1)]))
    assert not damaged.exists()


@pytest.mark.parametrize("choice", [{"device": "cpu", "width": 2}, {"device": "meta"}])
def test_engine_compiles_on_a_cpu_only(tokens: Tokens, choice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ticks are compiled on a CPU only"):
        Engine(*tokens, is_compiled=True, **choice)


def test_update_in_one_pass_equals_torch(make: MakeSpec) -> None:
    """AdamW of a complete row, beside torch's kernel, with three decays and clipping."""
    matrices = Matrices(make().architecture, 1, torch.device("cpu"), torch.float32)
    size = matrices.theta.shape[1]
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(4, size, generator=generator).abs() * 0.1
    row[2] *= 0.01
    c = Coefficients(
        0.01, 0.0, 0.3, 0.9, 0.1, 1 - 0.9**3, 0.99, 0.01, 1 - 0.99**3, 1e-8, 1.0,
        decoupled_embeddings=0.2, decoupled_gains=0.1, updates=3.0,
    )  # fmt: skip
    old, new = row.clone(), row.clone()
    CompiledAdamW(matrices.layout, size).apply_(*new, c, 0.5)
    parts = [[x[part] for part in matrices.layout.tensors] for x in old]
    adamw_(*parts[:3], [g * 0.5 for g in parts[3]], c, matrices.layout)
    torch.testing.assert_close(new[:3], old[:3], rtol=1e-5, atol=1e-7)
    assert not torch.equal(new[0], row[0])
