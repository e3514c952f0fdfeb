"""`engine.dtype: auto` on a CPU: when it measures, what it decides, and what it keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.device import processor
from model.engine import products as measuring
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.workers import products
from tuner.workers.products import ProductsMeasurement, begin_measurement

SPACES = Path(__file__).parents[3] / "search_spaces"
LM = load_space(SPACES / "lm.yaml")  # itself too short to be worth a measurement
SPACE = LM.model_copy(update={"budget": LM.budget.model_copy(update={"tokens": 2_400_000})})
FACTS = DataFacts(2048, 1_000_000, 10_000, "data", "tokenizer")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[TrialSpec]:
    """A machine of two cores with bfloat16; lists what is measured."""
    measured: list[TrialSpec] = []

    def begin(spec: TrialSpec) -> Any:
        measured.append(spec)
        return answering("1.5")

    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(products, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(products, "num_cores", lambda: 2)
    monkeypatch.setattr(products, "_begin", begin)
    return measured


def answering(text: str) -> subprocess.Popen[str]:
    code = f"print({text!r})"
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True)


def changed(**engine: Any) -> SearchSpace:
    return SPACE.model_copy(update={"engine": SPACE.engine.model_copy(update=engine)})


def test_new_search_measures_its_first_trial_once(tmp_path: Path, machine: list[TrialSpec]) -> None:
    file = tmp_path / "calibration.json"
    for _ in range(2):
        measurement = begin_measurement(SPACE, FACTS, file)
        assert measurement is not None
        assert measurement.dtype() == measurement.dtype() == "mixed_bfloat16"
        measurement.end()
    assert machine == [SPACE.spec(SPACE.defaults(), FACTS, SPACE.search.seed)]
    (entry,) = json.loads(file.read_text()).values()
    assert (entry["gain"], entry["dtype"]) == (1.5, "mixed_bfloat16")


@pytest.mark.parametrize(
    "engine", [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"device": "cuda"}]
)
def test_these_settings_need_no_measurement(
    tmp_path: Path, machine: list[TrialSpec], engine: dict[str, Any]
) -> None:
    assert begin_measurement(changed(**engine), FACTS, tmp_path / "x") is None
    assert not machine


def test_short_search_takes_what_was_measured(tmp_path: Path, machine: list[TrialSpec]) -> None:
    """Its cores train for seconds only, so that it measures nothing itself."""
    file = tmp_path / "calibration.json"
    for space in (changed(workers=100), LM):
        short = begin_measurement(space, FACTS, file)
        assert short is not None
        assert short.dtype() == "float32"
    assert not machine
    long = begin_measurement(SPACE, FACTS, file)
    assert long is not None
    assert long.dtype() == "mixed_bfloat16"
    again = begin_measurement(changed(workers=100), FACTS, file)
    assert again is not None
    assert again.dtype() == "mixed_bfloat16"
    assert len(machine) == 1


@pytest.mark.parametrize(("name", "value"), [("multiplies_bfloat16", 0), ("has_nvidia_gpu", 1)])
def test_these_machines_need_no_measurement(
    tmp_path: Path, machine: list[TrialSpec], monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(products, name, lambda: value)
    assert begin_measurement(SPACE, FACTS, tmp_path / "x") is None


@pytest.mark.parametrize(
    ("answer", "expected", "kept"),
    [("1.1", "mixed_bfloat16", True), ("1.09", "float32", True), ("", "float32", False)],
)
def test_small_gain_and_failure_mean_float32(
    tmp_path: Path,
    machine: list[TrialSpec],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    expected: str,
    kept: bool,
) -> None:
    monkeypatch.setattr(products, "_begin", lambda spec: answering(answer))
    waits: list[None] = []
    measurement = begin_measurement(SPACE, FACTS, tmp_path / "calibration.json")
    assert measurement is not None
    assert measurement.dtype(lambda: waits.append(None)) == expected
    assert waits
    assert (tmp_path / "calibration.json").exists() == kept


def test_process_ends_with_the_search(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(products, "_begin", lambda spec: process)
    measurement = ProductsMeasurement(make_spec(), tmp_path / "x", is_worth_it=True)
    measurement.end()
    assert process.returncode
    measurement.end()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_bf16", True), ("fp asimd bf16", True), ("fpu avx2", False), ("", False)],
)
def test_instructions_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    monkeypatch.setattr(processor, "_cpuinfo", lambda name: flags)
    assert processor.multiplies_bfloat16() is expected


@pytest.mark.slow
def test_process_measures_the_ticks_of_a_trial(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec(batch_size=4, micro_batch=2, dropout=0.1)
    measurement = ProductsMeasurement(spec, tmp_path / "calibration.json", is_worth_it=True)
    measurement.dtype()
    (entry,) = json.loads((tmp_path / "calibration.json").read_text()).values()
    assert entry["gain"] > 0
    pairs = load_space(SPACES / "seq2seq.yaml")
    facts = DataFacts(2048, 1_000, 100, "data", "tokenizer", has_pairs=True)
    assert measuring.gain_of_products(pairs.spec(pairs.defaults(), facts, 0), 0.0) > 0
