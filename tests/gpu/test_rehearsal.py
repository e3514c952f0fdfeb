"""The code of a GPU, rehearsed on a stand-in: devices, graphs, and what the host waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.corpus.dataset import TextDataset
from model.corpus.device_dataset import on_device
from model.corpus.pairs import PairDataset
from model.device.async_copy import begin_copy, begin_upload
from model.device.precision import Precision
from model.engine import calibration, engine
from model.engine.calibration import Setup, slots_for
from model.engine.report import Status
from model.stack import stack
from model.stack.cuda_graphs import capturing
from model.stack.plan import QuantumPlan
from model.stack.stack import Stack
from tests.conftest import MakeSpec, last_state
from tests.gpu.stand_in import OnGpu, StandIn
from tests.gpu.stand_in_cuda import stand_in_for_a_gpu
from tests.model.optimizers.test_adamw_triton import interpreted  # noqa: F401
from tests.model.stack.test_stack import SIZES, Recorded, as_on_a_gpu, assert_near  # noqa: F401
from tests.model.test_law import Tokens, assert_same, train

pytestmark = [
    pytest.mark.slow,  # the first test imports the fake tensors of torch
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the others test it"),
]
CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(stack, "_kernel", lambda _: None)
    with stand_in_for_a_gpu() as made:
        yield made


# the stand-in ------------------------------------------------------------------------------------

WAITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "tolist": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "asynchronously to memory that is not pinned": lambda x: torch.empty(3).copy_(x, True),
    "by a mask": lambda x: x[x > 0],
    "written by a mask": lambda x: x.__setitem__(x > 0, 1.0),
    "by a list": lambda x: x[[0, 2]],
    "nonzero": lambda x: x.nonzero(),
    "a list": lambda x: torch.tensor([1.0, 2.0], device=CUDA),
    "an array": lambda x: torch.from_numpy(np.ones(3)).to(CUDA),
    "an array, asynchronously": lambda x: torch.from_numpy(np.ones(3)).to(CUDA, non_blocking=True),
    "synchronize": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("what", WAITS)
def test_stand_in_notices_a_wait(gpu: StandIn, what: str) -> None:
    """And refuses it during the capture of a graph, as CUDA does."""
    x = torch.arange(3.0, device=CUDA)
    assert gpu.waits == []
    WAITS[what](x)
    assert len(gpu.waits) == 1
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        capturing(CUDA)(lambda: (WAITS[what](x),))


def test_stand_in_does_not_wait_for_what_a_gpu_orders(gpu: StandIn) -> None:
    x = begin_upload(np.arange(6.0).reshape(2, 3), CUDA)
    x[0] = 7.0
    x[1, 1:].masked_fill_(x[1, 1:] > 4, 0)
    y = torch.where(x > 0, x, 1.0) * torch.full((), 2.0) + x.new_zeros(3)
    assert (gpu.waits, gpu.uploads) == ([], 1)
    assert y.device == x.device == torch.device("cuda:0")
    assert y.tolist() == [[14, 14, 14], [6, 8, 2]]


def test_stand_in_refuses_two_devices(gpu: StandIn) -> None:
    x = torch.ones(3, device=CUDA)
    with pytest.raises(RuntimeError, match="cuda:0"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="cuda:0"):
        torch.cat([x, torch.ones(3)])


def test_stand_in_replays_with_the_memory_and_the_numbers_of_the_capture(gpu: StandIn) -> None:
    x, total, factor = torch.ones(2, device=CUDA), torch.zeros(2, device=CUDA), 2.0
    replay, (y,) = capturing(CUDA)(lambda: (total.add_(x.view(2) * factor) + 1,))
    x, old, factor = torch.full((2,), 9.0, device=CUDA), x, 5.0
    assert total.tolist() == [0, 0], "a capture computes nothing"
    replay()
    old.fill_(3.0)
    replay()
    assert total.tolist() == [8, 8]
    assert y.tolist() == [9, 9]


@pytest.mark.parametrize("is_full", [False, True])
def test_snapshot_is_of_the_moment_at_which_it_began(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Although the copy on its own stream runs as late as possible."""
    x = torch.arange(4.0, device=CUDA)
    if is_full:

        def clone(row: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch.Tensor, "clone", clone)
    copied = begin_copy({"x": x[1:]})
    x.fill_(-1.0)
    assert gpu.waits == []
    assert copied()["x"].tolist() == [1, 2, 3]


# the trainer -------------------------------------------------------------------------------------


class Watched(Stack):
    """Counts what the host waits for, by what the engine asks of the stack."""

    gpu: StandIn
    waits: Counter[tuple[str, str]]
    calls: Counter[str]

    def _count(self, name: str, do: Callable[[], Any]) -> Any:
        before = len(self.gpu.waits)
        result = do()
        self.calls[name] += 1
        for wait in self.gpu.waits[before:]:
            self.waits[name, wait.what] += 1
        return result

    def run(self, plan: QuantumPlan) -> Any:
        wait = self._count("begin a quantum", lambda: super(Watched, self).run(plan))
        return lambda: self._count("end a quantum", wait)

    def evaluate(self, *arguments: Any) -> Any:
        return self._count("evaluate", lambda: super(Watched, self).evaluate(*arguments))

    def begin_snapshot(self, slot: int) -> Any:
        return self._count("snapshot", lambda: super(Watched, self).begin_snapshot(slot))

    def load(self, *arguments: Any, **options: Any) -> None:
        self._count("load", lambda: super(Watched, self).load(*arguments, **options))

    def sparsity(self, slot: int) -> float:
        share: float = self._count("sparsity", lambda: super(Watched, self).sparsity(slot))
        return share


@pytest.fixture
def watched(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(engine, "Stack", Watched)
    Watched.gpu, Watched.waits, Watched.calls = gpu, Counter(), Counter()
    return Watched


def trials(make_spec: MakeSpec) -> list[Any]:
    """Return trials that meet in a stack, and one that diverges."""
    make = partial(make_spec, model=SIZES)
    rows: list[dict[str, Any]] = [
        {"ema_decay": 0.9, "grad_clip_value": 0.01},
        {"dropout": 0.1, "label_smoothing": 0.1, "z_loss": 0.01},
        {
            "optimizer": "sgd",
            "max_learning_rate": 100.0,
            "weight_decay": 10.0,
            "steps": 12,
            "grad_clip": 0.0,
            "warmup_steps": 0,
        },
        {"optimizer": "muon", "batch_size": 6},
        {"target_sparsity": 0.5, "prune_interval_steps": 1, "token_noise": 0.1},
    ]
    return [make(**{"seed": seed, "steps": 6, **row}) for seed, row in enumerate(rows)]


def test_trials_on_the_stand_in_are_those_of_the_cpu(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, request: pytest.FixtureRequest
) -> None:
    """Bit for bit: in graphs, next to a diverging trial, stopped, refilled, from checkpoints."""
    specs = trials(make_spec)
    run = partial(train, tokens, slots=2, width=2, dtype="bfloat16")
    with pytest.MonkeyPatch.context() as patch, stand_in_for_a_gpu() as gpu:
        patch.setattr(stack, "_kernel", lambda _: None)
        found = run(tmp_path / "gpu", specs, device="cuda", stop={1: 1})
        saved = {0: last_state(tmp_path / "gpu", "1")}
        (resumed,) = run(tmp_path / "more", specs[1:2], device="cuda", resume=saved)
    assert gpu.replays > 10
    request.getfixturevalue("as_on_a_gpu")
    expected = run(tmp_path / "cpu", specs)
    assert Status.DIVERGED in {report[0] for outcome in expected for report in outcome[0]}
    whole = expected[1]
    expected[1] = (whole[0][:1], found[1][1])
    for one, other in zip(expected, found, strict=True):
        assert_same(one, other)
    assert_same((whole[0][1:], whole[1]), resumed)


def test_host_waits_once_for_a_quantum_and_once_for_a_report(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, gpu: StandIn, watched: type[Watched]
) -> None:
    train(tokens, tmp_path, trials(make_spec), slots=2, width=2, device="cuda")
    calls, waits = watched.calls, watched.waits
    assert calls["evaluate"] >= 10
    assert waits.pop(("begin a quantum", "synchronize")) == gpu.graphs, "of torch, at a capture"
    assert waits == {
        ("end a quantum", "copy to the host"): calls["end a quantum"],
        ("evaluate", "copy to the host"): calls["evaluate"],
        ("sparsity", "_local_scalar_dense"): calls["sparsity"],
    }
    assert calls["load"] == 5
    assert calls["snapshot"] >= 10


def test_load_of_a_checkpoint_waits_for_its_tensors_alone(
    make_spec: MakeSpec, gpu: StandIn, watched: type[Watched]
) -> None:
    made = watched(make_spec().architecture, 2, CUDA)
    made.load(0, 7)
    state = made.snapshot(0)
    assert watched.waits == {}
    made.load(1, 8, state)
    assert watched.waits == {("load", "copy of pageable memory to the device"): len(state)}
    for name, tensor in made.snapshot(1).items():
        assert torch.equal(tensor, state[name])


def test_encoder_decoder_trains_on_the_stand_in(
    tmp_path: Path,
    pairs: tuple[PairDataset, PairDataset],
    make_spec: MakeSpec,
    gpu: StandIn,
    watched: type[Watched],
) -> None:
    sizes = {"n_encoder_layers": 1, "source_length": 6}
    specs = [make_spec(steps=4, reports=2, model=sizes, seed=seed) for seed in range(2)]
    for reports, _ in train(pairs, tmp_path, specs, slots=2, width=2, device="cuda"):
        assert [report[0] for report in reports] == [Status.TRAINING, Status.FINISHED]
    assert watched.waits["evaluate", "copy to the host"] == watched.calls["evaluate"]
    assert watched.waits["begin a quantum", "synchronize"] == gpu.graphs == 2


def test_calibration_on_the_stand_in(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precision = Precision.of("tf32", CUDA)
    precision.set_up(CUDA)
    monkeypatch.setattr(calibration, "_MAX_WIDTH", 2)
    text = TextDataset(tokens[0])
    setup = Setup(text, CUDA, precision, on_device(text, CUDA))
    file = tmp_path / "calibration.json"
    slots = slots_for(make_spec(), setup, file)
    assert slots in {1, 2}
    assert '"device": "cuda: stand-in' in file.read_text(encoding="utf-8")


def test_kernel_of_the_update_is_launched_in_graphs(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    interpreted: Any,  # noqa: F811
) -> None:
    """Interpreted; near the single operations, whose square root of a CPU is not that of IEEE."""
    specs = [make_spec(model=SIZES, steps=4, reports=1, weight_decay=x) for x in (0.1, 0.3)]
    run = partial(train, tokens, specs=specs, slots=2, width=2, device="cuda")
    expected = run(folder=tmp_path / "single")
    kernel, launched = interpreted._adamw, list[tuple[int, ...]]()

    class Launcher:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*arguments: Any, **options: Any) -> None:
                launched.append(grid)
                assert all(isinstance(x, OnGpu) for x in arguments if isinstance(x, torch.Tensor))
                numbers = [x.numbers if isinstance(x, OnGpu) else x for x in arguments]
                gpu.launch(partial(kernel[grid], *numbers, **options))

            return launch

    monkeypatch.setattr(interpreted, "_adamw", Launcher())
    monkeypatch.setattr(
        stack, "_kernel", lambda m: interpreted.Kernel(m.layout, m.theta.shape[1], m.device)
    )
    gpu.waits.clear()
    for one, other in zip(expected, run(folder=tmp_path / "kernel"), strict=True):
        assert_near(one, other, 1e-5)
    assert len(launched) == 2, "one tick without a graph, and one capture"
    assert [wait.what for wait in gpu.waits if "adamw_triton" in wait.place] == [
        "copy of pageable memory to the device"
    ], "of the constructor"
