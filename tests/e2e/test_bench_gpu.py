"""bench/gpu.py: rehearsals of its parts on a CPU, and what the command refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
REHEARSAL = ("--device", "cpu", "--quick")


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)


def command(part: str, out: Path, *options: str) -> list[Any]:
    return [sys.executable, BENCH / "gpu.py", "--part", part, "--out", out, *options]


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# rehearsals -------------------------------------------------------------------------------------


def rehearsed(part: str, out: Path, *options: str) -> tuple[dict[str, Any], str]:
    run = command(part, out, *REHEARSAL, *options)
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=600)
    log = out / f"gpu.{part}.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-3000:]
    result = json.loads((out / f"gpu.{part}.json").read_text())
    assert result["bench"] == f"gpu.{part}"
    assert result["about"]["rehearsal"] is True
    assert result["tables"]
    for table in result["tables"]:
        assert table["title"] in done.stdout
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    made = lines_of(out / f"gpu.{part}.jsonl")
    assert {line["name"] for line in made} == set(result["numbers"])
    assert "say nothing about a GPU" in done.stdout
    return result, done.stdout


@pytest.mark.slow
def test_rehearsal_of_the_law(tmp_path: Path) -> None:
    result, output = rehearsed("law", tmp_path)
    goals = {goal["what"]: goal for goal in result["goals"]}
    assert len(goals) == 7
    for what, goal in goals.items():  # the law holds on a CPU as well
        assert goal["reached"] == 0, what
        assert f"met     {what}: 0, at most 0" in output
    ends = result["numbers"]["neighbours, bfloat16"]["ends"]
    assert ends == {"diverged": 1, "finished": 2, "training": 1}
    assert result["numbers"]["neighbours, bfloat16"]["ticks_of_graphs"] > 0
    assert result["numbers"]["across widths, bfloat16"]["equal"] == [True] * 3
    assert "Not measured, goal open: 50M: time of a step" in output
    assert result["numbers"]["tests/gpu/test_law.py"]["ended"] is True


@pytest.mark.slow
def test_rehearsal_of_training_steps(tmp_path: Path) -> None:
    result, _ = rehearsed("fusion", tmp_path)
    assert list(result["numbers"]) == ["tiny: by K", "tiny: beside eager loops"]
    beside = result["numbers"]["tiny: beside eager loops"]
    assert list(beside["rates"]) == ["ours", "eager", "eager, 2 processes", "peak"]
    assert all(rate > 0 for rates in beside["rates"].values() for rate in rates)
    assert beside["largest_difference"] < 1e-5  # the same trainings


@pytest.mark.slow
def test_rehearsal_of_the_profile(tmp_path: Path) -> None:
    result, _ = rehearsed("profile", tmp_path)
    numbers = result["numbers"]
    assert len(numbers["ticks, tiny"]["largest"]) == 5
    assert numbers["refills, tiny"]["trials"] >= 2
    assert numbers["reports, tiny"]["bytes"] > 1e5
    assert 0 < numbers["slots, tiny"]["of_best"] <= 1


@pytest.mark.slow
def test_rehearsal_of_searches(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    result, _ = rehearsed("search", tmp_path)
    assert result["numbers"]["beside, optuna-pool"]["trials"] == 2
    real = result["numbers"]["real size"]
    assert real["replay"] == "bit-exact"
    assert real["tokens"] >= 2 * 10_000
    (goal,) = (goal for goal in result["goals"] if "replayed" in goal["what"])
    assert goal["reached"] == 0


@pytest.mark.slow
def test_killed_part_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    record = tmp_path / "gpu.kernel.jsonl"
    begun = subprocess.Popen(command("kernel", tmp_path, *REHEARSAL), start_new_session=True)
    ends = time.monotonic() + 300

    def has_begun() -> bool:
        return record.exists() and record.read_bytes().endswith(b"\n")

    while not has_begun() and time.monotonic() < ends and begun.poll() is None:
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    before = lines_of(record)
    with record.open("a") as cut:
        cut.write('{"name": "copy", "numb')
    result, output = rehearsed_after_a_cut(tmp_path)
    assert f"{len(before)} measurements are there already" in output
    after = [line for line in record.read_text().splitlines() if not line.endswith('"numb')]
    made = [json.loads(line)["name"] for line in after]
    assert made[: len(before)] == [line["name"] for line in before]
    assert sorted(made) == sorted(result["numbers"]), "nothing is measured twice"
    assert set(made) == {"right", "copy", "time, tiny, bfloat16", "time, tiny, float32"}
    assert result["numbers"]["right"]["error_of_theta"] < 1e-5


def rehearsed_after_a_cut(out: Path) -> tuple[dict[str, Any], str]:
    run = command("kernel", out, *REHEARSAL)
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "gpu.kernel.json").read_text()), done.stdout


# the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "gpu"], "--device must be cpu, cuda or cuda:N, got gpu"),
        (["--device", "cpu"], "--device cpu is a rehearsal and needs --quick"),
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
    ],
)
def test_invalid_options_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    import gpu

    monkeypatch.setattr(sys, "argv", list(map(str, command("law", tmp_path, *options)[1:])))
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_wheels_are_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu

    def version(name: str) -> str:
        if name in {"pydantic-core", "safetensors"}:
            raise gpu.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(gpu.metadata, "version", version)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", list(map(str, command("law", out, *REHEARSAL)[1:])))
    assert gpu.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench/gpu.py --part law needs pydantic-core, safetensors, which ")
    assert "carry their wheels" in line
    assert not out.exists()


def test_only_searches_need_the_service() -> None:
    import gpu

    for part in ("law", "kernel", "fusion", "profile"):
        assert gpu.needed(part, on_gpu=False) == [*gpu.NEEDED]
    names = gpu.needed("search", on_gpu=True)
    assert {"triton", "ray", "optuna", "mlflow", "pyyaml"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_parts_but_the_search_import_only_what_they_name(tmp_path: Path) -> None:
    """A bare machine has nothing else, not even our packages."""
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'regex', 'loky', 'yaml', 'sacrebleu', 'scipy',"
        " 'matplotlib', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "import gpu\n"
        "from parts.gpu.measurement import Where, part_of\n"
        "for part in ('law', 'kernel', 'fusion', 'profile'):\n"
        "    assert part_of(part).measurements(Where('cuda', False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(BENCH)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_real_size_is_that_of_the_shipped_space() -> None:
    from parts.gpu.law import REAL

    from tuner.space_file.load import read_space

    space = read_space(BENCH.parent / "search_spaces" / "lm_gpu.yaml")[0]
    for name, parameter in space.model.items():
        assert getattr(REAL.architecture, name) == parameter.distribution.value, name
    assert REAL.architecture.vocab_size == space.tokenizer.vocab_size


@pytest.mark.parametrize("quick", [False, True])
def test_shrunk_space_is_valid(tmp_path: Path, quick: bool) -> None:
    from parts.gpu.search import SPACE, shrunk

    from tuner.space_file.load import read_space

    file = tmp_path / "lm_gpu.yaml"
    file.write_text(shrunk(SPACE.read_text(), quick=quick))
    space = read_space(file)[0]
    assert space.budget.tokens == (10_000 if quick else 2_000_000)
    assert space.model["d_model"].distribution.value == (16 if quick else 128)
    with pytest.raises(ValueError, match="has 0 entries d_model"):
        shrunk("model: {}", quick=quick)
