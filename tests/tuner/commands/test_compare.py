"""`tuner compare`, on trials made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import MakeSpec
from tuner.commands.compare import print_comparison
from tuner.summaries.comparison import TrialComparison
from tuner.terminal.console import PlainConsole
from tuner.tracking.records import SearchRecord, TrialRecord

SEARCH = SearchRecord("s" * 32, "1", "lm-1", "finished", 0.0, None, {}, {})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, None),
        ({"data_fingerprint": "x"}, "The losses cannot be compared: data differ."),
        (
            {"data_fingerprint": "x", "tokenizer_fingerprint": "x"},
            "The losses cannot be compared: data and tokenizer differ.",
        ),
    ],
)
def test_comparison_says_which_losses_cannot_be_compared(
    make_spec: MakeSpec, changed: dict[str, str], sentence: str | None
) -> None:
    specs = {"lm-1/0": make_spec(), "lm-1/1": make_spec(seed=1).model_copy(update=changed)}
    trials = {
        name: TrialRecord(f"{n:032d}", n, "lm-1", "finished", {}, {"val_loss": 3.0}, {}, "")
        for n, name in enumerate(specs)
    }
    reports = {12: {"tokens": 2_000_000.0, "val_loss": 3.0, "perplexity": 2_000_000.5}}
    record: Any = SimpleNamespace(
        trial=trials.get,
        search=lambda name: SEARCH,
        spec=lambda trial: specs[f"lm-1/{trial.number}"],
        reports=lambda trial: reports,
    )
    console, comparison = PlainConsole(width=200), TrialComparison.read(record, list(specs))
    with console.capture() as captured:
        print_comparison(console, comparison)
    lines = captured.get().splitlines()
    assert [line for line in lines if "cannot be compared" in line] == (
        [sentence] if sentence else []
    )
    assert comparison.as_json["comparable"] is (sentence is None)
    (tokens,) = (
        line.split() for line in lines if line.startswith("tokens  ") and "lm-1" not in line
    )
    assert tokens == ["tokens", "2,000,000", "2,000,000"]
