from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Workplace

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_bench_search_has_a_quick_mode(workplace: Workplace, tmp_path: Path) -> None:
    space, out = workplace.folder / "small.yaml", tmp_path / "numbers.json"
    command = [sys.executable, BENCH / "search.py", "--quick", "--space", space, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(out.read_text())
    assert 0 < numbers["first_report_seconds"] < numbers["wall_seconds"]
    assert 0 < numbers["training_share"] <= 1
    assert numbers["peak_pss_bytes"] > 1e8
    assert numbers["processes"] >= 3
    assert "wall_seconds" in done.stdout


@pytest.mark.slow
def test_bench_preparation_has_a_quick_mode(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    command = [sys.executable, BENCH / "preparation.py", "--quick", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(out.read_text())
    assert 2e6 <= numbers["bytes"] < 4e6
    assert numbers["tokens"] > numbers["bytes"] / 10
    assert 5e7 < numbers["peak_pss_bytes"] < 5e8
    assert "megabytes_per_second" in done.stdout


@pytest.mark.slow
def test_bench_tokenizer_has_a_quick_mode(tmp_path: Path) -> None:
    out, picture = tmp_path / "numbers.json", tmp_path / "bars.png"
    command = [sys.executable, BENCH / "tokenizer.py", "--quick", "--out", out, "--plot", picture]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["ids_equal"] is True
    assert report["corpora"]["prose"]["bytes"] > 1e5
    rows = report["rows"]
    ours = {(r["part"], r["workers"], r["output"], r["pass"]) for r in rows if r["side"] == "ours"}
    passes = ("first pass", "second pass")
    encoding = {("encode", n, o, p) for n in (1, 2) for o in ("lists", "arrays") for p in passes}
    assert ours == {("train", 1, "", ""), ("train", 2, "", ""), *encoding}
    sides = {row["side"].split()[0] for row in rows}
    assert sides == {"ours", *(name for name, found in report["versions"].items() if found)} - {
        "numpy",
        "regex",
    }
    for row in rows:
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"] < 60
        assert 0.01 < row["megabytes_per_second"] < 10_000
        assert row["speed_of_ours"] > 0
    assert all(goal["met"] == (goal["reached"] >= goal["least"]) for goal in report["goals"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "MB/s" in done.stdout
