"""`tuner show` and `show --by`, on trials made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tuner.commands.show import print_groups, print_search
from tuner.errors import TunerError
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord

SEARCH = SearchRecord("s" * 32, "1", "lm-1", "finished", 0.0, None, {}, {})


def trial(number: int, status: str, loss: float | None, **parameters: str) -> TrialRecord:
    metrics = {} if loss is None else {"val_loss": loss}
    return TrialRecord(f"{number:032d}", number, "lm-1", status, parameters, metrics, {}, "")


def record_of(*trials: TrialRecord) -> Record:
    record: Any = SimpleNamespace(trials=lambda _: list(trials))
    return record


def compare(spelling: str, *trials: TrialRecord) -> tuple[dict[str, Any], str]:
    """What --json prints, and what is shown."""
    console = Console(width=200)
    with console.capture() as captured:
        result = print_groups(console, record_of(*trials), SEARCH, spelling)
    return result, captured.get()


def by_value(result: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {v["value"]: v[key] for v in result["values"]}


def test_comparison_takes_losses_of_one_budget() -> None:
    """A trial stopped at a ninth has an early loss, which says nothing beside a final one."""
    result, text = compare(
        "B",
        trial(0, "finished", 5.0, batch_size="16"),
        trial(1, "finished", 4.0, batch_size="8"),
        trial(2, "stopped at report 1", 7.0, batch_size="8"),
        trial(3, "stopped at report 1", 6.0, batch_size="16"),
        trial(4, "finished", 4.5, batch_size="16"),
        trial(5, "stopped at report 1", 3.0, batch_size="32"),
    )
    assert by_value(result, "median") == {"8": 4.0, "16": 4.5, "32": None}
    assert by_value(result, "best_trial") == {"8": 1, "16": 4, "32": None}
    assert by_value(result, "trials") == {"8": 2, "16": 2, "32": 1}
    assert "Best and median are of finished trials" in text
    assert "Trial 0 (the defaults) is excluded" in text


def test_comparison_counts_divergence_where_none_was_stopped() -> None:
    result, text = compare(
        "optimizer",
        trial(1, "finished", 4.0, optimizer="sgd"),
        trial(2, "diverged", 3.0, optimizer="sgd"),
        trial(3, "diverged", math.nan, optimizer="lars"),
    )
    assert by_value(result, "best") == {"sgd": 4.0, "lars": None}
    assert by_value(result, "median") == {"sgd": None, "lars": None}
    assert "∞" in text
    assert "finished trials" not in text
    assert "Trial 0" not in text


def test_comparison_keeps_the_defaults_where_they_are_the_only_trial() -> None:
    """A point of a grid that runs once: the first trial takes its turn."""
    result, text = compare(
        "B", trial(0, "finished", 5.0, batch_size="16"), trial(1, "finished", 4.0, batch_size="8")
    )
    assert by_value(result, "best") == {"8": 4.0, "16": 5.0}
    assert "Trial 0" not in text


def test_comparison_passes_over_a_trial_without_parameters() -> None:
    made_a_moment_ago = trial(2, "running", None)
    trials = trial(1, "finished", 4.0, max_learning_rate="0.012345678"), made_a_moment_ago
    result, text = compare("α_max", *trials)
    assert by_value(result, "trials") == {"0.012345678": 1}
    assert "0.0123 " in text


@pytest.mark.parametrize(
    ("spelling", "known"),
    [("α_mx", "α_max"), ("batchsize", "batch_size"), ("n_head", "n_heads"), ("lr_mx", "lr_max")],
)
def test_comparison_suggests_every_spelling(spelling: str, known: str) -> None:
    with pytest.raises(TunerError, match=f"unknown parameter {spelling}; did you mean {known}"):
        compare(spelling, trial(1, "finished", 4.0, batch_size="8"))


def test_comparison_of_nothing_says_so() -> None:
    with pytest.raises(TunerError, match="no trial of lm-1 has started; try again"):
        compare("B", trial(0, "running", None))
    with pytest.raises(TunerError, match="unknown parameter zzzzz; 'tuner symbols' lists all"):
        compare("zzzzz", trial(0, "finished", 4.0, batch_size="8"))


def test_search_ranks_diverged_trials_last() -> None:
    """Comparing with NaN is always false, so that it stayed wherever it stood."""
    console = Console(width=200)
    with console.capture() as captured:
        shown = print_search(
            console,
            record_of(
                trial(1, "diverged", math.nan),
                trial(2, "stopped at report 2", 6.0),
                trial(3, "diverged", math.nan),
                trial(4, "stopped at report 1", 5.0),
                trial(5, "finished", 7.0),
                trial(6, "running", None),
            ),
            SEARCH,
        )
    assert [t["trial"] for t in shown["trials"]] == [5, 4, 2, 1, 3, 6]
    assert "∞" in captured.get()
    assert "nan" not in captured.get()
