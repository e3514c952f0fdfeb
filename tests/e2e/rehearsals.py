"""Rehearsals of the benches: their quick modes, and what the result of each must say.

A result is checked alike whether the bench has just run or its numbers were recorded
(tests/e2e/rehearsed/*.json): tables, goals, notes and picture are made from the numbers again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e.compose_servers import missing
from tuner.transfer.sweep import KINDS

BENCH = Path(__file__).parents[2] / "bench"
RECORDED = Path(__file__).parent / "rehearsed"
Result = dict[str, Any]
SECONDS = 900.0  # longest run


# what the results must say ----------------------------------------------------------------------


def check_fusion(result: Result) -> None:
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
    assert "of the peak" in result["tables"][0]["columns"]


def check_makespan(result: Result) -> None:
    assert list(result["numbers"]) == ["ours", "ray"]
    for name, (measured,) in result["numbers"].items():
        assert measured["trials"] == 4, name
        assert 1 <= measured["complete"] <= 4
        assert 0 < measured["first_training"] < measured["wall"]
        assert 0 < measured["training"] < 1
        assert 0 <= measured["tokens_wasted"] < measured["tokens"] <= 4 * 2 * 10_000
        assert measured["tokens_wasted"] == 0 or name == "ours"
    slots = result["numbers"]["ours"][0]["slots"]
    assert 0 <= slots["idle"] < 1
    assert 0 <= slots["engine_idle"] < 1
    assert slots["none_left"] < 0.01, "there were new trials to begin"
    assert 0 < slots["training"] < 1
    assert slots["refills"] >= 2


def check_search_quality(result: Result) -> None:
    found = result["numbers"]
    assert found["table"]["rows"] >= 200
    methods = found["methods"]
    assert set(methods) == {
        "random · none",
        "gp · hyperband",
        "the file",
        "the file, 24 trials",
        "one report, then top k",
        "Step Law",
    }
    for name, method in methods.items():
        assert list(method["regret"]) == ["1", "2", "4"], name
        for quantile in ("low", "median", "high"):  # null: nothing had finished
            curve = [99.0 if v is None else v for v in method["curve"][quantile]]
            assert all(value >= 0 for value in curve)
            if name != "one report, then top k":  # each of its budgets is another run
                assert curve == sorted(curve, reverse=True), name
    # two slots train at once, so that no trial has finished after one trial's tokens
    assert methods["random · none"]["regret"]["1"] == [None] * 3
    assert methods["random · none"]["regret"]["4"][1] < 1
    rows = {row[0]: row for table in result["tables"][1:] for row in table["rows"]}
    assert rows["gp · hyperband"][1] == 2


def check_overhead(result: Result) -> None:
    found = result["numbers"]
    (run,) = found["runs"]
    assert (run["trials"], run["reports"]) == (12, 10)
    assert run["wall_seconds"] > 12 * run["stub_seconds"] / 4  # no trial can be shorter
    assert 0 < run["driver_ms_per_trial"] < run["cpu_ms_per_trial"]
    assert run["driver_megabytes"] > 50
    assert found["one_report"]["reports"] == 1
    (many,) = found["many_slots"]
    assert (many["slots"], many["clients"]) == (8, 1)
    assert many["reports_per_second"] > 10
    assert 0 < many["client_seconds_per_slot"] < 5
    trials, summary, slots = (table["rows"] for table in result["tables"])
    assert [row[0] for row in trials] == ["12 of 10, tpe, 0.2 s", "12 of 1, tpe, 0.2 s"]
    assert float(dict(summary)["overhead share"].removesuffix(" %")) > 0
    assert slots[0][0] == "8"


def check_tokenizer(result: Result) -> None:
    numbers = result["numbers"]
    assert numbers["corpora"]["prose"]["bytes"] > 1e5
    rows = numbers["rows"]
    ours = {(r["part"], r["workers"], r["output"], r["pass"]) for r in rows if r["side"] == "ours"}
    passes = ("first pass", "second pass")
    encoding = {("encode", n, o, p) for n in (1, 2) for o in ("lists", "arrays") for p in passes}
    assert ours == {("train", 1, "", ""), ("train", 2, "", ""), *encoding}
    versions = result["about"]["versions"].keys() - {"python", "numpy", "regex"}
    assert {row["side"].split()[0] for row in rows} == {"ours", *versions}
    for row in rows:
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"] < 60
        assert 0.01 < row["megabytes_per_second"] < 10_000
        assert row["speed_of_ours"] > 0
    assert "MB/s" in result["tables"][0]["columns"]


def check_transfer(result: Result) -> None:
    assert [table["title"] for table in result["tables"]] == [
        "optimum over the depth", "target trained with the proxy's best rate",
    ]  # fmt: skip
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


def check_stack(result: Result) -> None:
    rates, slow = result["tables"]
    ((name, *each),) = rates["rows"]
    assert name == "as shipped"
    assert all(0.01 < rate < 1000 for rate in each)
    (asleep, _) = (row[1] for row in slow["rows"])
    assert 0 < asleep < 100  # ms; a search that waited for the server would have waited a second


def check_lora(result: Result) -> None:
    rates = result["numbers"]["rates"]
    assert len(rates) == 5
    assert all(1 < loss < 7 for side in rates.values() for loss in side["losses"])
    assert rates["all weights"]["losses"] != rates["from random weights"]["losses"]
    speed = result["numbers"]["speed"]
    assert list(speed) == ["float32", "mixed_bfloat16"]
    for sides in speed.values():
        assert list(sides) == ["ours, 1", "ours, 2", "one by one", "processes, 2"]
        for (measured,) in sides.values():
            assert measured["rate"] > 1
            assert 50 < measured["megabytes"] < 3_000
            assert 7 < measured["loss"] < 8.5  # random tokens: ln 2048
    assert "times PEFT" in result["tables"][0]["columns"]
    ours, theirs = (side["losses"] for side in result["numbers"]["search"].values())
    assert len(ours) == len(theirs) == 2
    assert all(abs(a - b) < 0.05 for a, b in zip(ours, theirs, strict=True))
    loading = result["numbers"]["loading"]
    assert all(each["memory_bytes"] < 3 * each["bytes"] for (each,) in loading.values())


def check_load(result: Result) -> None:
    (table,) = result["tables"]
    assert [row[0].split()[0] for row in table["rows"]] == [
        "sync,", "sync", "list", "status", "show", "show", "report",
    ]  # fmt: skip
    for what, seconds, cpu, megabytes in table["rows"]:
        assert 0.1 < cpu < 60, what
        assert seconds < 120
        assert 20 < megabytes < 1500


def check_serve(result: Result) -> None:
    measured = {row[0]: row[1] for row in result["tables"][0]["rows"]}
    assert all(value > 0 for value in measured.values())
    assert measured["submission, p95, ms"] < 30_000
    assert 50 < measured["memory of the server, MB"] < 500


def check_pages(result: Result) -> None:
    small, long, *beside = result["tables"]
    measured = {row[0]: row[1] for row in (*small["rows"], *long["rows"])}
    assert measured["JavaScript, kB"] < 300
    assert all(ms > 0 for ms in measured.values())
    own = result["numbers"]["own"]
    assert own["paint"] < own["drawn"]
    assert sum(own["frames"]) > 900 * result["numbers"]["seconds"], "frames fill the time"
    for table in beside:
        assert [row[0] for row in table["rows"]] == ["tuner serve", "MLflow", "Optuna"]


def check_law(result: Result) -> None:
    assert len(result["goals"]) == 7
    for goal in result["goals"]:  # the law holds on a CPU as well
        assert (goal["reached"], goal["most"]) == (0, 0), goal["what"]
    ends = result["numbers"]["neighbours, bfloat16"]["ends"]
    assert ends == {"diverged": 1, "finished": 2, "training": 1}
    assert result["numbers"]["neighbours, bfloat16"]["ticks_of_graphs"] > 0
    assert result["numbers"]["across widths, bfloat16"]["equal"] == [True] * 3
    assert any(n.startswith("Not measured, goal open: 50M: time of a") for n in result["notes"])
    assert result["numbers"]["tests/gpu/test_law.py"]["ended"] is True


def check_kernel(result: Result) -> None:
    measured = {"right", "copy", "time, tiny, bfloat16", "time, tiny, float32"}
    assert set(result["numbers"]) == measured
    assert result["numbers"]["right"]["error_of_theta"] < 1e-5


def check_gpu_fusion(result: Result) -> None:
    assert list(result["numbers"]) == ["tiny: by K", "tiny: beside eager loops"]
    beside = result["numbers"]["tiny: beside eager loops"]
    assert list(beside["rates"]) == ["ours", "eager", "eager, 2 processes", "peak"]
    assert all(rate > 0 for rates in beside["rates"].values() for rate in rates)
    assert beside["largest_difference"] < 1e-5  # the same trainings


def check_profile(result: Result) -> None:
    numbers = result["numbers"]
    assert len(numbers["ticks, tiny"]["largest"]) == 5
    assert numbers["refills, tiny"]["trials"] >= 2
    assert numbers["reports, tiny"]["bytes"] > 1e5
    assert 0 < numbers["slots, tiny"]["of_best"] <= 1


def check_gpu_lora(result: Result) -> None:
    assert list(result["numbers"]) == ["tiny: by K", "tiny: beside PEFT"]
    widths = result["numbers"]["tiny: by K"]["by_width"]
    assert [each["tokens"] for each in widths.values()] == [64, 128]
    beside = result["numbers"]["tiny: beside PEFT"]["by_processes"]
    assert [each["tokens"] for each in beside.values()] == [64, 128]
    assert all(each["wall"] > 0 for each in (*widths.values(), *beside.values()))
    open_goals = [note for note in result["notes"] if "goal open" in note]
    assert len(open_goals) == 5  # those of the real sizes, and the memory of 8 trials


def check_gpu_search(result: Result) -> None:
    assert result["numbers"]["beside, optuna-pool"]["trials"] == 2
    real = result["numbers"]["real size"]
    assert real["replay"] == "bit-exact"
    assert real["tokens"] >= 2 * 10_000
    (goal,) = (goal for goal in result["goals"] if "replayed" in goal["what"])
    assert goal["reached"] == 0


def check_suggest(result: Result) -> None:
    entries = result["numbers"]["suggestions"]
    assert len(entries) == 3
    for entry in entries:
        value, low, high = entry["loss"]
        assert 1 < low <= value <= high < 12
        assert 0 <= entry["smooth"] < 0.1
        assert 0 < entry["expected"] < 0.1
        assert (entry["trained"], entry["losses"]) == (None, []), "a rehearsal trains nothing"


CHECKS: dict[str, Callable[[Result], None]] = {
    "fusion": check_fusion,
    "makespan": check_makespan,
    "search_quality": check_search_quality,
    "suggest": check_suggest,
    "overhead": check_overhead,
    "tokenizer": check_tokenizer,
    "transfer": check_transfer,
    "stack": check_stack,
    "load": check_load,
    "lora": check_lora,
    "serve": check_serve,
    "pages": check_pages,
    "gpu.law": check_law,
    "gpu.kernel": check_kernel,
    "gpu.fusion": check_gpu_fusion,
    "gpu.lora": check_gpu_lora,
    "gpu.profile": check_profile,
    "gpu.search": check_gpu_search,
}


def check(name: str, result: Result, output: str) -> None:
    """Check a result of a rehearsal, and what the bench prints of it."""
    assert result["bench"] == name
    assert result["about"]["rehearsal"] is True
    assert result["goals"] == [] or name.startswith("gpu.")
    assert result["tables"]
    for table in result["tables"]:
        assert table["title"] in output
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for goal in result["goals"]:
        is_met = goal["reached"] >= goal.get("least", -math.inf)
        is_met &= goal["reached"] <= goal.get("most", math.inf)
        assert f"{'met' if is_met else 'MISSED':7} {goal['what']}: " in output
    assert all(note in output for note in result["notes"])
    assert "say nothing about a GPU" in output or not name.startswith("gpu.")
    CHECKS[name](result)
    page = "".join(import_module("benchmarks_page").pages({name: result}).values())
    for table in result["tables"]:
        assert page.count("\n| ") >= len(table["rows"])


# recorded numbers -------------------------------------------------------------------------------


def made_again(name: str, recorded: Result, folder: Path) -> tuple[Result, str]:
    """Return what a bench makes of numbers, and what it prints; draw its picture as well."""
    if name.startswith("gpu."):
        gpu, where = import_module("gpu"), import_module("parts.gpu.measurement").Where("cpu", True)
        record = SimpleNamespace(numbers=recorded["numbers"], failures={})
        result = gpu.result_of(name.removeprefix("gpu."), record, recorded["about"], where, [])
        plot = None
    else:
        module = import_module(name)
        result = module.result_of(recorded["numbers"], recorded["about"])
        plot = getattr(module, "plot", None)
    options = SimpleNamespace(out=folder / "result.json", plot=folder / "picture.png")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        import_module("parts.measuring").finish(result, options, plot)
    if plot is not None:
        assert options.plot.read_bytes().startswith(b"\x89PNG")
    return json.loads(options.out.read_text(encoding="utf-8")), output.getvalue()


def recorded(name: str) -> Result:
    """Return the recorded result of a rehearsal."""
    result: Result = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return result


# real runs --------------------------------------------------------------------------------------


def run(name: str, folder: Path) -> tuple[Result, str]:
    """Run the quick mode of a bench; return its result and what it printed."""
    if name in {"lora", "gpu.lora"}:
        pytest.importorskip("peft")
    if name.startswith("gpu."):
        part = name.removeprefix("gpu.")
        return (killed_and_run if part == "kernel" else run_part)(part, folder)
    if name == "stack" and (reason := missing()) is not None:
        pytest.skip(reason)
    out, picture = folder / "result.json", folder / "picture.png"
    command: list[Any] = [sys.executable, BENCH / f"{name}.py"]
    command += ["replay"] if name == "search_quality" else []
    command += ["--quick", "--out", out]
    has_picture = name not in {"overhead", "stack", "load", "serve", "pages", "lora"}
    command += ["--plot", picture] if has_picture else []
    command += {"load": ["--parts", "trials"]}.get(name, [])
    if name == "transfer":
        command += ["--processes", "1", "--parts", "depth", "target"]
        command += ["--corpora", folder / "corpora"]
    output = finished(command)
    result: Result = json.loads(out.read_text(encoding="utf-8"))
    if has_picture:
        assert picture.read_bytes().startswith(b"\x89PNG")
    if name == "transfer":
        points = out.with_suffix(".losses")
        lines = points.read_text().splitlines()
        points.write_text("\n".join(lines[:-3]) + "\n")
        finished(command)
        assert json.loads(out.read_text(encoding="utf-8"))["numbers"] == result["numbers"]
        assert points.read_text().splitlines() == lines  # trained again, with equal bits
    return result, output


def finished(command: list[Any]) -> str:
    """Run a command to its end, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def part_command(part: str, out: Path) -> list[Any]:
    """Return the command of a part of gpu.py on a CPU."""
    command = [sys.executable, BENCH / "gpu.py", "--part", part, "--out", out]
    return [*command, "--device", "cpu", "--quick"]


def run_part(part: str, out: Path) -> tuple[Result, str]:
    """Run a part of gpu.py on a CPU; each measurement has its line in the record."""
    done = subprocess.run(
        part_command(part, out), capture_output=True, text=True, check=False, timeout=SECONDS
    )
    log = out / f"gpu.{part}.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-3000:]
    result: Result = json.loads((out / f"gpu.{part}.json").read_text())
    assert {line["name"] for line in lines_of(out, part)} == set(result["numbers"])
    return result, done.stdout


def lines_of(out: Path, part: str) -> list[Any]:
    """Return the lines of a record; those that were cut off are left out."""
    found = []
    for line in (out / f"gpu.{part}.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def killed_and_run(part: str, out: Path) -> tuple[Result, str]:
    """Kill a part, and run it again: it goes on where it was cut off."""
    pytest.importorskip("triton")
    record = out / f"gpu.{part}.jsonl"
    begun = subprocess.Popen(part_command(part, out), start_new_session=True)
    ends = time.monotonic() + 300

    def has_begun() -> bool:
        return record.exists() and record.read_bytes().endswith(b"\n")

    while not has_begun() and time.monotonic() < ends and begun.poll() is None:
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    before = [line["name"] for line in lines_of(out, part)]
    with record.open("a") as cut:
        cut.write('{"name": "copy", "numb')
    result, output = run_part(part, out)
    assert f"{len(before)} measurements are there already" in output
    made = [line["name"] for line in lines_of(out, part)]
    assert made[: len(before)] == before
    assert sorted(made) == sorted(result["numbers"]), "nothing is measured twice"
    return result, output
