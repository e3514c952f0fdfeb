"""The scripts of examples/ run; a shipped space starts from the search that one of them made."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command_process import plain_environment
from tests.e2e.conftest import Workplace
from tests.e2e.test_spaces import STARTS_FROM, quick
from tests.shipped import FOLDER, NAMES
from tuner.tracking.record import Record
from tuner.tracking.tags import SPACE_FILE

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


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a small search of lm.yaml, and what the script printed that made it."""
    folder = tmp_path_factory.mktemp("used")
    return folder, run_example("search_and_use.py", folder, "--trials", "4")


@pytest.mark.slow
def test_search_and_use_example_runs(used: tuple[Path, str]) -> None:
    folder, printed = used
    found = re.search(r"<search (lm-1), finished: 4 trials, .* val_loss (\S+)>", printed)
    assert found, printed
    assert f"the best value is {found[2]}" in printed
    assert re.search(r"<trial \d of lm-1, finished: .*kept>\nimport .", printed), printed
    names = printed.splitlines()[-1].removeprefix("exported: ").split(", ")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*names}
    assert {path.name for path in (folder / "exported").iterdir()} == {*names}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, start in STARTS_FROM.items() if start in NAMES])
def test_shipped_space_is_searched(used: tuple[Path, str], name: str, tmp_path: Path) -> None:
    """By `tuner search`, from the best trial of the example's search, whose model is smaller."""
    place = Workplace(used[0])
    settings, trials = quick(name, tmp_path)
    options = [word for text in (*settings, "model.d_model=32") for word in ("--set", text)]
    run = place.tuner("search", "--space", str(FOLDER / f"{name}.yaml"), *options, "--json")
    assert run.status == 0, run.err
    assert run.json["trials"] == trials
    record = Record(f"sqlite:///{place.home}/mlflow.db")
    search = record.search(run.json["search"])
    assert search.best_run == run.json["best_run"]
    for trial in record.trials(search):
        assert trial.status == "finished" or trial.status.startswith("stopped at report")
    kept = Path(record.client.download_artifacts(search.run_id, SPACE_FILE, str(tmp_path)))
    text = kept.read_text(encoding="utf-8")
    assert text.startswith((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert f"#   search.trials={trials}" in text
