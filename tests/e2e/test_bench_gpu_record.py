"""How bench/gpu.py records, resumes and judges, without a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)


# the record -------------------------------------------------------------------------------------


def test_record_takes_up_what_equal_code_measured(tmp_path: Path) -> None:
    from parts.gpu.record import Record

    file, identity = tmp_path / "folder" / "gpu.law.jsonl", {"code": "a", "device": "H100"}
    first = Record(file, identity)
    first.add("one", 1.23, numbers={"x": 1})
    first.add("two", 2.0, failure="OutOfMemoryError: 3 GB")
    with file.open("a") as cut:
        cut.write('{"name": "three", "nu')
    second = Record(file, identity)
    assert second.numbers == {"one": {"x": 1}}
    assert second.failures == {"two": "OutOfMemoryError: 3 GB"}
    second.add("two", 2.0, numbers={"x": 2})
    assert second.failures == {}
    third = Record(file, identity)
    assert third.numbers == {"one": {"x": 1}, "two": {"x": 2}}
    assert third.failures == {}
    for other in ({"code": "b", "device": "H100"}, {"code": "a", "device": "H200"}):
        record = Record(file, other)
        assert (record.numbers, record.failures, record.ignored) == ({}, {}, 3)


def test_code_of_a_part_covers_what_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parts.gpu import record

    for part in ("law", "kernel", "fusion", "profile", "search"):
        assert len(record.code_of(part)) == 12
    before = record.code_of("kernel")
    assert before != record.code_of("law")
    real = Path.read_bytes
    changed = BENCH.parent / "model" / "optimizers" / "adamw_triton.py"
    monkeypatch.setattr(Path, "read_bytes", lambda file: b"x" if file == changed else real(file))
    assert record.code_of("kernel") != before


class Fake:
    """Stands for `Child`; `replies` says what each measurement does."""

    replies: Mapping[str, Any]
    started = 0

    def __init__(self, seconds: float) -> None:
        self.killed = False
        Fake.started += 1

    def measure(self, name: str, seconds: float, known: Mapping[str, Any]) -> Any:
        assert not self.killed
        reply = Fake.replies[name]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def run_fakes(tmp_path: Path) -> Callable[..., Any]:
    """Run measurements with replies that are set in advance."""
    from parts.gpu.measurement import Measurement
    from parts.gpu.record import Record
    from parts.gpu.runner import run

    def run_all(replies: Mapping[str, Any], seconds: float = 0.0, left: float = 60.0) -> Any:
        Fake.replies, Fake.started = replies, 0
        record, said = Record(tmp_path / "record.jsonl", {}), []
        measurements = {name: Measurement(lambda _: {}, seconds) for name in replies}
        unreached = run(
            measurements,
            record,
            Fake,  # type: ignore[arg-type]
            Fake(1.0),  # type: ignore[arg-type]
            time.monotonic() + left,
            lambda name, how, _: said.append((name, how)),
        )
        return SimpleNamespace(record=record, unreached=unreached, said=said)

    return run_all


def test_failed_and_hung_measurements_do_not_stop_the_next(run_fakes: Callable[..., Any]) -> None:
    from parts.gpu.runner import TimeOverError

    done = run_fakes(
        {
            "fails": {"failure": "RuntimeError: no"},
            "dies": ChildProcessError("the process ended with status -11"),
            "hangs": TimeOverError(),
            "works": {"numbers": {"x": 1}},
        }
    )
    assert done.record.numbers == {"works": {"x": 1}}
    assert done.record.failures == {
        "fails": "RuntimeError: no",
        "dies": "the process ended with status -11",
        "hangs": "took longer than 90 s, and was ended",
    }
    assert Fake.started == 4, "a new process after each failure"
    assert done.unreached == []
    again = run_fakes({"fails": {"numbers": {"x": 2}}, "works": {"failure": "not called"}})
    assert again.record.numbers == {"works": {"x": 1}, "fails": {"x": 2}}
    assert again.said == [("fails", "done")]


def test_measurement_that_has_no_time_is_left_for_the_next_run(
    run_fakes: Callable[..., Any],
) -> None:
    from parts.gpu.runner import TimeOverError

    late = run_fakes({"long": {"numbers": {}}}, seconds=100.0)
    assert late.unreached == ["long"]
    cut = run_fakes({"cut": TimeOverError()}, left=0.5)
    assert cut.unreached == ["cut"]
    assert cut.record.failures == {}, "a failure is not what it was"


# verdicts ---------------------------------------------------------------------------------------


def judged(part: str, numbers: Mapping[str, Any]) -> tuple[dict[str, bool], list[str]]:
    """Return which goals are met, and the open ones."""
    from parts.gpu.measurement import part_of
    from parts.measuring import is_met

    module = part_of(part)
    found = module.verdicts(numbers)
    assert isinstance(module.tables(numbers), list)
    assert isinstance(module.notes(numbers), list)
    return {goal["what"]: is_met(goal) for goal in found.goals}, found.open


@pytest.mark.parametrize("part", ["law", "kernel", "fusion", "profile", "search"])
def test_nothing_measured_is_no_verdict(part: str) -> None:
    met, unmeasured = judged(part, {})
    assert met == {}
    assert unmeasured


def test_verdicts_of_the_law() -> None:
    same = {"trials": 3, "differing": [], "largest_difference": 0.0}
    other = {**same, "differing": ["lion"], "largest_difference": 1e-3}
    rates = {"ours": [100.0, 110.0], "not deterministic": [105.0, 112.0]}
    met, unmeasured = judged(
        "law",
        {
            "neighbours, bfloat16": {**same, "ends": {"finished": 3}, "ticks_of_graphs": 9},
            "neighbours, tf32": {**other, "ends": {"finished": 3}, "ticks_of_graphs": 9},
            "every slot, bfloat16": same,
            "price of determinism, 1M": {"trials": 64, "rates": rates, "ratio": [1.03, 1.02, 1.05]},
            "tests/gpu/test_law.py": {"passed": 0, "failed": [], "ended": True},
        },
    )
    assert met == {
        "trials that differ beside others, or after a refill": False,
        "slots in which a trial differs": True,
        "1M: time of a step, times that without determinism": True,
    }
    assert "failed tests of tests/gpu, at most 0" in unmeasured, "all were skipped"


def test_verdicts_of_the_kernel() -> None:
    timed = {"slots": 64, "numbers": 10**6, "bytes": 10**9, "rule": 1.0}
    timed |= {"torch, fused": 1.0, "torch, foreach": 1.0}
    copy = {"bytes": 2**31, "bytes_per_second": 1e12}
    met, _ = judged(
        "kernel",
        {
            "copy": copy,
            "time, 1M, bfloat16": {**timed, "kernel": 0.001 / 0.71},
            "time, 50M, bfloat16": {**timed, "kernel": 0.001 / 0.69},
        },
    )
    assert met == {
        "1M, bfloat16: bandwidth of the kernel, share of a copy's": True,
        "50M, bfloat16: bandwidth of the kernel, share of a copy's": False,
    }


def test_verdicts_of_training_steps() -> None:
    def group(**rates: float) -> dict[str, Any]:
        return {
            "parameters": 10**6, "flops_per_token": 10, "model": "", "updates_checked": 8,
            "trials": dict.fromkeys(rates, 1), "rates": {n: [r] for n, r in rates.items()},
            "failed": {}, "largest_difference": 0.0, "tolerance": 0.02, "sharing": "Without MPS.",
        }  # fmt: skip

    several = {"eager, 2 processes": 9.0, "eager, 8 processes": 11.0}
    met, unmeasured = judged(
        "fusion",
        {
            "1M: beside eager loops": group(ours=100.0, eager=5.0, peak=2000.0, **several),
            "50M: beside eager loops": group(ours=20.0, peak=500.0, eager=1.0, **several),
            "50M: beside compiled loops": group(ours=20.0, compiled=19.5, peak=500.0),
        },
    )
    assert met == {
        "1M: times as fast as eager processes that share the GPU": False,  # 9.1 of the faster ones
        "1M: times as fast as any side": True,
        "50M: times as fast as eager processes that share the GPU": True,
        "50M: times as fast as any side": False,  # of the compiled loop
        "50M: share of the measured peak": True,
    }
    assert len(unmeasured) == 2  # 10M


def test_verdicts_of_searches() -> None:
    run = {"tokens": 10**6, "first_training": 5.0, "training": 0.5, "best": 3.0}
    real = {
        "seconds": 60.0, "tokens": 10**6, "training_seconds": 9.0, "peak_bytes": 2**30,
        "replay_seconds": 9.0, "replay": "within tolerance",
    }  # fmt: skip
    met, _ = judged(
        "search",
        {
            "beside, ours": {**run, "wall": 10.0},
            "beside, ray": {**run, "wall": 90.0},
            "beside, optuna-pool": {**run, "wall": 9.0},
            "real size": real,
        },
    )
    assert met == {
        "a search, times as fast as Ray Tune, process per trial": True,
        "a search, times as fast as Optuna, processes reused": False,
        "replayed trials of lm_gpu.yaml's model that differ": False,
    }


def test_gaps_of_a_profile_are_what_no_kernel_covers() -> None:
    from parts.gpu.profile import gaps_of

    events = [("a", 0.0, 10.0), ("b", 5.0, 20.0), ("a", 24.0, 30.0), ("c", 130.0, 200.0)]
    found = gaps_of(events)
    assert found["launch_gaps"] == pytest.approx(4 / 200)
    assert found["host_gaps"] == pytest.approx(100 / 200)
    assert found["largest"][0] == ["c", pytest.approx(70 / 200)]
    assert found["kernels"] == 4
