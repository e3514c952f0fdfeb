"""`tuner show` and `show --by`, on trials made by hand."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import MakeSpec
from tests.tuner.results.finished_search import ARMS, result_in
from tuner.cli import main
from tuner.commands import show
from tuner.commands.output import as_json
from tuner.commands.show import print_groups, print_search, print_searches, print_trial
from tuner.conductor.verdict import verdict_sentences
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.journal.journal import Journal
from tuner.summaries.groups import ParameterGroups
from tuner.summaries.search_table import SearchTable
from tuner.summaries.searches import RecordedSearches, current
from tuner.summaries.trial import TrialSummary
from tuner.terminal.console import PlainConsole
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.tracking.tags import Tag

SEARCH = SearchRecord("s" * 32, "1", "lm-1", "finished", 0.0, None, {}, {})


def trial(number: int, status: str, loss: float | None, **parameters: str) -> TrialRecord:
    metrics = {} if loss is None else {"val_loss": loss}
    return TrialRecord(f"{number:032d}", number, "lm-1", status, parameters, metrics, {})


def compare(
    spelling: str, *trials: TrialRecord, search: SearchRecord = SEARCH
) -> tuple[dict[str, Any], str]:
    """Return the object of --json and the printed text."""
    groups, console = ParameterGroups.of(trials, search, spelling), PlainConsole(width=200)
    with console.capture() as captured:
        print_groups(console, groups, search.status)
    return as_json(groups), captured.get()


def test_search_of_a_killed_driver_is_interrupted(tmp_path: Path) -> None:
    """The store says `running` until a sync; the lock of the journal says who is right."""
    home, running = Home.of(tmp_path), replace(SEARCH, status="running")
    assert current(running, home) == running  # another home may run it
    journal = Journal.open(home.search("lm-1"))
    record: Any = SimpleNamespace(searches=lambda: [running])
    console = PlainConsole(width=200)
    assert RecordedSearches.of(record, home).searches[0].status == "running"
    journal.close()
    listed = RecordedSearches.of(record, home)
    with console.capture() as captured:
        print_searches(console, listed, "")
    assert listed.as_json["searches"][0]["status"] == "interrupted"
    assert "'tuner search --resume lm-1' goes on" in captured.get()
    assert current(SEARCH, home) == SEARCH


def by_value(result: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {v["value"]: v[key] for v in result["values"]}


def test_groups_compare_losses_of_one_budget() -> None:
    """The early loss of a stopped trial is not compared with final losses."""
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


def test_groups_count_divergence_if_no_trial_was_stopped() -> None:
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


def test_groups_keep_defaults_if_they_are_the_only_trial() -> None:
    """In a grid trial 0 takes the place of a point, which is trained once."""
    result, text = compare(
        "B", trial(0, "finished", 5.0, batch_size="16"), trial(1, "finished", 4.0, batch_size="8")
    )
    assert by_value(result, "best") == {"8": 4.0, "16": 5.0}
    assert "Trial 0" not in text


def test_groups_count_trial_0_if_it_was_drawn() -> None:
    trials = [trial(n, "finished", 5.0 - n, batch_size="16") for n in range(3)]
    assert by_value(compare("B", *trials)[0], "trials") == {"16": 2}
    off = replace(SEARCH, tags={Tag.DEFAULTS: "off"})
    result, text = compare("B", *trials, search=off)
    assert by_value(result, "trials") == {"16": 3}
    assert "Trial 0" not in text


def test_groups_ignore_trials_without_parameters() -> None:
    just_created = trial(2, "running", None)
    trials = trial(1, "finished", 4.0, max_learning_rate="0.012345678"), just_created
    result, text = compare("α_max", *trials)
    assert by_value(result, "trials") == {"0.012345678": 1}
    assert "0.0123 " in text


@pytest.mark.parametrize(
    ("spelling", "known"),
    [("α_mx", "α_max"), ("batchsize", "batch_size"), ("n_head", "n_heads"), ("lr_mx", "lr_max")],
)
def test_groups_suggest_every_spelling(spelling: str, known: str) -> None:
    with pytest.raises(TunerError, match=f"unknown parameter {spelling}; did you mean {known}"):
        compare(spelling, trial(1, "finished", 4.0, batch_size="8"))


def test_groups_without_trials_are_an_error() -> None:
    with pytest.raises(TunerError, match="no trial of lm-1 has started; try again"):
        compare("B", trial(0, "running", None))
    with pytest.raises(TunerError, match="unknown parameter zzzzz; 'tuner symbols' lists all"):
        compare("zzzzz", trial(0, "finished", 4.0, batch_size="8"))


def test_search_ranks_diverged_trials_last() -> None:
    """Comparisons with NaN are false, so that sorting left diverged trials in place."""
    console = PlainConsole(width=200)
    table = SearchTable.of(
        SEARCH,
        [
            trial(1, "diverged", math.nan),
            trial(2, "stopped at report 2", 6.0),
            trial(3, "diverged", math.nan),
            trial(4, "stopped at report 1", 5.0),
            trial(5, "finished", 7.0),
            trial(6, "running", None),
        ],
    )
    with console.capture() as captured:
        print_search(console, table)
    assert [t["trial"] for t in table.as_json["trials"]] == [5, 2, 4, 1, 3, 6]  # by progress
    assert "∞" in captured.get()
    assert "nan" not in captured.get()


def test_show_has_the_verdict_of_arms(tmp_path: Path) -> None:
    verdict = result_in(tmp_path, "trials: 12", ARMS).verdict
    assert verdict is not None
    table = replace(SearchTable.of(SEARCH, [trial(1, "finished", 4.0)]), verdict=verdict)
    console = PlainConsole(width=200)
    with console.capture() as captured:
        print_search(console, table)
    assert "\n".join(verdict_sentences(verdict, "val_loss")) in captured.get()
    assert table.as_json["comparison"] == verdict.as_json


def heads(width: int, trials: list[TrialRecord], names: list[str] | None) -> list[str]:
    lines = printed(width, trials, names)
    return next(line for line in lines if line.startswith("trial")).split()


def printed(width: int, trials: list[TrialRecord], names: list[str] | None = None) -> list[str]:
    console = PlainConsole(width=width)
    with console.capture() as captured:
        print_search(console, SearchTable.of(SEARCH, trials, names))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_search_hides_searched_columns_last() -> None:
    """At 60 columns, show once printed T_warmup, which followed B, and hid both searched rows."""
    trials = [
        trial(n, "stopped at report 2", 5.0 + n, warmup_steps=str(round(25 / b)), batch_size=str(b),
              max_learning_rate=str(0.01 * (n + 1)), min_learning_rate=str(0.001 * (n + 1)),
              total_steps=str(500 // b), schedule="cosine")
        for n, b in enumerate((8, 16, 32))
    ]  # fmt: skip
    names = ["max_learning_rate", "batch_size"]
    wide = ["trial", "val_loss", "outcome", "α_max", "B", "run"]
    assert heads(200, trials, names) == wide
    assert sorted(heads(200, trials, None)) == sorted(wide)  # of a search without a journal
    assert heads(50, trials, names) == wide[:-1]
    assert heads(30, trials, names) == ["trial", "val_loss", "α_max", "B"]
    names.append("warmup_steps")  # hidden before the outcome, and shown again in its place
    assert heads(40, trials, names) == ["trial", "val_loss", "α_max", "B", "T_warmup"]


@pytest.mark.parametrize("width", [40, 60, 200])
def test_search_without_trials_keeps_its_run_id_whole(width: int) -> None:
    assert any(line.endswith(SEARCH.run_id) for line in printed(width, []))


@pytest.mark.parametrize("width", [20, 30, 40, 200])
def test_list_drops_columns_instead_of_letters(width: int) -> None:
    metrics = {"trials": 4.0, "best_val_loss": 3.9, "defaults_val_loss": 5.1, "tokens_spent": 2e6}
    search = SearchRecord("s" * 32, "1", "small-1", "interrupted", 0.0, None, metrics, {})
    record: Any = SimpleNamespace(searches=lambda: [search])
    console, listed = PlainConsole(width=width), RecordedSearches.of(record, Home(Path("/no"), ""))
    with console.capture() as captured:
        print_searches(console, listed, "")
    text = captured.get()
    assert "…" not in text
    assert "small-1" in text
    assert "3.9000" in text
    assert ("seconds" in text.splitlines()[0]) == (width == 200)
    assert listed.as_json["searches"][0]["trials"] == 4


def test_show_prints_csv(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [trial(0, "finished", 5.0, batch_size="8"), trial(1, "diverged", None, batch_size="9")]
    record: Any = SimpleNamespace(trials=lambda _: trials, search=lambda name: SEARCH)
    monkeypatch.setattr(show, "Record", lambda uri: record)
    monkeypatch.setattr(show, "recorded_home", lambda options: Home.of(tmp_path))
    assert main(["show", "--csv", "--home", str(tmp_path)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["trial"], row["status"], row["batch_size"]) for row in rows] == [
        ("0", "finished", "8"), ("1", "diverged", "9"),
    ]  # fmt: skip
    assert rows[1]["val_loss"] == ""
    assert main(["show", "--csv", "--json", "--home", str(tmp_path)]) == 2


def test_show_run_prints_searched_parameters_without_float_noise(make_spec: MakeSpec) -> None:
    """It once printed 50 parameters, and 0.0021000000000000003."""
    parameters = {
        "grad_clip": "1.0", "optimizer": "adamw", "momentum": "0.9", "schedule": "cosine",
        "max_learning_rate": "0.0021000000000000003",
    }  # fmt: skip
    summary = TrialSummary(
        trial(1, "finished", 4.0, **parameters),
        make_spec(),
        ("max_learning_rate", "momentum"),
        {12: {"val_loss": 4.0}},
        None,
    )
    printed = {}
    for everything in (False, True):
        console = PlainConsole(width=200)
        with console.capture() as captured:
            print_trial(console, summary, everything=everything)
        printed[everything] = captured.get()
        assert re.search(r"^α_max +0\.0021 *$", printed[everything], re.MULTILINE)
    assert "and 4 other parameters; --all shows them" in printed[False]
    for name in ("τ", "γ", "optimizer"):  # γ has no effect in adamw
        assert not re.search(rf"^{name} ", printed[False], re.MULTILINE)
        assert re.search(rf"^{name} ", printed[True], re.MULTILINE)
    assert "other parameters" not in printed[True]
