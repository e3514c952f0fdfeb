"""Every shipped space runs to its end, with a few tiny trials, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Workplace
from tuner.record import SPACE_FILE, Record
from tuner.space_file import load_space

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
QUICK = {
    "tokenizer.vocab_size": "512",  # one for all, so that each text is prepared once
    "budget.tokens": "2048",
    "budget.reports": "2",
    "budget.validation_tokens": "512",
}
# What else makes a space small enough for a CPU.
SMALLER = {
    "lm_gpu": {
        "model": "{d_model: 32, n_layers: 1, n_heads: 2, context_length: 32}",
        "engine": "{device: cpu}",
    }
}


@pytest.mark.slow
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_space_runs(workplace: Workplace, path: Path, tmp_path: Path) -> None:
    trials = max(3, len(load_space(path).grid))
    settings = {**QUICK, "search.trials": str(trials), **SMALLER.get(path.stem, {})}
    options = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    home = workplace.folder / "spaces"  # not that of the tests which read the newest search
    run = workplace.tuner("search", "--space", str(path), *options, "--home", str(home), "--json")
    assert run.status == 0, run.err
    assert (run.json["search"], run.json["trials"]) == (f"{path.stem}-1", trials)
    record = Record(f"sqlite:///{home}/mlflow.db")
    search = record.search(f"{path.stem}-1")
    assert search.best_run == run.json["best_run"]
    for trial in record.trials(search):
        assert trial.status == "finished" or trial.status.startswith("stopped at report")
    kept = Path(record.client.download_artifacts(search.run_id, SPACE_FILE, str(tmp_path)))
    text = kept.read_text(encoding="utf-8")
    assert text.startswith(path.read_text(encoding="utf-8"))
    assert f"#   search.trials={trials}" in text
