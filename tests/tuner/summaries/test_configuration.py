from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.results.finished_search import ARMS, SPACE, conducted
from tests.tuner.simulated_search import FACTS, space_of
from tests.tuner.summaries.trial_configurations import configuration_of
from tuner.space_file.load import load_space

SAME = "A search of this file trains this trial again: the specifications are equal."
BUDGETS = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  schedule: wsd
  T_warmup: 3
  B: {choice: [8, 16]}
budget: {tokens: [6_000, 12_000, 24_000], reports: 8}
search: {%s, seed: 3, scheduler: none}
confirm: off
"""
STEPS = """\
hyperparameters: {T_total: 30, λ_emb: {fraction_of: λ, value: 1}, λ: {log: [1e-3, 1]}}
search: {%s}
"""
PROXY = """\
model: {d_model: 256, n_heads: 8, n_layers: 4, context_length: 32}
proxy: {width: 1/4, depth: 1/2, tokens: 1/2}
hyperparameters: {α_max: {log: [1e-4, 1e-1]}, optimizer: {choice: [adamw, muon]}, B: 8}
budget: {tokens: 54_000}
search: {%s}
"""


@pytest.mark.parametrize(
    "text", [SPACE, ARMS, STEPS, PROXY], ids=["conditions", "arms", "steps", "proxy"]
)
def test_written_space_gives_the_specification_of_its_trial(tmp_path: Path, text: str) -> None:
    space = space_of(tmp_path, "trials: 10", text)
    board = conducted(space).board
    assert len(board.searched) == 10
    for trial in board.searched:
        configuration = configuration_of(space, trial)
        written = configuration.yaml()
        assert SAME in written, written
        path = tmp_path / f"{configuration.name}.yaml"
        path.write_text(written, encoding="utf-8")
        again = load_space(path)
        assert not again.searched
        assert again.spec(again.defaults(), FACTS, again.search.seed).hash == trial.spec.hash
    for trial in board.confirming:
        assert "trains a similar trial: other seed." in configuration_of(space, trial).yaml()


def test_written_space_of_a_branch_says_how_it_differs_or_is_equal(tmp_path: Path) -> None:
    space = space_of(tmp_path, "trials: 2", BUDGETS)
    trials = conducted(space).board.trials.values()
    texts = [configuration_of(space, trial).yaml() for trial in trials]
    assert len(texts) > 3
    assert sum(SAME in text for text in texts) >= 2
    for text in texts:
        assert SAME in text or "trains a similar trial: other" in text


def test_trial_that_copied_another_one_is_said_to_differ(tmp_path: Path) -> None:
    population = SPACE.replace("confirm: {top: 2, seeds: 3}", "confirm: off").replace(
        "B: {choice: [8, 16]}", "B: 8"
    )
    space = space_of(tmp_path, "trials: 6, scheduler: pbt", population)
    trials = conducted(space).board.searched
    copies = [trial for trial in trials if trial.spec.continues]
    assert copies
    for trial in copies:
        assert "copied another one in training" in configuration_of(space, trial).yaml()
