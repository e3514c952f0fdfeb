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
