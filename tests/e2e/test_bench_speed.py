"""The benches of speed work, and docs/benchmarks.md says what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def bench(name: str, *options: Any, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run one."""
    command = [sys.executable, BENCH / name, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def result() -> dict[str, Any]:
    """A measurement that nobody made."""
    return {
        "bench": "fusion",
        "about": {
            "command": "python bench/fusion.py --sizes 1M",
            "date": "2026-01-02",
            "device": "Some Processor",
            "kind": "cpu",
            "cores": 4,
            "load": 0.25,
            "versions": {"python": "3.12.1", "torch": "2.13.0"},
        },
        "tables": [
            {
                "title": "1M: d_model 128",
                "columns": ["side", "tokens/s", "ours is"],
                "rows": [["ours", [2000.0, 1900.0, 2100.5], 1], ["a|b", None, 3.14159]],
            }
        ],
        "goals": [
            {"what": "times as fast", "reached": 1.9, "least": 2.0},
            {"what": "seconds", "reached": 1.5, "most": 2.0},
        ],
        "notes": ["vmap was not measured: `no_memory` of a *kind*."],
        "numbers": {},
    }


@pytest.fixture
def make_page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that makes docs/benchmarks.md."""
    monkeypatch.syspath_prepend(BENCH)
    import benchmarks_page

    return benchmarks_page


def test_benchmarks_page_is_up_to_date() -> None:
    bench("benchmarks_page.py", "--check")


def test_benchmarks_page_shows_a_result(make_page: Any, result: dict[str, Any]) -> None:
    text = make_page.page({("fusion", "cpu"): result}, ["fusion.cpu.png"])
    for line in (
        "| [Training steps](#training-steps) | 1 of 2 goals met on 2026-01-02 | "
        "no GPU was available |",
        "### CPU: Some Processor, 4 cores",
        "(python 3.12.1, torch 2.13.0).",
        r"**1M: d\_model 128**",
        "| side | tokens/s | ours is |",
        "|---|---:|---:|",
        "| ours | 2,000 (1,900 – 2,100) | 1 |",
        r"| a\|b | – | 3.14 |",
        "![Training steps, Some Processor](bench/fusion.cpu.png)",
        "- **missed**: times as fast: 1.9, at least 2",
        "- met: seconds: 1.5, at most 2",
        r"- vmap was not measured: `no_memory` of a \*kind\*.",
    ):
        assert line in text.splitlines(), line
    assert "`python bench/fusion.py --sizes 1M`, with a load of 0.25" in text


def test_benchmarks_page_says_how_to_measure_on_a_gpu(
    make_page: Any, result: dict[str, Any]
) -> None:
    how = "`python bench/fusion.py --device cuda --out docs/bench/fusion.cuda.json --plot "
    said = f"**GPU**: no GPU was available; {how}docs/bench/fusion.cuda.png` measures it."
    assert said in make_page.page({("fusion", "cpu"): result}).splitlines()
    result["about"] |= {"kind": "cuda", "device": "Some GPU, CUDA 13.0"}
    text = make_page.page({("fusion", "cuda"): result})
    assert "### GPU: Some GPU, CUDA 13.0" in text.splitlines()
    assert how not in text
    assert "![" not in text  # there is no picture


def test_benchmarks_page_shows_unknown_bench(make_page: Any, result: dict[str, Any]) -> None:
    result |= {"bench": "startup", "goals": []}
    text = make_page.page({("startup", "cpu"): result})
    assert "| [startup](#startup) | measured on 2026-01-02 | no GPU was available |" in text


def test_benchmarks_page_refuses_a_result_under_another_name(
    make_page: Any, result: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "fusion.cpu.json").write_text(json.dumps(result))
    (tmp_path / "search_quality.json").write_text("{}")  # of another form, with a page of its own
    assert make_page.results(tmp_path) == {("fusion", "cpu"): result}
    (tmp_path / "fusion.cuda.json").write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="is a result of fusion on cpu; call it so"):
        make_page.results(tmp_path)
    (tmp_path / "fusion.cuda.json").rename(tmp_path / "fusion.tpu.json")
    with pytest.raises(SystemExit, match=r"called NAME\.cpu\.json or NAME\.cuda\.json"):
        make_page.results(tmp_path)


@pytest.mark.slow
def test_bench_fusion_has_a_quick_mode(tmp_path: Path) -> None:
    out, picture = tmp_path / "numbers.json", tmp_path / "lines.png"
    done = bench("fusion.py", "--quick", "--out", out, "--plot", picture)
    result = json.loads(out.read_text())
    size = result["numbers"]["tiny"]
    assert list(size["by_width"]) == ["1", "2"]
    assert not size["failed"]
    assert size["largest_difference"] < 1e-5  # the same trainings
    sides = {side.split(",")[0] for side in size["rates"]}
    assert sides == {"ours", "eager", "vmap", "peak"}
    low = {side.rpartition(",")[0] for side in size["rates"] if "bfloat16" in side}
    assert low == {"ours, mixed_bfloat16", "eager, bfloat16"}
    assert all(rate > 0 for own in size["rates"].values() for rate in own)
    assert result["about"]["dtype"] == "float32"
    assert result["goals"] == []  # a tiny model has none
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "of the peak" in done.stdout


def test_goals_compare_sides_of_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from parts.fusion import tables

    rates = {
        "ours, compiled, 2 processes": 60, "eager, 2 processes": 40, "compiled, 2 processes": 50,
        tables.low("ours, compiled", 2): 90, tables.low("eager", 2): 70,
        tables.low("compiled", 2): 80, "peak": 1000,
    }  # fmt: skip
    size = {"rates": {name: [float(rate)] for name, rate in rates.items()}}
    goals = tables._goals("0.4M", size, {"kind": "cpu", "dtype": "float32"})
    low = "ours, compiled, mixed_bfloat16, 2 processes"
    assert {goal["what"]: (goal["reached"], goal["least"]) for goal in goals} == {
        "0.4M: ours, compiled, 2 processes, times as fast as eager, 2 processes": (1.5, 1.3),
        f"0.4M: {low}, times as fast as eager, 2 processes": (2.25, 2.0),
        "0.4M: ours, compiled, 2 processes, times as fast as compiled, 2 processes": (1.2, 1.0),
        f"0.4M: {low}, times as fast as compiled, bfloat16, 2 processes": (1.125, 1.0),
    }


@pytest.mark.slow
def test_bench_precision_has_a_quick_mode(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    bench("precision.py", "--quick", "--out", out)
    result = json.loads(out.read_text())
    for trial in result["numbers"]:
        exact, mixed, seed = trial["losses"].values()
        assert exact != mixed
        assert mixed == pytest.approx(exact, rel=1e-3)
        assert seed != pytest.approx(exact, rel=1e-3)
    assert "mixed_bfloat16" in result["tables"][0]["columns"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "gpu"], "--device must be cpu, cuda or cuda:N, got gpu"),
        (["--dtype", "tf32"], "--dtype tf32 is for a GPU"),
        (["--sizes", "2M"], "invalid choice: '2M'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_bench_fusion_refuses_invalid_options(options: list[str], message: str) -> None:
    assert message in bench("fusion.py", *options, status=2).stderr
