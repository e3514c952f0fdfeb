"""Faults that an engine survives: out of memory, full disks, damaged checkpoints, NaN."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints import checkpoint
from model.checkpoints.store import CheckpointRef, checkpoint_path
from model.device.memory import is_out_of_memory
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from model.stack.plan import QuantumPlan
from model.stack.stack import Stack
from tests.conftest import MakeSpec

Tokens = tuple[np.ndarray, np.ndarray]


def numbers(reports: list[Report]) -> dict[str, list[tuple[Any, ...]]]:
    """Return all reports of each trial in order, with NaN as None."""
    actual: dict[str, list[tuple[Any, ...]]] = {}
    for r in reports:
        values = [repr(value) for value in r.metrics().values()]
        actual.setdefault(r.trial_id, []).append((r.status, r.step, *values))
    return actual


_peace: dict[str, list[tuple[Any, ...]]] = {}  # of a stack that always had memory


def turn_all(engine: Engine, specs: list[TrialSpec]) -> list[Report]:
    for number, spec in enumerate(specs):
        engine.add_trial(str(number), spec)
    reports = []
    while engine.num_pending:
        reports += engine.step()
    return reports


# memory -----------------------------------------------------------------------------------------

OUT_OF_MEMORY: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_no_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("not enough memory"))
    with pytest.raises(RuntimeError, match="allocat"):
        torch.empty(2**60)
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        assert is_out_of_memory(error), error


class Memory:
    """Lets stacks be made and run up to a width; counts the refusals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_tick = self.in_making = self.in_evaluation = math.inf
        self.runs_before = 0  # quanta that go well before the first refusal
        self.refusals = 0
        self.error: Exception = torch.OutOfMemoryError("CUDA out of memory")
        run, make, evaluate = Stack.run, Stack.__init__, Stack.evaluate

        def running(stack: Stack, plan: QuantumPlan) -> Any:
            self.runs_before -= 1
            if self.runs_before < 0:
                self._refuse(stack.width > self.in_tick)
            return run(stack, plan)

        def making(stack: Stack, architecture: Any, width: int, *rest: Any, **more: Any) -> None:
            self._refuse(width > self.in_making)
            make(stack, architecture, width, *rest, **more)

        def evaluating(stack: Stack, slots: list[int], *rest: Any) -> Any:
            self._refuse(stack.width > self.in_evaluation)
            return evaluate(stack, slots, *rest)

        monkeypatch.setattr(Stack, "run", running)
        monkeypatch.setattr(Stack, "__init__", making)
        monkeypatch.setattr(Stack, "evaluate", evaluating)

    def _refuse(self, refused: bool) -> None:
        if refused:
            self.refusals += 1
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize(
    ("where", "fits", "runs_before"),
    [
        ("in_making", 3, 0),
        ("in_making", 1, 0),
        ("in_tick", 2, 0),
        ("in_tick", 2, 7),
        ("in_tick", 1, 7),
        ("in_evaluation", 2, 0),
    ],
)
def test_stack_narrows_when_memory_runs_out(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    fits: int,
    runs_before: int,
    saved: bool,
) -> None:
    """No report is lost, repeated or changed, and all trials finish."""
    specs = [make_spec(seed=i, steps=9 + i % 3, reports=3, dropout=0.1) for i in range(6)]
    if not _peace:
        _peace.update(numbers(turn_all(Engine(*tokens, slots=4, width=4), specs)))
    memory = Memory(monkeypatch)
    setattr(memory, where, fits)
    memory.runs_before = runs_before
    engine = Engine(*tokens, slots=4, width=4, checkpoint_dir=tmp_path if saved else None)
    reports = turn_all(engine, specs)
    assert numbers(reports) == _peace
    assert engine.failures == {}
    assert 1 <= engine.width <= fits
    assert engine.width == {3: 2, 2: 2, 1: 1}[fits]
    assert memory.refusals <= 3, "each refusal halves"
    with_problem = {r.trial_id for r in reports if r.problem}
    assert bool(with_problem) == (where != "in_making")
    assert all("memory ran out" in r.problem for r in reports if r.problem)


@pytest.mark.slow
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_every_sign_of_lacking_memory_narrows(
    tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    specs = [make_spec(seed=i, steps=3) for i in range(2)]
    memory = Memory(monkeypatch)
    memory.in_tick, memory.error = 1, error
    reports = turn_all(Engine(*tokens, slots=2, width=2), specs)
    assert [r.status for r in reports].count(Status.FINISHED) == 2


@pytest.mark.slow
def test_small_stacks_make_room_for_each_other(
    tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU each stack has one slot; the memory is that of two of them."""
    specs = [make_spec(seed=i, steps=6 + 3 * (i % 2)) for i in range(5)]
    peace = numbers(turn_all(Engine(*tokens, slots=3), specs))
    engine = Engine(*tokens, slots=3)
    make, refusals = Stack.__init__, []

    def making(stack: Stack, *args: Any, **more: Any) -> None:
        if len(engine._stacks) == 2:
            refusals.append(1)
            raise MemoryError
        make(stack, *args, **more)

    monkeypatch.setattr(Stack, "__init__", making)
    assert numbers(turn_all(engine, specs)) == peace
    assert (engine.slots, engine.failures) == (2, {})
    assert len(refusals) == 1


@pytest.mark.slow
def test_trial_that_does_not_fit_fails_alone(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other trials lose nothing, and the number of slots is restored."""
    giant = make_spec(model={"d_ff": 64})
    specs = [make_spec(seed=i, steps=9) for i in range(3)]
    specs = [specs[0], giant, *specs[1:], make_spec(seed=3, steps=6)]
    peace = numbers(turn_all(Engine(*tokens, slots=4, width=4), specs))
    make = Stack.__init__

    def making(stack: Stack, architecture: Any, *args: Any, **more: Any) -> None:
        if architecture.d_ff == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        make(stack, architecture, *args, **more)

    monkeypatch.setattr(Stack, "__init__", making)
    engine = Engine(*tokens, slots=4, width=4, checkpoint_dir=tmp_path)
    actual = numbers(turn_all(engine, specs))
    assert list(engine.failures) == ["1"]
    assert "does not fit on cpu even alone (CUDA out of memory)" in str(engine.failures["1"])
    assert actual == {trial: r for trial, r in peace.items() if trial != "1"}
    assert (engine.slots, engine.width) == (4, 4)
    engine.failures.clear()
    assert engine.num_pending == 0
    with pytest.raises(RuntimeError, match="does not fit"):
        list(engine.run([giant]))


# disks ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_disk_ends_no_training(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report names the problem, and the next report tries again."""
    spec = make_spec(steps=10, reports=5)
    peace = turn_all(Engine(*tokens), [spec])
    write, attempts = checkpoint.write, []

    def writing(path: Path, *args: Any) -> bool:
        attempts.append(path)
        if len(attempts) in {2, 3}:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args)

    monkeypatch.setattr(checkpoint, "write", writing)
    reports = turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [spec])
    assert numbers(reports) == numbers(peace)
    said = [None if r.problem is None else r.problem for r in reports]
    full = "the checkpoint of update {} could not be saved: No space left on device"
    assert said == [None, full.format(4), full.format(6), None, None]
    saved = [r.step for r in reports if r.checkpoint is not None]
    assert saved == [2, 8, 10]
    assert all("problem" not in r.metrics() for r in reports)


def test_full_disk_leaves_no_files(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    """A folder that cannot be made, as after the disk was mounted read-only."""
    (tmp_path / "0").write_text("in the way")
    reports = turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [make_spec()])
    assert [r.checkpoint for r in reports] == [None] * 3
    assert all(r.problem and "could not be saved" in r.problem for r in reports)


# resuming ---------------------------------------------------------------------------------------


def go_on(
    tokens: Tokens, folder: Path, spec: TrialSpec, resume: CheckpointRef | Path | None, after: int
) -> list[Report]:
    engine = Engine(*tokens, checkpoint_dir=folder)
    engine.add_trial("0", spec, resume=resume, after=after)
    reports = []
    while engine.num_pending:
        reports += engine.step()
    assert engine.failures == {}
    return reports


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2, 4, 6, 8])
@pytest.mark.parametrize("damaged", [(), (2,), (4, 6), (2, 4, 6, 8)])
def test_reports_up_to_a_step_are_not_repeated(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, after: int, damaged: tuple[int, ...]
) -> None:
    """Whichever checkpoints are undamaged, the remaining reports equal an undisturbed run."""
    spec = make_spec(steps=10, reports=5, dropout=0.1)
    undisturbed = turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [spec])
    for step in damaged:
        path = checkpoint_path(tmp_path, "0", step)
        path.write_bytes(path.read_bytes()[:-1])
    rest = go_on(tokens, tmp_path, spec, CheckpointRef("0", after), after)
    assert numbers(rest) == numbers([r for r in undisturbed if r.step > after])
    for report in undisturbed:
        assert report.checkpoint is not None
        if report.step not in damaged or report.step > after:
            checkpoint.read(Path(report.checkpoint))


@pytest.mark.slow
def test_newer_states_than_the_last_report_are_not_used(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """The reports in between did not arrive."""
    spec = make_spec(steps=10, reports=5)
    undisturbed = turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [spec])
    rest = go_on(tokens, tmp_path, spec, CheckpointRef("0", 4), 4)
    assert [r.step for r in rest] == [6, 8, 10]
    assert numbers(rest) == numbers(undisturbed[2:])


@pytest.mark.slow
def test_states_of_another_specification_are_not_used(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [make_spec(seed=1)])
    spec = make_spec(seed=2)
    undisturbed = turn_all(Engine(*tokens), [spec])
    assert numbers(go_on(tokens, tmp_path, spec, CheckpointRef("0", 8), 0)) == numbers(undisturbed)


def test_new_trial_cleans_its_folder(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    left = tmp_path / "0" / ".000000004.safetensors.x1y2"
    left.parent.mkdir()
    left.write_bytes(b"half a state")
    turn_all(Engine(*tokens, checkpoint_dir=tmp_path), [make_spec(steps=3)])
    assert sorted(p.name for p in left.parent.iterdir()) == [
        f"{step:09d}.safetensors" for step in (1, 2, 3)
    ]


def test_engine_deletes_requested_checkpoints(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    engine = Engine(*tokens, checkpoint_dir=tmp_path)
    turn_all(engine, [make_spec(steps=4, reports=4)])
    engine.prune_checkpoints("0", 3)
    assert sorted(int(p.stem) for p in (tmp_path / "0").iterdir()) == [2, 3, 4]
    engine.delete_checkpoints("0")
    assert list(tmp_path.iterdir()) == []
    Engine(*tokens).prune_checkpoints("0", 3)
    Engine(*tokens).delete_checkpoints("0")


# gradients --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rows", [{}, {"grad_clip": 0.0}, {"optimizer": "momentum"}])
def test_broken_gradient_harms_its_slot_only(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, rows: dict[str, Any]
) -> None:
    """The neighbours are bit-equal to their own undisturbed runs, and the slot is refilled."""
    specs = [make_spec(seed=i, steps=12, dropout=0.1, **rows) for i in range(5)]
    peace = numbers(turn_all(Engine(*tokens, slots=4, width=4), specs))
    states = {r: checkpoint_of(tokens, specs[int(r)], tmp_path) for r in peace}
    for value in (math.nan, math.inf, -math.inf, 1e30):
        engine = Engine(*tokens, slots=4, width=4, checkpoint_dir=tmp_path / str(value))
        with broken_gradient(value):
            reports = turn_all(engine, specs)
        actual = numbers(reports)
        assert [(s, step) for s, step, *_ in actual["1"]] == [
            (Status.TRAINING, 4),
            (Status.DIVERGED, 6),
        ], value
        for trial in ("0", "2", "3", "4"):
            assert actual[trial] == peace[trial], value
            last = [r.checkpoint for r in reports if r.trial_id == trial][-1]
            assert last is not None
            state = checkpoint.read(Path(last))[0]
            assert all(torch.equal(state[name], states[trial][name]) for name in state), value
        order = [(r.trial_id, r.step) for r in reports]
        assert order.index(("4", 4)) < order.index(("2", 12)), "its row was refilled at once"


@contextmanager
def broken_gradient(value: float) -> Iterator[None]:
    """Put a value into the gradients of the second slot, in the middle of its sixth update."""
    real, calls = torch.autograd.grad, []

    def grad(*args: Any, **options: Any) -> Any:
        grads = real(*args, **options)
        calls.append(1)
        if len(calls) == 11:
            broken = grads[3][1]
            broken[(0,) * broken.dim()] = value
        return grads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", grad)
        yield


def checkpoint_of(tokens: Tokens, spec: TrialSpec, folder: Path) -> dict[str, torch.Tensor]:
    """Return the final state of a trial that trained alone."""
    (*_, last) = Engine(*tokens, width=1, checkpoint_dir=folder).run([spec])
    assert last.checkpoint is not None
    state = checkpoint.read(Path(last.checkpoint))[0]
    shutil.rmtree(folder / "0")
    return state
