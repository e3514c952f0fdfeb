from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_bench_scaling_has_a_quick_mode(tmp_path: Path) -> None:
    out, picture = tmp_path / "numbers.json", tmp_path / "lines.png"
    command = [sys.executable, BENCH / "scaling.py", "--quick", "--out", out, "--plot", picture]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["numbers"]["rows"]}
    assert list(rows) == [
        "slots of one wide stack",
        "stacks one slot wide, by turns",
        "width",
        "context",
        "vocabulary",
        "trials of a search: tpe, none",
        "trials of a search: random, asha",
    ]
    for row in rows.values():
        assert len(row["x"]) == len(row["y"]) >= 3
        assert list(row["x"]) == sorted(row["x"])
        assert 0 < min(row["y"])
        # how large they are, a busy machine cannot tell
        assert math.isfinite(row["exponent"])
        assert math.isfinite(row["error"])
    assert {d["sampler"] for d in result["numbers"]["drivers"]} == {"tpe", "random"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "How cost grows" in done.stdout


def test_line_is_that_of_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from scaling import Row, fitted

    sizes = [1.0, 2.0, 4.0, 8.0]
    exact = fitted(sizes, [3 * size**1.5 for size in sizes])
    assert exact.exponent == pytest.approx(1.5)
    assert exact.factor == pytest.approx(3)
    assert exact.error == pytest.approx(0, abs=1e-6)
    assert exact.is_worse
    rests = (0.1, -0.1, -0.1, 0.1)  # sum and slope are 0
    noisy = fitted(sizes, [size * math.exp(e) for size, e in zip(sizes, rests, strict=True)])
    u0 = [math.log(size) - math.log(8) / 2 for size in sizes]
    assert noisy.exponent == pytest.approx(1.0)
    assert noisy.error == pytest.approx(math.sqrt(4 * 0.01 / 2 / sum(u * u for u in u0)))
    assert not Row("", "", "", sizes, sizes, [1.0, 2.0, 4.1, 8.2]).line.is_worse
