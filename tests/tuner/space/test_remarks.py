"""Remarks on spaces that are valid, and of which something is probably not meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.space.data_facts import DataFacts
from tuner.space.estimate import estimated_facts
from tuner.space.remarks import remarks, without_copies
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
SIZES = "model: {context_length: 64}\n"
SEARCHED = "hyperparameters: {α_max: {log: [1e-4, 1e-2]}, B: {choice: [8, 16]}}\n"


def load(folder: Path, text: str) -> SearchSpace:
    (folder / "text.txt").write_text("a text\n<|endoftext|>" * 5000)  # 100 kB
    path = folder / "space.yaml"
    path.write_text(f"data: {{files: text.txt}}\n{SIZES}{text}", encoding="utf-8")
    return load_space(path)


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (SEARCHED + "budget: {tokens: 511}", "budget.tokens 511 is less than one update, which ta"),
        (SEARCHED + "budget: {tokens: 1e15}", "1e+15 is more than any language model was trained"),
        (
            SEARCHED.replace("{", "{schedule: wsd, ", 1)
            + "budget: {tokens: [10240, 102400]}\nsearch: {scheduler: none}",
            "T_warmup of the longest budget, 5 updates, is most of the constant phase of the short",
        ),
        (
            SEARCHED + "budget: {flops: 100M}",
            "budget.flops 1e+08 for a model of this space: tokens",
        ),
        (
            SEARCHED + "budget: {tokens: 10240, reports: 21}",
            "budget.reports 21 is more than the 20 updates of the longest trial",
        ),
        (
            SEARCHED + "budget: {tokens: 10240, validation_tokens: 10_000_000_000}",
            "budget.validation_tokens 10,000,000,000 is more than the validation text of about",
        ),
        (
            SEARCHED + "budget: {tokens: 10240}\ntokenizer: {vocab_size: 3000}",
            "tokenizer.vocab_size 3,000 is large for 100,000 bytes of text",
        ),
        (
            "hyperparameters: {B: 8, λ: {choice: [0.1]}}\nbudget: {tokens: 10240}",
            "nothing is searched, so all 24 trials would be the same, and a search trains one",
        ),
    ],
)
def test_remarks_name_what_is_hardly_meant(tmp_path: Path, text: str, remark: str) -> None:
    if "vocab_size" not in text:
        text += "\ntokenizer: {vocab_size: 300}"
    (found,) = remarks(load(tmp_path, text), FACTS)
    assert remark in found


@pytest.mark.parametrize(
    "budget",
    [
        "budget: {tokens: 512, reports: 1}\nsearch: {scheduler: none}",
        "budget: {tokens: 10240, reports: 20, validation_tokens: 10000}",
        "budget: {reports: 2}\nsearch: {trials: 1}",
    ],
)
def test_remarks_are_rare(tmp_path: Path, budget: str) -> None:
    steps = "hyperparameters: {T_total: 2}\n" if "trials: 1" in budget else SEARCHED
    space = load(tmp_path, f"{steps}{budget}\ntokenizer: {{vocab_size: 300}}")
    assert remarks(space, FACTS) == []


@pytest.mark.slow
def test_shipped_spaces_need_no_remarks() -> None:
    for path in sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml")):
        if path.name == "shakespeare.yaml":  # its text is not shipped
            continue
        space = load_space(path)
        assert remarks(space, estimated_facts(space)) == [], path


def test_space_that_searches_nothing_has_one_trial(tmp_path: Path) -> None:
    space = load(tmp_path, "hyperparameters: {B: 8}\nbudget: {tokens: 10240}")
    assert without_copies(space).search.trials == 1
    searching = load(tmp_path, SEARCHED + "budget: {tokens: 10240}")
    assert without_copies(searching) is searching
