from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command_process import plain_environment

ROOT = Path(__file__).parents[2]


def run_example(name: str, folder: Path, *options: str) -> str:
    """What a script of examples/ prints, run in a folder of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *options],
        cwd=folder, env={**plain_environment(), "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_train_one_trains_side_by_side(tmp_path: Path) -> None:
    printed = run_example("train_one.py", tmp_path, "--rates", "1e-3", "1e-2", "--tokens", "20000")
    found = re.findall(r"α_max (\S+) +step +(\d+)  val_loss (\S+)", printed)
    losses = {rate: [float(loss) for r, _, loss in found if r == rate] for rate, _, _ in found}
    assert losses.keys() == {"0.001", "0.01"}
    for curve in losses.values():
        assert len(curve) == 4
        assert curve[-1] < curve[0]
    assert printed.endswith(f"best: α_max 0.01, val_loss {losses['0.01'][-1]:.4f}\n")


@pytest.mark.slow
def test_search_and_use_example_runs(tmp_path: Path) -> None:
    printed = run_example("search_and_use.py", tmp_path, "--trials", "4")
    found = re.search(r"<search (lm-1), finished: 4 trials, .* val_loss (\S+)>", printed)
    assert found, printed
    assert f"the best value is {found[2]}" in printed
    assert re.search(r"<trial \d of lm-1, finished: .*kept>\nimport .", printed), printed
    names = printed.splitlines()[-1].removeprefix("exported: ").split(", ")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*names}
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {*names}
