from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tuner.results.random_trials import draw, load, trained
from tuner.conductor.confirmation import compare_retrained
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.results.pareto import pareto_front
from tuner.results.result import SearchResult
from tuner.space.objective import Objective
from tuner.space.space import SearchSpace
from tuner.terminal.summary import print_summary

LOSSES = [4.0, 3.9, 3.8, 3.95, math.nan, 4.2, 3.85, 4.1]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load(tmp_path_factory.mktemp("space"))


def rows_of(space: SearchSpace, losses: Sequence[float] = LOSSES) -> list[Trial]:
    rng = random.Random(0)
    rows = [trained(space, i, draw(space, rng, {}), loss) for i, loss in enumerate(losses)]
    for row in rows:
        row.outcome = Outcome.parse(str(row.last.status)) if row.last else None
    return rows


def result_of(space: SearchSpace, rows: list[Trial] | None = None, **more: Any) -> SearchResult:
    rows = rows or rows_of(space)
    best = min(rows, key=lambda r: r.objective("val_loss"))
    given = {
        "name": "lm-1", "space": space, "metric": "val_loss", "trials": rows, "best": best,
        "run_ids": {}, "experiment_id": "1", "wall_seconds": 65.0, "training_share": 0.97,
    }  # fmt: skip
    return SearchResult(**(given | more))


def printed(result: SearchResult, width: int = 160, home: str | None = None, **options: Any) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        print_summary(console, result, home)
    return captured.get()


CONFIRMATION = compare_retrained(
    {6: [3.86, 3.87, 3.88], 2: [3.90, 3.89, 3.94], 1: [3.8, math.nan, 3.8]}
)


def test_summary_ranks_and_tells_gain_and_cost(space: SearchSpace) -> None:
    text = printed(result_of(space))
    lines = [line.split()[:3] for line in text.splitlines() if line[:5].strip().isdigit()]
    assert [line[0] for line in lines] == ["2", "6", "1", "3", "0", "7", "5", "4"]
    assert lines[-1][1:] == ["∞", "diverged"]
    assert "Best val_loss 4.2000 against 4.4000 of the defaults" in text  # 3.8 + 2/5, 4 + 2/5
    assert "4.5 % lower (perplexity 66.7 against 81.5)." in text
    assert "1 trial diverged." in text
    assert "advise" not in text
    assert "Stopped by" not in text
    assert "--resume" not in text


def test_summary_shows_the_confirmed_comparison(space: SearchSpace) -> None:
    rows = rows_of(space)
    again = [replace(rows[6], number=8, confirms=6)]
    text = printed(
        result_of(space, rows, best=rows[6], confirmation=CONFIRMATION, confirming=again)
    )
    heading = next(i for i, line in enumerate(text.splitlines()) if "3 fresh seeds" in line)
    cells = [line.split() for line in text.splitlines()[heading + 2 : heading + 5]]
    assert cells[0] == "6 3.8700 3.8452 … 3.8948 3.8600 3.8700 3.8800 4.2500".split()
    assert cells[2][-4:] == ["3.8000", "∞", "3.8000", "4.3000"]
    assert "Confirmed winner: trial 6, val_loss 3.8700 ± 0.0248 (3 seeds)" in text
    assert "it was selected with 4.2500." in text
    assert "It cannot be told apart from trial 2" in text
    assert "Trial 1 diverged in 1 of 3 retrainings, so it ranks behind." in text
    assert "Trial 2 led the search with 4.2000, but not when retrained." in text
    assert "Trial 6 has val_loss 4.2500 against 4.4000" in text
    assert f"the confirmation took another {rows[6].tokens:,} tokens." in text
    assert "retrain the confirmed winner" in text


def test_summary_spares_only_what_the_search_itself_left_out(space: SearchSpace) -> None:
    rows = rows_of(space, [4.0] * 4)
    rows[3].reports = rows[3].reports[:1]
    rows[2].reused = rows[2].reports
    again = replace(rows[0], number=4, confirms=0)
    result = result_of(space, rows, confirming=[again, again])
    budgets = [row.spec.budget_tokens for row in rows]
    full = budgets[0] + budgets[1] + budgets[3]
    spent = budgets[0] + budgets[1] + rows[3].reports[0].tokens
    text = printed(result)
    share = round(100 * (1 - spent / full))
    assert f"Trained {spent:,} tokens in 1:05; early stopping saved {share} % of " in text
    assert f" % of {full:,} tokens; the confirmation" in text


def test_summary_lists_advice_with_hanging_lines(space: SearchSpace) -> None:
    advice = ["word " * 30 + "end.", "Second."]
    lines = printed(result_of(space, advice=advice), width=80).splitlines()
    start = lines.index("What the trials advise")
    assert lines[start + 1].startswith("- word word")
    assert lines[start + 2].startswith("  word")
    assert "- Second." in [line.rstrip() for line in lines]
    end = lines.index("", start)
    assert max(map(len, lines[start:end])) <= 80


@pytest.mark.parametrize(
    ("reason", "words", "command"),
    [
        ({"halted": "interrupted"}, "Interrupted. 7 of 8 trials had ended.", "--resume lm-1  "),
        ({"halted": "max_seconds"}, "Stopped by --max-time: 1:30 are over.", "--resume lm-1  "),
        ({"limit": "max_tokens"}, "Stopped by --max-tokens: 5,000 tokens were trained.",
         "--resume lm-1 --max-tokens N"),
        ({"limit": "patience"}, "Stopped by --patience: 9 trials ended without a better one.",
         "--resume lm-1 --patience N"),
    ],
)  # fmt: skip
def test_summary_says_what_ended_the_search_and_how_to_go_on(
    space: SearchSpace, reason: Mapping[str, str], words: str, command: str
) -> None:
    limits = space.search.model_copy(
        update={"max_tokens": 5000, "max_seconds": 90.0, "patience": 9}
    )
    rows = rows_of(space)
    rows[7].outcome = None
    space = SearchSpace(
        **{n: getattr(space, n) for n in SearchSpace.model_fields} | {"search": limits}
    )
    text = printed(result_of(space, rows, **reason))
    assert words in text
    assert f"tuner search {command}" in text
    assert ("early stopping" in text) == ("limit" in reason)


def test_summary_names_what_was_recorded_and_what_failed(space: SearchSpace) -> None:
    rows = rows_of(space)
    rows[3].reused, rows[3].outcome = rows[3].reports, Outcome.same_as(1)
    rows[6].reused = rows[6].reports
    rows[5].outcome = rows[7].outcome = Outcome.failed("the worker died three times")
    rows[1].outcome = Outcome.failed("out of memory")
    text = printed(result_of(space, rows))
    assert "2 trials were reused from the record, not trained: 3 (same as trial 1), 6." in text
    assert "2 trials (5, 7) failed: the worker died three times." in text
    assert "Trial 1 failed: out of memory." in text
    assert "finished, recorded" in text


def test_summary_of_several_objectives_is_their_front(space: SearchSpace) -> None:
    rows = rows_of(space, [4.0, 3.9, 3.8, 3.7])
    for row, noise in zip(rows, (1.0, 2.0, 3.0, 2.5), strict=True):
        row.reports[-1] = replace(row.reports[-1], train_loss=noise)
    fields = {name: getattr(space, name) for name in SearchSpace.model_fields}
    space = SearchSpace(**fields | {"further_objectives": (Objective(metric="train_loss"),)})
    text = printed(result_of(space, rows))
    lines = [line.split()[:3] for line in text.splitlines() if line[:5].strip().isdigit()]
    assert lines == [["3", "4.1", "2.5"], ["1", "4.3", "2"], ["0", "4.4", "1"]]
    assert "Best val_loss" not in text


def test_front_keeps_equal_trials_and_leaves_out_unfinished_ones(space: SearchSpace) -> None:
    rows = rows_of(space, [4.0, 4.0, 3.0, math.nan, 5.0])
    rows[2].reports = rows[2].reports[:2]
    front = pareto_front(rows, {"val_loss": "min", "train_loss": "min"})
    assert [row.number for row in front] == [0, 1]
    worst = pareto_front(rows, {"val_loss": "max"})
    assert [row.number for row in worst] == [4]
    assert pareto_front([], {"val_loss": "min"}) == []


@pytest.mark.parametrize("width", [80, 160])
def test_summary_tables_fit_their_width(space: SearchSpace, width: int) -> None:
    text = printed(result_of(space, confirmation=CONFIRMATION), width)
    tables = [line for line in text.splitlines() if "…" in line or line[:5].strip().isdigit()]
    assert max(map(len, tables)) <= width


def test_commands_are_never_broken_to_fit(space: SearchSpace) -> None:
    text = printed(result_of(space, limit="max_tokens"), 60, home="a long folder name")
    assert "tuner search --resume lm-1 --max-tokens N --home 'a long folder name'" in text


def test_next_commands_find_the_home_that_was_given(space: SearchSpace) -> None:
    commands = {
        home: [
            line.split("   ")[0].strip()
            for line in printed(result_of(space), home=home).splitlines()[-5:]
        ]
        for home in ("my runs", None)
    }
    assert commands == {
        "my runs": [
            "tuner ui --home 'my runs'",
            "tuner replay --home 'my runs'",
            "tuner show --search lm-1 --home 'my runs'",
            "tuner report --search lm-1 --home 'my runs'",
            "tuner export --search lm-1 -o exported --home 'my runs'",
        ],
        None: [
            "tuner ui",
            "tuner replay",
            "tuner show --search lm-1",
            "tuner report --search lm-1",
            "tuner export --search lm-1 -o exported",
        ],
    }


def test_summary_of_one_trial_that_did_not_finish(tmp_path: Path, space: SearchSpace) -> None:
    rows = rows_of(space, [4.0])
    rows[0].reports, rows[0].outcome = rows[0].reports[:1], Outcome.stopped(1)
    text = printed(result_of(space, rows, halted="interrupted"))
    assert "No trial beat the defaults of the symbol table" in text
