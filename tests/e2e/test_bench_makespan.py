"""The quick modes of the benches of whole searches, and how they count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def run(bench: str, folder: Path, *options: str) -> dict[str, Any]:
    out, picture = folder / "result.json", folder / "picture.png"
    command = [sys.executable, BENCH / bench, "--quick", "--out", out, "--plot", picture, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    result: dict[str, Any] = json.loads(out.read_text())
    for table in result["tables"]:
        assert table["title"] in done.stdout
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    return result


@pytest.mark.slow
def test_bench_makespan_has_a_quick_mode(tmp_path: Path) -> None:
    result = run("makespan.py", tmp_path)
    assert list(result["numbers"]) == ["ray"]
    for name, (measured,) in result["numbers"].items():
        assert measured["trials"] == 2, name
        assert 1 <= measured["complete"] <= 2
        assert 0 < measured["first_training"] < measured["wall"]
        assert 0 < measured["training"] < 1
        assert 0 <= measured["tokens_wasted"] < measured["tokens"] <= 2 * 2 * 10_000
        assert measured["tokens_wasted"] == 0


@pytest.mark.slow
def test_bench_refill_has_a_quick_mode(tmp_path: Path) -> None:
    result = run("refill.py", tmp_path, "--slots", "1")
    ((measured,),) = result["numbers"].values()
    for part in ("", "tail_"):
        assert 0 <= measured[part + "idle"] < 1
        assert 0 <= measured[part + "engine_idle"] < 1
    assert measured["none_left"] < 0.01, "there were new trials to begin"
    assert 0 <= measured["tail_none_left"] < 1
    assert 0 < measured["training"] < 1
    assert 0 <= measured["wasted"] < measured["tokens"]
    assert measured["search_seconds"] < measured["wall_seconds"]
