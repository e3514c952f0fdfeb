"""Calibration: the widest stack that fits and still gains, by a simulated meter and a real one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.corpus.dataset import TextDataset
from model.corpus.device_dataset import put
from model.device.precision import Precision
from model.engine import calibration
from model.engine.calibration import Measurement, Setup, slots_for, stack_meter, widest_stack
from model.stack.plan import QuantumPlan
from model.stack.stack import Stack
from tests.conftest import MakeSpec

Tokens = tuple[np.ndarray, np.ndarray]


def trained(tokens: Tokens) -> Setup:
    return Setup(TextDataset(tokens[0]), torch.device("cpu"), Precision())


class MadeUp:
    """A simulated device; records the widths that were measured.

    Args:
        speed: tokens per second at a width.
        base: bytes of any stack, and of each slot.
        memory: bytes at which it breaks.
    """

    def __init__(
        self,
        speed: Callable[[int], float],
        base: float = 0.0,
        each: float = 1.0,
        memory: float = math.inf,
    ) -> None:
        self.speed, self.base, self.each, self.memory = speed, base, each, memory
        self.measured: list[int] = []

    def __call__(self, width: int) -> Measurement:
        self.measured.append(width)
        peak = self.base + self.each * width
        if peak > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Measurement(self.speed(width), peak)


def saturating(full: int) -> Callable[[int], float]:
    """Return a speed that grows with the width up to `full`."""
    return lambda width: float(min(width, full))


@pytest.mark.parametrize(
    ("full", "expected", "measured"),
    [
        (1, 1, [1, 2]),
        (2, 2, [1, 2, 4]),
        (9, 16, [1, 2, 4, 8, 16, 32]),
        (16, 16, [1, 2, 4, 8, 16, 32]),
    ],
)
def test_widest_stops_when_doubling_gains_little(
    full: int, expected: int, measured: list[int]
) -> None:
    meter = MadeUp(saturating(full))
    assert widest_stack(meter, math.inf) == expected
    assert meter.measured == measured


@pytest.mark.parametrize(("gain", "expected"), [(1.09, 1), (1.11, calibration._MAX_WIDTH)])
def test_widest_wants_a_tenth_of_each_doubling(gain: float, expected: int) -> None:
    meter = MadeUp(lambda width: gain ** math.log2(width))
    assert widest_stack(meter, math.inf) == expected
    assert max(meter.measured) <= calibration._MAX_WIDTH


def test_widest_leaves_a_margin_and_never_measures_what_should_not_fit() -> None:
    """Of 100 bytes 85 may be used: 5 + 10 K fits at 8, and 16 is not tried."""
    meter = MadeUp(saturating(1000), base=5, each=10)
    assert widest_stack(meter, 100) == 8
    assert meter.measured == [1, 2, 4, 8]


def test_widest_finds_width_between_two_doublings() -> None:
    meter = MadeUp(saturating(1000), base=5, each=10)
    assert widest_stack(meter, 160) == 13
    assert meter.measured == [1, 2, 4, 8, 13]


def test_widest_ends_before_the_width_at_which_memory_runs_out() -> None:
    """Free memory is an estimate: another process may take it, or a stack may need more."""
    meter = MadeUp(saturating(1000), memory=7)
    assert widest_stack(meter, math.inf) == 4
    assert meter.measured == [1, 2, 4, 8]


def test_base_memory_counts_once() -> None:
    meter = MadeUp(saturating(1000), base=60, each=5)
    assert widest_stack(meter, 100) == 5
    assert meter.measured == [1, 2, 4, 5]


@pytest.mark.parametrize("memory", [0.5, math.inf])
def test_trial_that_hardly_fits_trains_alone(memory: float) -> None:
    """Too large for the margin, or for the device: the engine then reports the failure."""
    assert widest_stack(MadeUp(saturating(1000), memory=memory), 1.1) == 1


def test_other_errors_of_a_meter_are_raised() -> None:
    def broken(width: int) -> Measurement:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        widest_stack(broken, 1.0)


@given(
    full=st.integers(1, 5000),
    base=st.floats(0, 50),
    each=st.floats(0, 50),
    memory=st.floats(1, 5000),
    breaks=st.floats(1, 5000),
)
def test_widest_fits_whenever_one_slot_does(
    full: int, base: float, each: float, memory: float, breaks: float
) -> None:
    meter = MadeUp(saturating(full), base, each, breaks)
    width = widest_stack(meter, memory)
    assert 1 <= width <= calibration._MAX_WIDTH
    assert width == 1 or base + each * width <= min(0.85 * memory, breaks)
    assert width in meter.measured
    assert len(meter.measured) <= 12


# for real -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("is_there", [False, True])
def test_meter_measures_stacks_on_a_cpu(
    tokens: Tokens, make_spec: MakeSpec, averaged: bool, is_there: bool
) -> None:
    spec, on = make_spec(steps=3, reports=3, ema_decay=0.5 * averaged), trained(tokens)
    meter = stack_meter(spec, on._replace(data=put(on.train, on.device) if is_there else None))
    for width in (1, 3):
        measurement = meter(width)
        assert 0 < measurement.speed < math.inf
        assert measurement.peak_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_meter_runs_ticks_of_another_kind_as_well(
    tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, z_loss: float
) -> None:
    """Such ticks need memory beside that of the graphs, and run when neighbours change."""
    kinds = []

    class Watched(Stack):
        def run(self, plan: QuantumPlan) -> Any:
            kinds.append(plan.features)
            return super().run(plan)

    monkeypatch.setattr(calibration, "Stack", Watched)
    stack_meter(make_spec(steps=3, reports=3, z_loss=z_loss), trained(tokens))(2)
    assert kinds[-1] not in kinds[:-1]
    assert len(set(kinds[:-1])) == 1


def test_calibration_is_keyed_by_its_dependencies(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[int] = []
    on = trained(tokens)

    def stack_meter(*args: object) -> MadeUp:
        stacks.append(1)
        return MadeUp(saturating(2 ** len(stacks)))

    monkeypatch.setattr(calibration, "stack_meter", stack_meter)
    file = tmp_path / "home" / "calibration.json"
    specs = [make_spec(), make_spec(micro_batch=4), make_spec(model={"d_model": 32})]
    for _ in range(2):
        widths = [slots_for(spec, on, file) for spec in specs]
        widths.append(slots_for(specs[0], on._replace(precision=Precision("bfloat16")), file))
        assert widths == [2, 4, 8, 16]
        assert slots_for(make_spec(seed=9, dropout=0.5), on, file) == 2
    assert len(stacks) == 4
    assert list(file.parent.iterdir()) == [file]
    entries = json.loads(file.read_text(encoding="utf-8")).values()
    assert sorted(entry["slots"] for entry in entries) == [2, 4, 8, 16]
    assert all(entry["device"].startswith("cpu: ") for entry in entries)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 3}', None])
def test_damaged_calibration_file_is_measured_again(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    monkeypatch.setattr(calibration, "stack_meter", lambda *args: MadeUp(saturating(4)))
    file, spec, on = tmp_path / "calibration.json", make_spec(), trained(tokens)
    if text is None:  # a valid entry with an invalid number of slots
        slots_for(spec, on, file)
        text = file.read_text(encoding="utf-8").replace('"slots": 4', '"slots": "many"')
    file.write_text(text, encoding="utf-8")
    assert slots_for(spec, on, file) == 4
    assert '"slots": 4' in file.read_text(encoding="utf-8")


def test_memory_that_cannot_be_written_is_no_error(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "stack_meter", lambda *args: MadeUp(saturating(4)))
    (tmp_path / "home").write_text("in the way")
    file = tmp_path / "home" / "calibration.json"
    assert slots_for(make_spec(), trained(tokens), file) == 4
