"""Every shipped space runs to its end, with a few tiny trials, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Run, Workplace
from tuner.record import Record
from tuner.space_file import load_space
from tuner.tags import SPACE_FILE

STARTS_FROM = {"finetune": "lm"}
FOLDER = Path(__file__).parents[2] / "search_spaces"
# That which another starts from comes before it.
SPACES = sorted(FOLDER.glob("*.yaml"), key=lambda path: (path.stem in STARTS_FROM, path.stem))
QUICK = {
    "budget.tokens": "2048",
    "budget.reports": "2",
    "budget.validation_tokens": "512",
    "confirm": "off",
    "engine.workers": "1",  # half as many processes to start
}
# What else makes a space small enough for a CPU.
SMALLER = {
    "lm_gpu": {
        "model": "{d_model: 32, n_layers: 1, n_heads: 2, context_length: 32}",
        "engine": "{device: cpu, workers: 1}",
    }
}


def run_quickly(workplace: Workplace, home: Path, name: str) -> tuple[Run, int]:
    """A quick search of a shipped space, and how many trials it has."""
    path = FOLDER / f"{name}.yaml"
    trials = max(3, len(load_space(path).grid))
    settings = {**QUICK, "search.trials": str(trials), **SMALLER.get(name, {})}
    if name not in STARTS_FROM:  # the others share a size, so that each text is prepared once
        settings["tokenizer.vocab_size"] = "512"
    options = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    run = workplace.tuner("search", "--space", str(path), *options, "--home", str(home), "--json")
    assert run.status == 0, run.err
    return run, trials


@pytest.mark.slow
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_space_runs(workplace: Workplace, path: Path, tmp_path: Path) -> None:
    home = workplace.folder / "spaces"  # not that of the tests which read the newest search
    record = Record(f"sqlite:///{home}/mlflow.db")
    first = STARTS_FROM.get(path.stem)
    if first and not any(search.name == f"{first}-1" for search in record.searches()):
        run_quickly(workplace, home, first)
    run, trials = run_quickly(workplace, home, path.stem)
    assert run.json["trials"] == trials
    search = record.search(run.json["search"])
    assert search.best_run == run.json["best_run"]
    for trial in record.trials(search):
        assert trial.status == "finished" or trial.status.startswith("stopped at report")
    kept = Path(record.client.download_artifacts(search.run_id, SPACE_FILE, str(tmp_path)))
    text = kept.read_text(encoding="utf-8")
    assert text.startswith(path.read_text(encoding="utf-8"))
    assert f"#   search.trials={trials}" in text
