"""Checkpoints are written during training, with the results of waiting for each write."""

from __future__ import annotations

import errno
import gc
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints import checkpoint
from model.checkpoints.store import CheckpointRef
from model.checkpoints.writer import LIMITS, Snapshot, Writer, WriterLimits
from model.device.async_copy import begin_copy
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from model.stack.stack import Stack
from tests.conftest import MakeSpec

Tokens = tuple[np.ndarray, np.ndarray]
PATIENCE_SECONDS = 20.0
ABOUT = {"trial_id": "0", "step": 1}
WILD: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "learning_rate": 100.0,
    "weight_decay": 10.0,
    "grad_clip": 0.0,
    "warmup_steps": 0,
}


class Disk:
    """A disk that can be blocked; records the writes in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_free = threading.Event()
        self.is_free.set()
        self.slow: set[int] = set()  # updates whose writes wait until the disk is free
        self.write_began = threading.Event()  # a write has begun
        self.written: list[tuple[str, int]] = []
        self.refused: set[int] = set()  # updates
        self._write = checkpoint.write
        monkeypatch.setattr(checkpoint, "write", self._writing)

    def _writing(self, path: Path, tensors: Any, metadata: Any, is_wanted: Any) -> bool:
        self.write_began.set()
        if not self.slow or metadata["step"] in self.slow:
            assert self.is_free.wait(PATIENCE_SECONDS)
        if metadata["step"] in self.refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        is_there = self._write(path, tensors, metadata, is_wanted)
        self.written += [(metadata["trial_id"], metadata["step"])] * is_there
        return is_there

    def hold(self) -> None:
        self.is_free.clear()


def content() -> Snapshot:
    return Snapshot(begin_copy({"x": torch.ones(9)}), lambda: ABOUT, 36)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def admit_all(engine: Engine, specs: list[TrialSpec]) -> None:
    for number, spec in enumerate(specs):
        engine.add_trial(str(number), spec)


def turn_all(engine: Engine) -> list[Report]:
    reports = []
    while engine.num_pending:
        reports += engine.step()
    return reports


def states(folder: Path) -> dict[str, tuple[str, Any]]:
    """Return the files of a folder by name: digest of the tensors, and metadata."""
    actual = {}
    for path in folder.rglob("*.*"):
        tensors, metadata = checkpoint.read(path)
        actual[path.relative_to(folder).as_posix()] = checkpoint.digest(tensors), metadata
    return actual


def steps_of(folder: Path, trial_id: str) -> list[int]:
    return sorted(int(path.stem) for path in (folder / trial_id).glob("*.safetensors"))


def relative(reports: list[Report], folder: Path) -> list[str]:
    """Return all fields of reports, with checkpoint paths relative to the folder."""
    return [repr(report).replace(str(folder), "") for report in reports]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 3])
def test_asynchronous_states_equal_synchronous_ones(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    """Equal bytes and equal reports, in equal order; one parent trains without reports."""
    parent = make_spec(seed=7, steps=9, reports=3, dropout=0.1)
    fields = parent.model_dump(exclude={"continues"}) | {"seed": 5}
    specs = [make_spec(seed=i, steps=6 + i, reports=3, ema_decay=0.5 * (i % 2)) for i in range(4)]
    specs.append(TrialSpec(**fields, continues=Continues(spec=parent, step=3)))
    specs.append(make_spec(steps=40, **WILD))
    engine = Engine(*tokens, slots=3, width=width, checkpoint_dir=tmp_path / "a")
    admit_all(engine, specs)
    actual = turn_all(engine)

    def submit(pool: Any, do: Any, *what: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(do(*what))
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    engine = Engine(*tokens, slots=3, width=width, checkpoint_dir=tmp_path / "s")
    admit_all(engine, specs)
    assert relative(actual, tmp_path / "a") == relative(turn_all(engine), tmp_path / "s")
    assert states(tmp_path / "a") == states(tmp_path / "s")
    assert {report.status for report in actual} == set(Status)


def test_training_continues_on_slow_disk(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    """No report is returned before its checkpoint; a finished trial's slot is refilled at once."""
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    admit_all(engine, [make_spec(seed=i, steps=4, reports=2) for i in range(3)])
    disk.hold()
    while engine.tokens < 3 * 4 * 32:
        assert engine.step() == []
    assert engine.num_pending > 0
    assert steps_of(tmp_path, "0") == []
    before = time.perf_counter()
    assert engine.step() == [], "nothing to train: it waits, but not for long"
    assert 0.01 < time.perf_counter() - before < PATIENCE_SECONDS / 2
    disk.is_free.set()
    reports = turn_all(engine)
    assert [(r.trial_id, r.step) for r in reports] == [(t, s) for t in "012" for s in (2, 4)]
    assert disk.written == [(r.trial_id, r.step) for r in reports]
    assert all(r.checkpoint and Path(r.checkpoint).is_file() for r in reports)


def test_reports_stay_in_order_when_several_threads_write(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    disk: Disk,
) -> None:
    """The first checkpoint is the last one on the disk."""
    monkeypatch.setitem(LIMITS, "cpu", WriterLimits(2**28, 3))
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", make_spec(steps=5, reports=5))
    disk.hold()
    disk.slow = {1}
    while len(disk.written) < 4:
        assert engine.step() == []
    disk.is_free.set()
    assert [r.step for r in turn_all(engine)] == [1, 2, 3, 4, 5]
    assert disk.written[-1] == ("0", 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_discarded_state_is_not_written_where_another_worker_may_write(
    tmp_path: Path, disk: Disk, threads: int
) -> None:
    """Another worker that resumes the trial writes a file of the same name."""
    writer, path = Writer(WriterLimits(2**28, threads)), tmp_path / "x"
    disk.hold()
    saving = writer.save("0", path, content())
    assert disk.write_began.wait(PATIENCE_SECONDS)
    writer.discard(saving)
    time.sleep(0.05)
    assert writer.num_pending == 2
    path.write_text("another's")
    disk.is_free.set()
    writer.wait_for("0")
    assert (writer.num_pending, disk.written, list(tmp_path.iterdir())) == (0, [], [path])
    assert path.read_text() == "another's"


def test_state_that_was_written_is_deleted_when_it_is_discarded(tmp_path: Path) -> None:
    writer = Writer(WriterLimits(2**28, 1))
    saving = writer.save("0", tmp_path / "x", content())
    writer.wait_for("0")
    assert (tmp_path / "x").is_file()
    writer.discard(saving)
    writer.wait_for("0")
    assert list(tmp_path.iterdir()) == []


def test_report_that_names_no_state_waits_for_those_before_it(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    wild = make_spec(steps=400, reports=400, **WILD)
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", wild)
    disk.hold()
    while engine._num_training or engine._waiting:
        assert engine.step() == []
    disk.is_free.set()
    reports = turn_all(engine)
    assert [r.step for r in reports] == list(range(1, len(reports) + 1))
    assert [r.status is Status.DIVERGED for r in reports].index(True) == len(reports) - 1 > 0


def test_slow_disk_slows_training_instead_of_filling_memory(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    """Two checkpoints fit; the third waits, and training with it."""
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    spec = make_spec(steps=6, reports=6)
    size = Stack(spec.architecture, 1, "cpu").bytes_of(0)
    engine._writer._max_bytes = 2 * size + size // 2
    engine.add_trial("0", spec)
    disk.hold()
    while engine._writer.num_pending < 2:
        assert engine.step() == []
    turning = threading.Thread(target=lambda: [engine.step() for _ in range(9)])
    turning.start()
    turning.join(0.3)
    assert turning.is_alive()
    disk.is_free.set()
    turning.join(PATIENCE_SECONDS)
    assert not turning.is_alive()
    turn_all(engine)
    assert steps_of(tmp_path, "0") == [1, 2, 3, 4, 5, 6]


def test_state_larger_than_the_bound_is_saved(tmp_path: Path) -> None:
    writer = Writer(WriterLimits(1, 3))
    for step in range(3):
        writer.save("0", tmp_path / f"{step}", content())
        assert writer.num_pending <= 1
    writer.wait_for("0")
    assert (writer.num_pending, len(list(tmp_path.iterdir()))) == (0, 3)


def test_failed_write_is_reported_only_by_its_report(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    """Also when many reports wait."""
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", make_spec(steps=5, reports=5))
    disk.hold()
    disk.refused = {2, 5}
    while engine.tokens < 5 * 32:
        assert engine.step() == []
    disk.is_free.set()
    reports = turn_all(engine)
    assert [r.step for r in reports] == [1, 2, 3, 4, 5]
    assert [r.step for r in reports if r.checkpoint is None] == [2, 5]
    full = "the checkpoint of update {} could not be saved: No space left on device"
    said = [r.problem for r in reports]
    assert said == [None, full.format(2), None, None, full.format(5)]
    assert steps_of(tmp_path, "0") == [1, 3, 4]


@pytest.mark.parametrize("error", [MemoryError(), OSError("gone")])
def test_every_failure_of_a_write_has_a_reason(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def writing(*args: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "write", writing)
    (report,) = Engine(*tokens, checkpoint_dir=tmp_path).run([make_spec(steps=2, reports=1)])
    reason = str(error) or "out of memory"
    assert report.problem == f"the checkpoint of update 2 could not be saved: {reason}"


def test_bug_in_the_writer_is_raised_by_the_engine(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writing(*args: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(checkpoint, "write", writing)
    with pytest.raises(KeyError, match="a bug"):
        list(Engine(*tokens, checkpoint_dir=tmp_path).run([make_spec(steps=2, reports=1)]))


def test_deleted_trial_leaves_no_checkpoint_during_write(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    engine = Engine(*tokens, slots=2, checkpoint_dir=tmp_path)
    admit_all(engine, [make_spec(seed=i, steps=4, reports=2) for i in range(2)])
    disk.hold()
    while engine.tokens < 2 * 4 * 32:
        engine.step()
    assert disk.write_began.wait(PATIENCE_SECONDS)
    engine.stop("0")
    threading.Timer(0.2, disk.is_free.set).start()
    engine.delete_checkpoints("0")
    assert not (tmp_path / "0").exists()
    reports = turn_all(engine)
    assert not (tmp_path / "0").exists()
    assert [(r.trial_id, r.step) for r in reports] == [("1", 2), ("1", 4)]


def test_stopped_trial_keeps_the_states_of_reports_that_went_out(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    """Stopping does not wait, and a repeated order changes nothing."""
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", make_spec(steps=6, reports=6))
    reports: list[Report] = []
    while not reports:
        reports += engine.step()
    disk.hold()
    disk.write_began.clear()
    while engine.tokens < 5 * 32:
        reports += engine.step()
    assert disk.write_began.wait(PATIENCE_SECONDS)
    for _ in range(2):
        engine.stop("0")
    assert engine.num_pending > 0
    disk.is_free.set()
    assert turn_all(engine) == []
    assert steps_of(tmp_path, "0") == [r.step for r in reports]


def test_stop_after_a_report_comes_before_the_next_one(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk
) -> None:
    """Although the report waits already, and its checkpoint is on the disk."""
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", make_spec(steps=6, reports=6))
    disk.hold()
    while engine.tokens < 5 * 32:
        assert engine.step() == []
    disk.is_free.set()
    engine._writer.wait_for("0")
    assert [report.step for report in engine.step()] == [1]
    assert [report.step for report in engine.step()] == [2]
    engine.stop("0")
    assert turn_all(engine) == []
    assert steps_of(tmp_path, "0") == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 4])
def test_trial_that_comes_back_waits_for_its_states(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, disk: Disk, after: int
) -> None:
    """As after a stop that is undone at once: the trial resumes from its report."""
    spec = make_spec(steps=8, reports=4, dropout=0.1)
    peace = list(Engine(*tokens).run([spec]))
    engine = Engine(*tokens, slots=1, checkpoint_dir=tmp_path)
    engine.add_trial("0", spec)
    reports: list[Report] = []
    while not reports or reports[-1].step < after:
        reports += engine.step()
    disk.hold()
    trained = engine.tokens
    while engine.tokens < min(8, after + 2) * 32:
        engine.step()
    engine.stop("0")
    engine.add_trial("0", spec, CheckpointRef("0", after), after)
    threading.Timer(0.1, disk.is_free.set).start()
    rest = turn_all(engine)
    assert [r.metrics() for r in rest] == [r.metrics() for r in peace if r.step > after]
    assert engine.tokens <= trained + (2 + 8 - after) * 32 + 64


def test_trial_in_smaller_stack_resumes_from_pending_checkpoint(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    disk: Disk,
) -> None:
    """Memory runs out right after a report whose checkpoint is still being written."""
    specs = [make_spec(seed=i, steps=8, reports=4) for i in range(2)]
    peace = Engine(*tokens, slots=2, width=2)
    admit_all(peace, specs)
    expected = [(r.trial_id, r.step, r.metrics()) for r in turn_all(peace)]
    engine = Engine(*tokens, slots=2, width=2, checkpoint_dir=tmp_path)
    admit_all(engine, specs)
    real, refused = Stack.run, []

    def run(stack: Stack, plan: Any) -> Any:
        if engine.tokens >= 2 * 4 * 32 and not refused:
            refused.append(1)
            threading.Timer(0.1, disk.is_free.set).start()
            raise torch.OutOfMemoryError("CUDA out of memory")
        if engine.tokens >= 2 * 2 * 32 and not refused:
            disk.hold()
        return real(stack, plan)

    monkeypatch.setattr(Stack, "run", run)
    reports = turn_all(engine)
    assert sorted((r.trial_id, r.step) for r in reports) == sorted(e[:2] for e in expected)
    actual = {(r.trial_id, r.step): r.metrics() for r in reports}
    assert actual == {(trial, step): metrics for trial, step, metrics in expected}
    assert engine.tokens == 2 * 8 * 32, "nothing was trained twice"


def test_copy_does_not_follow_its_original() -> None:
    original = torch.arange(4.0)
    copied = begin_copy({"x": original, "y": original[1:3]})
    original.zero_()
    assert copied()["x"].tolist() == [0, 1, 2, 3]
    assert copied()["y"].tolist() == [1, 2]


@pytest.mark.slow
def test_state_that_waits_does_not_keep_its_stack(make_spec: MakeSpec) -> None:
    """A stack is deleted when memory has run out."""
    stack = Stack(make_spec().architecture, 2, "cpu")
    stack.load(1, seed=0)
    expected = stack.snapshot(1)
    copied, weights = stack.begin_snapshot(1), weakref.ref(stack._matrices.theta)
    del stack
    gc.collect()
    assert weights() is None
    actual = copied()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
