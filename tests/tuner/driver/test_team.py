"""Devices, slots and dtype of a session, also of a resumed one."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.stack import compiled_file
from model.stack.tick_kind import TickKind
from tuner.conductor.clock import SECONDS, TOKENS
from tuner.driver import team
from tuner.driver.team import (
    Order,
    begin_compilation,
    calibrate,
    choose_devices,
    choose_order,
)
from tuner.errors import TunerError
from tuner.journal.events import SessionBegun
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.workers import cluster, compilation
from tuner.workers import devices as devices_module
from tuner.workers.compilation import num_missing, repays_compilation
from tuner.workers.devices import Devices
from tuner.workers.ray_session import RaySession

FACTS = DataFacts(2048, 1_000_000, 10_000, "data", "tokenizer")
SPACES = Path(__file__).parents[3] / "search_spaces"
SPACE = load_space(SPACES / "lm.yaml")
REGULARISED = load_space(SPACES / "regularisation.yaml")


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
        (Devices("cpu", 1, 1), ("cpu: x", "mixed_bfloat16", 1), (1, "mixed_bfloat16", False)),
    ],
)
def test_resumed_search_keeps_its_slots_and_dtype(
    monkeypatch: pytest.MonkeyPatch,
    now: Devices,
    last: tuple[str, str, int] | None,
    expected: tuple[int, str, bool],
) -> None:
    monkeypatch.setattr(devices_module, "find_devices", lambda space, **_: now)
    recorded = None
    if last is not None:
        device, dtype, slots = last
        environment = {"device": device, "dtype": dtype, "compiled": "no"}
        recorded = SessionBegun(environment, slots, in_order=True)
    on = choose_devices(SPACE, FACTS, recorded)
    assert (on.slots, on.dtype, on.needs_calibration) == expected


@pytest.mark.parametrize(
    ("setting", "devices", "expected"),
    [
        ("auto", Devices("cpu", 1, 1), (True, SECONDS)),
        ("auto", Devices("cpu", 4, 1), (True, SECONDS)),
        ("auto", Devices("cpu", 4, 1, is_cluster=True), (False, TOKENS)),
        ("auto", Devices("cuda", 1, 8), (True, TOKENS)),
        ("auto", Devices("cuda", 2, 8), (True, TOKENS)),
        ("arrival", Devices("cpu", 1, 1), (False, TOKENS)),
        ("tokens", Devices("cpu", 4, 1, is_cluster=True), (True, TOKENS)),
    ],
)
def test_new_search_takes_reports_in_order_where_workers_are_alike(
    setting: str, devices: Devices, expected: tuple[bool, str]
) -> None:
    space = SPACE.model_copy(update={"search": SPACE.search.model_copy(update={"order": setting})})
    assert choose_order(space, FACTS, None, devices) == expected


def test_models_of_several_sizes_take_unequal_turns_on_several_gpus(tmp_path: Path) -> None:
    text = (SPACES / "lm.yaml").read_text(encoding="utf-8")
    (tmp_path / "sizes.yaml").write_text(text.replace("d_model: 64", "d_model: {choice: [32, 64]}"))
    space = load_space(tmp_path / "sizes.yaml")
    on = [Devices("cuda", 1, 8), Devices("cuda", 2, 8), Devices("cpu", 2, 1)]
    assert [choose_order(space, FACTS, None, each)[0] for each in on] == [True, False, True]


@pytest.mark.parametrize("order", [Order(False, TOKENS), Order(True, TOKENS), Order(True, SECONDS)])
def test_resumed_search_keeps_its_order(order: Order) -> None:
    last = SessionBegun({}, 2, order.in_order, clock=order.clock)
    assert choose_order(SPACE, FACTS, last, Devices("cpu", 2, 1)) == order


ELSEWHERE = "there is no C++ compiler (g++); install one"


@pytest.mark.parametrize(
    ("setting", "kind", "last", "is_long", "reason", "expected"),
    [
        ("auto", "cpu", None, True, None, True),
        ("auto", "cpu", None, False, None, False),
        ("auto", "cpu", None, True, ELSEWHERE, False),
        ("auto", "cuda", None, True, None, False),
        ("off", "cpu", "g++ 12", True, None, False),
        ("on", "cpu", "no", False, None, True),
        # a resumed search keeps what was decided
        ("auto", "cpu", "g++ 12", False, None, True),
        ("auto", "cpu", "g++ 12", False, ELSEWHERE, False),
        ("auto", "cpu", "no", True, None, False),
    ],
)
def test_compilation_is_decided_once(
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    kind: str,
    last: str | None,
    is_long: bool,
    reason: str | None,
    expected: bool,
) -> None:
    monkeypatch.setattr(devices_module, "find_devices", lambda space, **_: Devices(kind, 1, 1))
    monkeypatch.setattr(devices_module, "why_not_compiled", lambda: reason)
    monkeypatch.setattr(team, "repays_compilation", lambda *arguments: is_long)
    engine = SPACE.engine.model_copy(update={"compile": setting})
    recorded = None
    if last is not None:
        environment = {"device": kind, "dtype": "float32", "compiled": last}
        recorded = SessionBegun(environment, 1, in_order=True)
    space = SPACE.model_copy(update={"engine": engine})
    assert choose_devices(space, FACTS, recorded).is_compiled is expected


def test_measurement_of_a_new_search_chooses_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, which Ray may know and NVIDIA's driver not, the worker chooses."""
    started: list[Devices] = []
    found = [Devices("cpu", 1, 1), Devices("cuda", 1, 1)]
    monkeypatch.setattr(devices_module, "find_devices", lambda space, **_: found.pop(0))
    monkeypatch.setattr(team, "_is_compiled", lambda *arguments: False)
    monkeypatch.setattr(cluster, "start_workers", lambda on, *a, **o: started.append(on) or [])
    products: Any = SimpleNamespace(dtype=lambda on_wait: "mixed_bfloat16")
    home: Any = SimpleNamespace(search=Path, starts=Path("starts"))
    nothing: Any = None
    ray = RaySession(None, Path(), {"tune_slot": 1})
    for _ in range(2):
        made = team.start_team(
            "lm-1", SPACE, home, nothing, FACTS, None, nothing, lambda: None, ray, products
        )
        assert made.session is ray
    assert [on.dtype for on in started] == ["mixed_bfloat16", "auto"]


@pytest.mark.parametrize(
    ("engine", "last", "expected"),
    [
        ({"compile": "on"}, None, "mixed_bfloat16"),  # as it was measured
        ({"compile": "on", "dtype": "float32"}, "float32", "float32"),
        ({"compile": "auto", "dtype": "float32"}, "float32", "float32"),  # a resumed search
        ({"compile": "off"}, None, None),
        ({"compile": "auto", "device": "cuda"}, None, None),
    ],
)
def test_compilation_begins_with_the_first_trials_ticks(
    monkeypatch: pytest.MonkeyPatch, engine: dict[str, str], last: str | None, expected: str | None
) -> None:
    made: list[TickKind] = []
    monkeypatch.setattr(compiled_file, "compiled_file", made.append)
    monkeypatch.setattr(devices_module, "why_not_compiled", lambda: None)
    monkeypatch.setattr(devices_module, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(team.sys, "platform", "linux")
    space = SPACE.model_copy(update={"engine": SPACE.engine.model_copy(update=engine)})
    measured = SimpleNamespace(dtype=lambda check: "mixed_bfloat16")
    recorded = None
    if last is not None:
        environment = {"device": "cpu: x", "dtype": last, "compiled": "g++ 12"}
        recorded = SessionBegun(environment, 2, in_order=True)
    begin_compilation(space, FACTS, recorded, None if recorded else measured, lambda: None)
    for thread in threading.enumerate():
        if thread.name == "compilation":
            thread.join()
    spec = space.spec(space.defaults(), FACTS, space.search.seed)
    assert made == ([] if expected is None else [TickKind.of(spec, expected)])


def test_forced_compilation_needs_a_compiler_and_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "why_not_compiled", lambda: ELSEWHERE)
    with pytest.raises(TunerError, match=r"engine\.compile is on, but there is no C\+\+ compiler"):
        devices_module.check_compilation("cpu")
    with pytest.raises(TunerError, match="on a CPU only, and the device of this search is cuda"):
        devices_module.check_compilation("cuda")


def test_only_long_searches_repay_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DataFacts(2048, 100_000_000, 10_000, "data", "tokenizer")
    kept: set[TickKind] = set()
    monkeypatch.setattr(compilation, "is_compiled", kept.__contains__)

    def repays(workers: int = 2, dtype: str = "float32", **more: Any) -> bool:
        space = SPACE.model_copy(update=more)
        return repays_compilation(space, facts, workers, dtype)

    def budget(tokens: int) -> dict[str, Any]:
        return {"budget": SPACE.budget.model_copy(update={"tokens": tokens})}

    assert not repays()  # lm.yaml takes a minute and a half
    assert repays(**budget(20_000_000))
    assert not repays(workers=200, **budget(20_000_000))
    # what is compiled costs nothing, but is of one dtype
    kept.add(TickKind.of(SPACE.spec(SPACE.defaults(), facts, 0), "mixed_bfloat16"))
    assert not repays()
    assert repays(dtype="mixed_bfloat16")
    assert not repays(dtype="mixed_bfloat16", **budget(10_000))
    assert num_missing(SPACE, facts, "mixed_bfloat16") == 0
    # trials with and without dropout, smoothed labels or z-loss run different code
    assert num_missing(REGULARISED, facts, "mixed_bfloat16") >= 4


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
