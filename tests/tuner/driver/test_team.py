"""Devices, slots and dtype of a session, also of a resumed one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuner.driver.team import calibrate, choose_devices
from tuner.journal.events import SessionBegun
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.workers import cluster
from tuner.workers import devices as devices_module
from tuner.workers.devices import Devices

SPACE = load_space(Path(__file__).parents[3] / "search_spaces" / "lm.yaml")


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        (Devices("cuda", 1, 8, "auto", True), None, (8, "auto", True)),
        (Devices("cuda", 1, 8, "auto", True), ("cuda: H100", "float32", 5), (5, "float32", False)),
        (
            Devices("cuda", 2, 8, "auto", True),
            ("cuda: H100", "bfloat16", 9),
            (5, "bfloat16", False),
        ),
        (Devices("cuda", 1, 8, "tf32"), ("cuda: H100", "tf32", 5), (8, "tf32", False)),
        (Devices("cpu", 2, 2, "auto"), ("cuda: H100", "bfloat16", 5), (3, "auto", False)),
        (Devices("cpu", 4, 2, "auto"), ("cpu: x", "float32", 4), (2, "float32", False)),
    ],
)
def test_resumed_search_keeps_its_slots_and_dtype(
    monkeypatch: pytest.MonkeyPatch,
    now: Devices,
    last: tuple[str, str, int] | None,
    expected: tuple[int, str, bool],
) -> None:
    monkeypatch.setattr(devices_module, "find_devices", lambda space: now)
    recorded = None
    if last is not None:
        device, dtype, slots = last
        environment = {"device": device, "dtype": dtype}
        recorded = SessionBegun(environment, slots, in_order=True)
    on, _ = choose_devices(SPACE, recorded)
    assert (on.slots, on.dtype, on.needs_calibration) == expected


def test_slots_are_measured_for_the_first_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def check() -> None:
        pass

    def calibrated(*arguments: Any, on_wait: Any) -> Devices:
        asked.append((*arguments, on_wait))
        return Devices("cuda", 5, 4)

    monkeypatch.setattr(cluster, "calibrated", calibrated)
    facts = DataFacts(2048, 1_000_000, 10_000, "data", "tokenizer")
    home: Any = SimpleNamespace(calibration=Path("x"))
    corpus: Any = "c"
    on = Devices("cuda", 5, 8, "auto", True)
    assert calibrate(on, SPACE, home, corpus, facts, check).slots == 4
    spec = SPACE.spec(SPACE.defaults(), facts, SPACE.search.seed)
    assert asked == [(on, "c", spec, 5, Path("x"), check)], "24 trials on 5 GPUs"
