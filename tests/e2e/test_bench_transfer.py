"""The quick mode of bench/transfer.py, and its numbers from sweeps whose optima are known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuner.space.settings import Proxy
from tuner.transfer.sweep import KINDS, Kind, Size, Sweep

BENCH = Path(__file__).parents[2] / "bench"
RATES = range(-3, 4)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    import transfer

    return transfer


def sweep(kind: Kind, octaves: float, at: float, bottom: float = 4.0) -> Sweep:
    """A parabola with its minimum at `at`, for two seeds 0.02 apart."""
    losses = {
        float(x): tuple(bottom + 0.1 * (x - at) ** 2 + shift for shift in (-0.01, 0.01))
        for x in RATES
    }
    return Sweep(kind, Size(Proxy(width=1 / 8), octaves, f"size {octaves:g}"), losses)


def test_moves_are_those_of_the_sweeps(bench: Any) -> None:
    part = bench.parts_of(quick=False)["width"]
    assert [size.octaves for size in part.sizes] == [0, 1, 2, 3]
    sweeps = [
        *(sweep("scaled", i, 0.1 * i) for i in range(4)),
        *(sweep("standard", i, 1.0 - 0.6 * i) for i in range(4)),
    ]
    rows, moved = bench.axis_result(part, sweeps)
    assert [moved[kind][0] for kind in KINDS] == pytest.approx([0.3, -1.8])
    assert all(low <= value <= high for value, low, high in moved.values())
    by_name = {row[0]: row[2] for row in rows}
    assert by_name["scaled, octaves over 8 times the size"].startswith("+0.30 (")
    assert by_name["scaled, by three rates of each size"] == "+0.30"
    assert by_name["standard, by three rates of each size"] == "-1.80"
    # a parabola of curvature 0.1, 1.8 octaves from its bottom of 4
    lost = float(by_name["standard, loss given up, %"].split()[0])
    assert lost == pytest.approx(100 * 0.1 * 1.8**2 / 4, abs=0.01)
    notes: list[str] = []
    goals = bench._width_goals(part, moved, notes)
    assert [(each["reached"], each.get("most"), each.get("least")) for each in goals] == [
        (pytest.approx(0.3), 0.5, None), (pytest.approx(1.8), None, 1.5)
    ]  # fmt: skip
    outside = [sweep("scaled", i, 9.0) for i in range(4)] + sweeps[4:]
    rows, moved = bench.axis_result(part, outside)
    assert moved["scaled"] is None
    assert len(bench._width_goals(part, moved, notes)) == 1
    assert notes == ["A bowl shows no certain optimum of a scaled size: goal missed."]


def test_three_rates_ignore_a_steep_side(bench: Any) -> None:
    steep = sweep("scaled", 0, 0.2)
    steep.losses[3.0] = (9.0, 9.0)  # type: ignore[index]
    assert bench.through_three(steep) == pytest.approx(0.2)
    assert bench.through_three(sweep("scaled", 0, 5.0)) is None  # the lowest loss is at the end


def test_compute_of_a_transfer_has_the_training_of_the_target(bench: Any) -> None:
    proxy, target = sweep("scaled", 0, 1.0, bottom=5.0), sweep("scaled", 3, 0.0)
    rows, found = bench.target_result([proxy, target], [2.0, 100.0], 2)
    # the proxy's best rate is an octave from the target's
    assert found["given_up"] == pytest.approx(100 * 0.1 / 4)
    own, tuning = len(RATES) * 2 * 100, len(RATES) * 2 * 2
    assert found["tuning_alone"] == pytest.approx(100 * tuning / own)
    assert found["compute"] == pytest.approx(100 * (tuning + 100) / own)
    assert [row[2] for row in rows] == ["5.0000", "4.1000", "4.1000", "4.0000"]
    diverged = {**target.losses, 1.0: (math.inf, 4.0)}
    bad = Sweep("scaled", target.size, diverged)
    assert bench.target_result([proxy, bad], [2.0, 100.0], 2)[1]["given_up"] == math.inf


@pytest.mark.slow
def test_bench_transfer_has_a_quick_mode_and_goes_on(tmp_path: Path) -> None:
    out, picture = tmp_path / "numbers.json", tmp_path / "losses.png"
    command = [sys.executable, BENCH / "transfer.py", "--quick", "--processes", "1"]
    command += ["--parts", "depth", "target", "--corpora", tmp_path / "corpora"]
    command += ["--out", out, "--plot", picture]

    def run() -> tuple[dict[str, Any], str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(out.read_text())
        return result, done.stderr

    result, _ = run()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [table["title"] for table in result["tables"]] == [
        "optimum over the depth", "target trained with the proxy's best rate",
    ]  # fmt: skip
    for table in result["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    depth, target = (result["numbers"][name]["sweeps"] for name in ("depth", "target"))
    assert [(each["kind"], each["size"]) for each in depth] == [
        (kind, f"{n} layers") for kind in KINDS for n in (2, 4)
    ]
    # the largest model is the same in both parametrizations
    shared = depth[1]["losses"].keys() & depth[3]["losses"].keys()
    assert shared
    assert all(depth[1]["losses"][rate] == depth[3]["losses"][rate] for rate in shared)
    best = min(target[0]["losses"], key=lambda rate: target[0]["losses"][rate][0])
    assert best in target[1]["losses"]

    points = tmp_path / "numbers.losses"
    lines = points.read_text().splitlines()
    points.write_text("\n".join(lines[:-3]) + "\n")
    again, _ = run()
    assert again["numbers"] == result["numbers"]
    assert points.read_text().splitlines() == lines  # three were trained again, with equal bits
