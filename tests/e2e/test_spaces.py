"""Every shipped space runs to its end, with a few tiny trials, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.engine.report import Report
from tests.shipped import NAMES, load_shipped, shipped, small_library
from tests.tuner.simulated_search import Simulation
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.samplers.arms import arms_of
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override

# Starts from a search of another space, or from a model. test_examples.py has one, and searches it
# from end to end: records, starts and overrides; test_lora.py validates those with a model. Of the
# others their own part is tested here, without the half a minute in which all searches are alike.
STARTS_FROM = {"finetune": "lm", "lora": "a folder", "full_finetune": "a folder"}
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
    space = load_shipped(name, folder)
    is_grid = space.search.sampler == "grid"  # it trains every combination
    arms = len(arms_of(space))
    trials = space.search.trials if is_grid else max(3, len(space.grid), arms)
    settings = {**QUICK, "search.trials": str(trials), **SMALLER.get(name, {})}
    if space.budget.flops:
        settings["budget.flops"] = "5G"
        del settings["budget.tokens"]
    if arms:
        del settings["confirm"]
        settings["confirm.seeds"] = "2"
    if name not in STARTS_FROM:  # the others share a size, so that each text is prepared once
        settings["tokenizer.vocab_size"] = "512"
    return [f"{key}={value}" for key, value in settings.items()], trials


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture
def _small_library(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_library(corpora / "library", monkeypatch)


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
@pytest.mark.usefixtures("_small_library")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in STARTS_FROM])
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
