from __future__ import annotations

from pathlib import Path

import pytest

from tuner.commands.validate import search_words
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1], prior: {centre: 2e-3}}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  λ: {log: [1e-3, 1]}
budget: {tokens: 9000, reports: 9}
"""
CASES = {
    "trials: 9": [
        "9 trials of at most 9,000 tokens and 9 reports: 2 given points, defaults first, then by "
        "sampler tpe, which models which configurations did well, and which did not (TPE); drawn "
        "to the priors of α_max at first.",
        "Scheduler asha: one in 3 goes on from each rung (after 1 and 3 of 9 reports), the others "
        "are parked until they are among the best.",
        "Sought: the smallest val_loss; then the best 3 are retrained with 3 fresh seeds each, 9 "
        "trials to the end.",
        "All in all about 108,667 training tokens (162,000 if none were stopped).",
    ],
    "trials: 4, scheduler: pbt, sampler: cmaes": [
        "Scheduler pbt: every 2 reports the worst copy the best, and change α_max, γ and λ.",
        "Sampler cmaes knows numbers that every trial has; optimizer and γ: at random.",
        "A trial keeps optimizer, which cannot change in mid-training.",
    ],
    "asha: stop, max_tokens: 5000, max_seconds: 90m, patience: 8": [
        "(after 1 and 3 of 9 reports), the others are stopped.",
        "It ends after 5,000 training tokens or 1:30:00 of time or 8 trials without a better one, "
        "if that comes first.",
        "All in all about 86,000 training tokens (297,000 if none were stopped).",
    ],
    "scheduler: none, sampler: gp}\nconfirm: off\nobjective: {metric: train_loss": [
        "Scheduler none: each trial trains to its end.",
        "Sampler gp knows what every trial has; γ: at random.",
        "Sought: the smallest train_loss; the winner is not retrained (confirm: off).",
        "All in all about 216,000 training tokens.",
    ],
    "scheduler: none, sampler: nsga2}\nobjective: [{metric: perplexity}, {metric: parameters}]\n"
    "engine: {slots: 2": [
        "by sampler nsga2, which breeds the best (NSGA-II); drawn to",
        "Sought: the smallest perplexity and the smallest parameters; the result is every trial "
        "that none beats in all.",
    ],
}


@pytest.mark.parametrize("search", CASES)
def test_validate_describes_the_search(tmp_path: Path, search: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE + f"search: {{{search}}}", encoding="utf-8")
    words = search_words(load_space(file), FACTS)
    for sentence in CASES[search]:
        assert any(sentence in line for line in words), words


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (
            "{}",
            "Trains on a GPU if there is one, otherwise on the cores, in bfloat16 if a GPU compu",
        ),
        (
            "{slots: auto, device: cpu}",
            "Trains on the cores, in float32; weights and optimizer are",
        ),
        ("{device: cuda, dtype: tf32}", "Trains on a GPU, in tf32; weights and optimizer are floa"),
        ("{device: mps}", "Trains on the GPU of a Mac, in float32; weights"),
    ],
)
def test_words_say_where_and_in_which_dtype(tmp_path: Path, engine: str, sentence: str) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text(SPACE + f"engine: {engine}", encoding="utf-8")
    words = search_words(load_space(file), FACTS)
    assert any(line.startswith(sentence) for line in words), words
