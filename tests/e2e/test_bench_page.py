"""docs/benchmarks.md and the pages of single benches say what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rehearsals import BENCH


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
    """The module that makes the pages."""
    monkeypatch.syspath_prepend(BENCH)
    return import_module("benchmarks_page")


def main(make_page: Any, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks_page.py", *options])
    status: int = make_page.main()
    return status


def test_pages_are_up_to_date(
    make_page: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(make_page, monkeypatch, "--check") == 0, capsys.readouterr().out


def test_page_that_does_not_match_its_result_is_named(
    make_page: Any,
    result: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(make_page, "DOCS", tmp_path)
    monkeypatch.setattr(make_page, "RESULTS", tmp_path)
    for name in ("fusion", "load"):
        (tmp_path / f"{name}.cpu.json").write_text(json.dumps({**result, "bench": name}))
    assert main(make_page, monkeypatch, "--check") == 1
    assert "benchmarks.md does not match the results: run python" in capsys.readouterr().out
    assert main(make_page, monkeypatch) == 0
    assert main(make_page, monkeypatch, "--check") == 0
    (tmp_path / "load.md").write_text("changed by hand")
    assert main(make_page, monkeypatch, "--check") == 1
    assert f"{tmp_path / 'load.md'} does not match" in capsys.readouterr().out


def test_page_shows_a_result(make_page: Any, result: dict[str, Any]) -> None:
    text = make_page.page({"fusion": result}, ["fusion.cpu.png"])
    for line in (
        "| [Training steps](#training-steps) | 1 of 2 goals met on 2026-01-02 |",
        "Training speed of a stack, beside plain training loops, several processes, and vmap.",
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
    assert "![" not in make_page.page({"fusion": result})  # there is no picture


def test_bench_with_a_page_of_its_own_has_its_whole_text_there(
    make_page: Any, result: dict[str, Any]
) -> None:
    pages: Mapping[Path, str] = make_page.pages({"overhead": {**result, "goals": []}})
    own, main = pages[make_page.RESULTS / "overhead.md"], pages[make_page.DOCS / "benchmarks.md"]
    assert own.startswith("# What a search costs beside training\n\nCost of a search beside")
    assert "\n*Many slots*: four workers" in own
    assert "--trials 100 1000 10000" not in own  # a command, for those who run it
    assert "### CPU: Some Processor, 4 cores" in own
    line = "| [What a search costs beside training](bench/overhead.md) | measured on 2026-01-02 |"
    assert line in main
    assert "## What a search costs" not in main


def test_finished_experiment_has_the_commit_of_its_code(
    make_page: Any, result: dict[str, Any]
) -> None:
    text = make_page.page({"refill": {**result, "bench": "refill"}})
    assert "## Idle slots\n\nThe share of slot time in which no trial trains." in text
    assert "A finished experiment: commit e46d9ad has its code." in text


def test_result_under_another_name_is_refused(
    make_page: Any, result: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "fusion.cpu.json").write_text(json.dumps(result))
    (tmp_path / "cluster.json").write_text("{}")  # of another form
    assert make_page.results(tmp_path) == {"fusion": result}
    (tmp_path / "load.cpu.json").write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="is a result of fusion on cpu; call it so"):
        make_page.results(tmp_path)
    for name in ("fusion.cuda.json", "startup.cpu.json"):
        (tmp_path / "load.cpu.json").rename(tmp_path / name)
        with pytest.raises(SystemExit, match=r"called BENCH\.cpu\.json or gpu\.PART\.json"):
            make_page.results(tmp_path)
        (tmp_path / name).rename(tmp_path / "load.cpu.json")


@pytest.fixture
def gpu_result() -> dict[str, Any]:
    """A measurement that nobody made."""
    return {
        "bench": "gpu.law",
        "about": {
            "command": "python bench/gpu.py --part law --out docs/bench",
            "date": "2026-01-02",
            "device": "Some GPU, CUDA 13.0",
            "kind": "cuda",
            "cores": 16,
            "load": 0.25,
            "versions": {"python": "3.12.3", "torch": "2.11.0"},
            "rehearsal": False,
        },
        "tables": [],
        "goals": [{"what": "trials that differ", "reached": 0, "most": 0}],
        "notes": [],
        "numbers": {},
    }


def test_page_takes_the_results_of_a_gpu(
    make_page: Any, tmp_path: Path, gpu_result: dict[str, Any]
) -> None:
    how = "- The law on a GPU: `python bench/gpu.py --out docs/bench --part law`"
    assert how in make_page.page({}).splitlines()
    (tmp_path / "gpu.law.json").write_text(json.dumps(gpu_result))
    lines = make_page.page(make_page.results(tmp_path)).splitlines()
    assert "| [The law on a GPU](#the-law-on-a-gpu) | 1 of 1 goals met on 2026-01-02 |" in lines
    assert "### GPU: Some GPU, CUDA 13.0" in lines
    assert "- met: trials that differ: 0, at most 0" in lines
    assert how not in lines


def test_page_refuses_a_rehearsal(
    make_page: Any, tmp_path: Path, gpu_result: dict[str, Any]
) -> None:
    file = tmp_path / "gpu.law.json"
    for change, message in (
        ({"rehearsal": True}, "is of a rehearsal, which says nothing"),
        ({"kind": "cpu"}, "is a result of gpu.law on cpu"),
    ):
        file.write_text(json.dumps({**gpu_result, "about": {**gpu_result["about"], **change}}))
        with pytest.raises(SystemExit, match=message):
            make_page.results(tmp_path)
