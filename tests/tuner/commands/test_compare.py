"""`tuner compare`, on trials made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.engine.report import Status
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import RecordedSearch, report
from tuner.commands.compare import print_comparison
from tuner.home.home import Home
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
    make_spec: MakeSpec, tmp_path: Path, changed: dict[str, str], sentence: str | None
) -> None:
    specs = [make_spec(), make_spec(seed=1).model_copy(update=changed)]
    home = Home(tmp_path, "sqlite://")
    search = RecordedSearch(home, is_followed=False)
    for number, spec in enumerate(specs):
        finished = replace(report(12, 3.0, Status.FINISHED), tokens=2_000_000)
        search.trial(number, spec, finished, outcome="finished")
    search.finish()
    runs = {f"lm-1/{n}": TrialRecord(f"{n:032d}", n, "lm-1", "", {}, {}, {}) for n in range(2)}
    record: Any = SimpleNamespace(
        trial_or_best=lambda run, search: runs[run], search=lambda name: SEARCH
    )
    console, comparison = PlainConsole(width=200), TrialComparison.read(record, home, list(runs))
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
