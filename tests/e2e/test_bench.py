"""The benches without a measurement: tables, verdicts and pictures from recorded numbers."""

from __future__ import annotations

import json
import math
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import rehearsals
from tests.e2e.rehearsals import BENCH, CHECKS
from tuner.space.settings import Proxy
from tuner.space_file.load import load_space
from tuner.transfer.sweep import KINDS, Kind, Size, Sweep

PUBLISHED = BENCH.parent / "docs" / "bench"
RATES = range(-3, 4)


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)


# recorded numbers -------------------------------------------------------------------------------


def assert_alike(result: Any, other: Any) -> None:
    """Tables and goals; intervals, `(0.1 … 0.2)`, depend on the linear algebra of the machine."""

    def without_intervals(tables: Any) -> Any:
        return json.loads(re.sub(r" \([^()]*…[^()]*\)", "", json.dumps(tables, ensure_ascii=False)))

    assert without_intervals(result["tables"]) == without_intervals(other["tables"])
    assert [goal["what"] for goal in result["goals"]] == [goal["what"] for goal in other["goals"]]
    for goal, same in zip(result["goals"], other["goals"], strict=True):
        near = None if same["reached"] is None else pytest.approx(same["reached"], rel=1e-9)
        assert goal == {**same, "reached": near}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_tables_and_verdicts_follow_from_recorded_numbers(name: str, tmp_path: Path) -> None:
    recorded = rehearsals.recorded(name)
    result, output = rehearsals.made_again(name, recorded, tmp_path)
    assert_alike(result, recorded)
    assert result["notes"] == recorded["notes"]
    assert result["about"] == recorded["about"]
    assert result["numbers"] == recorded["numbers"]
    rehearsals.check(name, result, output)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHECKS if not name.startswith("gpu.")])
def test_published_tables_and_verdicts_follow_from_the_numbers(name: str, tmp_path: Path) -> None:
    """Notes may have been added by hand."""
    for file in PUBLISHED.glob(f"{name}*.cpu.json"):
        published = json.loads(file.read_text(encoding="utf-8"))
        result, output = rehearsals.made_again(name, published, tmp_path)
        assert_alike(result, published)
        assert set(result["notes"]) <= set(published["notes"])
        for table in result["tables"]:
            assert table["title"] in output
            assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_table_of_another_space_is_refused(tmp_path: Path) -> None:
    table = import_module("parts.search_quality.table")
    text = (BENCH.parent / "search_spaces" / "lm.yaml").read_text(encoding="utf-8")
    assert "[1e-4, 3e-2]" in text
    changed = tmp_path / "lm.yaml"
    changed.write_text(text.replace("[1e-4, 3e-2]", "[1e-4, 4e-2]"), encoding="utf-8")
    path = BENCH / "parts" / "search_quality" / "tables" / "lm.json.gz"
    with pytest.raises(ValueError, match="is of another space than lm; build it again"):
        table.Table.read(path, load_space(changed))


def test_searches_that_were_told_what_is_left_are_compared_with_more_trials() -> None:
    quality, left = import_module("search_quality"), import_module("parts.search_quality.left")
    space, file, _ = quality.STUDIES["curves"]
    table = import_module("parts.search_quality.table").Table.read(file, load_space(space))
    cases = left.random_cases(left.table_draw(table.final), 24, 100)
    assert sum(each.holds for each in cases) >= 80
    assert all(0 <= each.gain and 0 <= each.left for each in cases)
    lab = quality.Lab(table, 1, 10**12)
    settings = {"sampler": "random", "scheduler": "none"}
    (replayed,) = left.replayed_cases(lab, settings, 16, 1)
    assert replayed is not None
    assert list(left.replayed_cases(lab, settings, 5, 1)) == [None]
    end = left.stopped(lab, settings, 0.05, 0, 100)
    assert end is not None
    assert 8 < end[0] < 100
    assert left.stopped(lab, settings, 1e-6, 0, 20) is None
    intervals = [left.row("random", 24, cases), left.row("few", 5, [None])]
    stops = [left.stop_row("random", 0.05, [end, None]), left.stop_row("never", 1e-6, [None])]
    numbers = {"intervals": intervals, "stopped": stops}
    result = left.result_of(numbers, {"rehearsal": False})
    for each in result["tables"]:
        assert all(len(row) == len(each["columns"]) for row in each["rows"])
    assert result["goals"][0]["reached"] >= 80


def test_misleading_sources_are_compared_with_a_search_that_knows_nothing() -> None:
    results = import_module("parts.search_quality.result")

    def method(mean: float) -> dict[str, Any]:
        return {
            "variant": False, "seeds": 9, "most": 1, "reach": [mean] * 3,
            "regret": {"1": [None] * 3}, "mean_to": {str(x): [mean, 0.3] for x in results.LEVELS},
        }  # fmt: skip

    methods = {
        results.bound(results.COLD, 1): method(6.0),
        results.bound(results.LEARNED, 1): method(1.2),
        results.bound(results.misled("the worst"), 1): method(6.5),
        results.bound(results.misled("at random"), 1): method(7.5),
    }
    facts = dict.fromkeys(("rows", "within_goal", "diverged"), 9)
    facts |= dict.fromkeys(("best", "defaults", "snap_error", "snap_error_plain"), 4.0)
    texts = dict.fromkeys(("space", "command", "date", "device", "torch"), "made-up")
    about = {"study": "lm", "slots": 2, "rehearsal": False, "bounds": True}
    table = {**facts, **texts, "weights": {"B": 1.0}}
    result = results.result_of({"methods": methods, "table": table}, about)
    assert result["bench"] == "learning"
    rows = {row[0]: row[1] for row in result["tables"][1]["rows"]}
    assert rows["nothing known, to within 1 %"] == "6.0 ± 0.3"
    assert rows["… misled, the worst: more than nothing known"] == "+0.5 ± 0.4"
    reached = {goal["what"].partition(":")[0]: goal["reached"] for goal in result["goals"]}
    assert reached == {"learned from the atlas; 1 slot": 1.2, "misled": 1.5}
    assert [goal["most"] for goal in result["goals"]] == [1.5, 1.0, 1.0]


# goals and options ------------------------------------------------------------------------------


def test_goals_compare_sides_of_one_dtype() -> None:
    from parts.fusion import tables

    rates = {
        "ours, compiled, 2 processes": 60, "eager, 2 processes": 40, "compiled, 2 processes": 50,
        tables.low("ours, compiled", 2): 90, tables.low("eager", 2): 70,
        tables.low("compiled", 2): 80, "peak": 1000,
    }  # fmt: skip
    size = {"rates": {name: [float(rate)] for name, rate in rates.items()}}
    goals = tables._goals("0.4M", size)
    low = "ours, compiled, mixed_bfloat16, 2 processes"
    assert {goal["what"]: (goal["reached"], goal["least"]) for goal in goals} == {
        "0.4M: ours, compiled, 2 processes, times as fast as eager, 2 processes": (1.5, 1.3),
        f"0.4M: {low}, times as fast as eager, 2 processes": (2.25, 2.0),
        "0.4M: ours, compiled, 2 processes, times as fast as compiled, 2 processes": (1.2, 1.0),
        f"0.4M: {low}, times as fast as compiled, bfloat16, 2 processes": (1.125, 1.0),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "2M"], "invalid choice: '2M'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_fusion_refuses_invalid_options(
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["fusion.py", *options])
    with pytest.raises(SystemExit) as ended:
        import_module("fusion").main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_goal_that_is_never_reached_is_missed() -> None:
    measuring = import_module("parts.measuring")
    never = measuring.goal("tokens", None, most=0.1)
    assert not measuring.is_met(never)
    assert measuring.goal_line(never) == "MISSED  tokens: never, at most 0.1"


def test_makespan_refuses_sides_that_train_other_models() -> None:
    makespan = import_module("makespan")
    runs = {"ray": [{"defaults": 5.0}], "ours-auto": [{"defaults": 5.01}]}
    makespan.check(runs)  # in bfloat16
    runs["ours"] = [{"defaults": 5.001}]
    with pytest.raises(SystemExit, match=r"the first report of the defaults differs: ray 5\.0"):
        makespan.check(runs)


def test_fusion_refuses_sides_that_train_differently() -> None:
    losses = import_module("fusion").Losses(1e-3)
    losses.check("ours", {0: 5.0, 1: 4.0})
    losses.check("eager", {0: 5.001})
    losses.check("ours, mixed_bfloat16", {1: 4.05}, "bfloat16")
    assert losses.largest == pytest.approx(2e-4)
    with pytest.raises(SystemExit, match=r"vmap: the training loss of seed 1 is 4\.1, and 4 on"):
        losses.check("vmap", {1: 4.1})


# a proxy and its target -------------------------------------------------------------------------


@pytest.fixture
def bench() -> Any:
    return import_module("transfer")


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
    rate = bench.best_of(proxy)
    assert rate == 1.0
    rows, found = bench.target_result([proxy, target], rate, [2.0, 100.0], 2)
    # the proxy's best rate is an octave from the target's
    assert found["given_up"] == pytest.approx(100 * 0.1 / 4)
    own, tuning = len(RATES) * 2 * 100, len(RATES) * 2 * 2
    assert found["tuning_alone"] == pytest.approx(100 * tuning / own)
    assert found["compute"] == pytest.approx(100 * (tuning + 100) / own)
    assert [row[2] for row in rows] == ["5.0000", "4.1000", "4.1000", "4.0000"]
    diverged = {**target.losses, 1.0: (math.inf, 4.0)}
    bad = Sweep("scaled", target.size, diverged)
    assert bench.target_result([proxy, bad], rate, [2.0, 100.0], 2)[1]["given_up"] == math.inf


def test_sweeps_stay_equal_as_json(bench: Any) -> None:
    part = bench.parts_of(quick=False)["width"]
    given = Sweep("scaled", part.sizes[1], {-1.0: (3.0, math.inf), 0.253: (2.5, 2.5)})
    numbers = {"width": {"sweeps": json.loads(json.dumps([bench.as_json(given)])), "flops": []}}
    assert bench.sweeps_of(numbers, {"rehearsal": False}) == {"width": (part, [given])}
