"""Every shipped space runs to its end, with a few tiny trials, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.engine.report import Report
from tests.e2e.conftest import Run, Workplace
from tests.shipped import FOLDER, NAMES, load_shipped, shipped
from tests.tuner.simulated_search import Simulation
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.tracking.record import Record
from tuner.tracking.tags import SPACE_FILE

STARTS_FROM = {"finetune": "lm"}
# By `tuner search`, also the one that it starts from: records, starts and overrides. Of the
# others their own part is tested, without the half a minute in which all searches are alike.
WHOLE = ("finetune",)
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


def quick(name: str, folder: Path) -> tuple[list[str], int]:
    """Settings that make a shipped space quick, and how many trials it then has."""
    trials = max(3, len(load_shipped(name, folder).grid))
    settings = {**QUICK, "search.trials": str(trials), **SMALLER.get(name, {})}
    if name not in STARTS_FROM:  # the others share a size, so that each text is prepared once
        settings["tokenizer.vocab_size"] = "512"
    return [f"{key}={value}" for key, value in settings.items()], trials


def run_quickly(workplace: Workplace, home: Path, name: str) -> tuple[Run, int]:
    """A quick search of a shipped space, and how many trials it has."""
    path, (settings, trials) = shipped(name, workplace.folder), quick(name, workplace.folder)
    options = [text for setting in settings for text in ("--set", setting)]
    run = workplace.tuner("search", "--space", str(path), *options, "--home", str(home), "--json")
    assert run.status == 0, run.err
    return run, trials


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_shipped_space_is_searched(workplace: Workplace, name: str, tmp_path: Path) -> None:
    home = workplace.folder / "spaces"  # not that of the tests which read the newest search
    if name in STARTS_FROM:
        run_quickly(workplace, home, STARTS_FROM[name])
    run, trials = run_quickly(workplace, home, name)
    assert run.json["trials"] == trials
    record = Record(f"sqlite:///{home}/mlflow.db")
    search = record.search(run.json["search"])
    assert search.best_run == run.json["best_run"]
    for trial in record.trials(search):
        assert trial.status == "finished" or trial.status.startswith("stopped at report")
    kept = Path(record.client.download_artifacts(search.run_id, SPACE_FILE, str(tmp_path)))
    text = kept.read_text(encoding="utf-8")
    assert text.startswith((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert f"#   search.trials={trials}" in text


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def conducted(space: SearchSpace, corpus: Corpus) -> Conductor:
    """A search whose trials are trained here, as its conductor asks for them."""
    engine = Engine(*corpus.splits, slots=4, decode=corpus.tokenizer.decode)
    made: dict[tuple[str, int], Report] = {}

    def train(row: Trial, step: int) -> Report:
        name = str(row.number)
        if (name, row.report_steps[0]) not in made:
            engine.add_trial(name, row.spec)
        while (name, step) not in made:
            made.update({(report.trial_id, report.step): report for report in engine.step()})
            assert not engine.failures
        return made[name, step]

    return Simulation(Conductor(space, DataFacts.of(corpus), 2), train=train).run()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in WHOLE])
def test_shipped_space_trains(corpora: Path, name: str, tmp_path: Path) -> None:
    settings, trials = quick(name, tmp_path)
    overrides = [Override.parse(text) for text in settings]
    space = read_space(shipped(name, tmp_path), overrides)[0]
    corpus = prepare(space.data, space.tokenizer, corpora)
    board = conducted(space, corpus).board
    assert len(board.searched) == trials
    assert board.best is not None
    for row in board.searched:
        assert row.reports
        assert row.outcome == "finished" or str(row.outcome).startswith("stopped at report")
