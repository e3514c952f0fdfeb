from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tuner.results.finished_search import ARMS, result_in
from tests.tuner.results.random_trials import draw, load, trained
from tuner.conductor.confirmation import compare_retrained
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.results.pareto import pareto_front
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_texts
from tuner.space.first_draws import first_draws
from tuner.space.objective import Objective
from tuner.space.space import SearchSpace
from tuner.terminal.summary import print_summary

LOSSES = [4.0, 3.9, 3.8, 3.95, math.nan, 4.2, 3.85, 4.1]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load(tmp_path_factory.mktemp("space"))


def trials_of(space: SearchSpace, losses: Sequence[float] = LOSSES) -> list[Trial]:
    rng = random.Random(0)
    draws = [*first_draws(space, ()), *(draw(space, rng, {}) for _ in losses)]
    trials = [trained(space, i, draws[i], loss) for i, loss in enumerate(losses)]
    for trial in trials:
        trial.outcome = Outcome.parse(str(trial.last.status)) if trial.last else None
    return trials


def result_of(space: SearchSpace, trials: list[Trial] | None = None, **more: Any) -> SearchResult:
    trials = trials or trials_of(space)
    best = min(trials, key=lambda r: r.objective("val_loss"))
    given = {
        "name": "lm-1", "space": space, "metric": "val_loss", "trials": trials, "best": best,
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


def test_summary_ranks_trials_and_reports_gain_and_cost(space: SearchSpace) -> None:
    text = printed(result_of(space))
    lines = [line.split()[:3] for line in text.splitlines() if line[:5].strip().isdigit()]
    assert [line[0] for line in lines] == ["2", "6", "1", "3", "0", "7", "5", "4"]
    assert lines[-1][1:] == ["∞", "diverged"]
    assert "Best val_loss 4.2000 against 4.4000 of the defaults" in text  # 3.8 + 2/5, 4 + 2/5
    assert "4.5 % lower (perplexity 66.7 against 81.5)." in text
    assert "1 trial diverged." in text
    assert "Recommendations" not in text
    assert "Stopped by" not in text
    assert "--resume" not in text


def test_summary_shows_the_confirmed_comparison(space: SearchSpace) -> None:
    trials = trials_of(space)
    confirming = [replace(trials[6], number=8, confirms=6)]
    text = printed(
        result_of(space, trials, best=trials[6], confirmation=CONFIRMATION, confirming=confirming)
    )
    heading = next(i for i, line in enumerate(text.splitlines()) if "3 fresh seeds" in line)
    cells = [line.split() for line in text.splitlines()[heading + 2 : heading + 5]]
    assert cells[0] == "6 3.8700 3.8392 … 3.9008 3.8600 3.8700 3.8800 4.2500".split()
    assert cells[2][-4:] == ["3.8000", "∞", "3.8000", "4.3000"]
    assert "Confirmed winner: trial 6, val_loss 3.8700 ± 0.0308 (3 seeds)" in text
    assert "it was selected with 4.2500." in text
    assert "It cannot be told apart from trial 2" in text
    assert "Trial 1 diverged in 1 of 3 retrainings, so it ranks behind." in text
    assert "Trial 2 led the search with 4.2000, but not when retrained." in text
    assert "Trial 6 has val_loss 4.2500 against 4.4000" in text
    assert f"the confirmation took another {trials[6].tokens:,} tokens." in text
    assert "retrain the confirmed winner" in text


def test_summary_compares_arms(tmp_path: Path) -> None:
    result = result_in(tmp_path, "trials: 12", ARMS)
    text = printed(result)
    assert result.verdict is not None
    heading = text.splitlines().index("arms of the comparison")
    cells = [line.split() for line in text.splitlines()[heading + 2 : heading + 4]]
    assert [row[1] for row in cells] == ["6", "6"]
    assert cells[0][-2:] == ["the", "best"]
    lines = [line.plain for line in summary_texts(result)]
    first = next(i for i, line in enumerate(lines) if line.startswith("Compared by optimizer: 2"))
    assert lines[first].endswith("each tuned alone with 6 trials and judged by fresh seeds only.")
    assert " over 5 seeds" in lines[first + 1]
    assert not any("from trial" in line for line in lines), "no second comparison"
    few = [line for line in result.advice if "trials of an arm are few" in line]
    assert [line.partition(":")[0] for line in few] == [
        "6 trials of an arm are few for 6 searched parameters"
    ]
    assert few[0].endswith("or use --trials 36.")
    assert not any("--resume" in line for line in result.advice), "the arms would share unequally"


@pytest.mark.slow
def test_summary_savings_exclude_reused_infeasible_and_confirming_trials(
    space: SearchSpace,
) -> None:
    trials = trials_of(space, [4.0] * 5)
    trials[4].reports, trials[4].outcome = [], Outcome.infeasible("it needs 90 GB")
    trials[3].reports = trials[3].reports[:1]
    trials[2].reused = trials[2].reports
    retrained = replace(trials[0], number=4, confirms=0)
    result = result_of(space, trials, confirming=[retrained, retrained])
    budgets = [trial.spec.budget_tokens for trial in trials]
    full = budgets[0] + budgets[1] + budgets[3]
    spent = budgets[0] + budgets[1] + trials[3].reports[0].tokens
    text = printed(result)
    share = round(100 * (1 - spent / full))
    assert f"Trained {spent:,} tokens in 1:05; early stopping saved {share} % of " in text
    assert f" % of {full:,} tokens; the confirmation" in text


def test_summary_indents_recommendations(space: SearchSpace) -> None:
    advice = ["word " * 30 + "end.", "Second."]
    lines = printed(result_of(space, advice=advice), width=80).splitlines()
    start = lines.index("Recommendations")
    assert lines[start + 1].startswith("- word word")
    assert lines[start + 2].startswith("  word")
    assert "- Second." in [line.rstrip() for line in lines]
    end = lines.index("", start)
    assert max(map(len, lines[start:end])) <= 80


@pytest.mark.parametrize(
    ("reason", "text", "command"),
    [
        ({"halted": "interrupted"}, "Interrupted. 7 of 8 trials had ended.", "--resume lm-1  "),
        ({"halted": "max_seconds"}, "Stopped by --max-time: 1:30 are over.", "--resume lm-1  "),
        ({"limit": "max_tokens"}, "Stopped by --max-tokens: 5,000 tokens were trained.",
         "--resume lm-1 --max-tokens N"),
        ({"limit": "patience"}, "Stopped by --patience: 9 trials ended without a better one.",
         "--resume lm-1 --patience N"),
        ({"limit": "stop_when_left_below"},
         "Stopped by search.stop_when_left_below: less than 0.2 % was left to gain.",
         "--resume lm-1 --set search.stop_when_left_below=null"),
    ],
)  # fmt: skip
def test_summary_names_limit_and_command_to_resume(
    space: SearchSpace, reason: Mapping[str, str], text: str, command: str
) -> None:
    limits = space.search.model_copy(
        update={
            "max_tokens": 5000, "max_seconds": 90.0, "patience": 9, "stop_when_left_below": 0.002
        }
    )  # fmt: skip
    trials = trials_of(space)
    trials[7].outcome = None
    space = SearchSpace(
        **{n: getattr(space, n) for n in SearchSpace.model_fields} | {"search": limits}
    )
    summary = printed(result_of(space, trials, **reason))
    assert text in summary
    assert f"tuner search {command}" in summary
    assert ("early stopping" in summary) == ("limit" in reason)


def test_summary_says_what_is_left_and_the_command_for_more(space: SearchSpace) -> None:
    losses = [4.5, *(3.8 + 0.02 * i for i in range(20))]
    result = result_of(space, trials_of(space, losses))
    left = result.left
    assert left is not None
    assert (left.more, left.trials, left.best) == (20, 20, 4.2)
    sentence = (
        f"20 more trials would end with a best val_loss of {left.low:.4f} to 4.2000 (90 % "
        f"interval, by 20 finished trials): at most {100 * left.share:.2g} % is left to gain; "
        f"tuner search --resume lm-1 --trials {space.search.trials + 20}."
    )
    assert sentence in printed(result, 1000)
    noisy = compare_retrained({1: [3.0, 4.0], 2: [3.5, 4.5]})
    text = printed(result_of(space, result.trials, confirmation=noisy), 1000)
    assert "is left to gain. Seeds differ by more, 0.7071: more of the same will not help." in text
    assert "--resume" not in text
    few = printed(result_of(space, result.trials[:5]), 1000)
    assert "What more trials could find is not known: that needs 8 trials of the sampler" in few
    assert "What more trials" not in printed(result_of(space, result.trials[:1]))


def test_summary_names_reused_and_failed_trials(space: SearchSpace) -> None:
    trials = trials_of(space)
    trials[3].reused, trials[3].outcome = trials[3].reports, Outcome.same_as(1)
    trials[6].reused = trials[6].reports
    trials[5].outcome = trials[7].outcome = Outcome.failed("the worker died three times")
    trials[1].outcome = Outcome.failed("out of memory")
    text = printed(result_of(space, trials))
    assert "2 trials were reused from the record, not trained: 3 (same as trial 1), 6." in text
    assert "2 trials (5, 7) failed: the worker died three times." in text
    assert "Trial 1 failed: out of memory." in text
    assert "finished, reused" in text


def test_summary_of_several_objectives_is_pareto_front(space: SearchSpace) -> None:
    trials = trials_of(space, [4.0, 3.9, 3.8, 3.7])
    for trial, noise in zip(trials, (1.0, 2.0, 3.0, 2.5), strict=True):
        trial.reports[-1] = replace(trial.reports[-1], train_loss=noise)
    fields = {name: getattr(space, name) for name in SearchSpace.model_fields}
    space = SearchSpace(**fields | {"further_objectives": (Objective(metric="train_loss"),)})
    text = printed(result_of(space, trials))
    lines = [line.split()[:3] for line in text.splitlines() if line[:5].strip().isdigit()]
    assert lines == [["3", "4.1", "2.5"], ["1", "4.3", "2"], ["0", "4.4", "1"]]
    assert "Best val_loss" not in text


def test_front_keeps_equal_trials_and_excludes_unfinished_ones(space: SearchSpace) -> None:
    trials = trials_of(space, [4.0, 4.0, 3.0, math.nan, 5.0])
    trials[2].reports = trials[2].reports[:2]
    front = pareto_front(trials, [Objective(), Objective(metric="train_loss")])
    assert [trial.number for trial in front] == [0, 1]
    worst = pareto_front(trials, [Objective.model_construct(metric="val_loss", mode="max")])
    assert [trial.number for trial in worst] == [4]
    assert pareto_front([], [Objective()]) == []


@pytest.mark.parametrize("width", [80, 160])
def test_summary_tables_fit_their_width(space: SearchSpace, width: int) -> None:
    text = printed(result_of(space, confirmation=CONFIRMATION), width)
    tables = [line for line in text.splitlines() if "…" in line or line[:5].strip().isdigit()]
    assert max(map(len, tables)) <= width


def test_summary_commands_never_wrap(space: SearchSpace) -> None:
    text = printed(result_of(space, limit="max_tokens"), 60, home="a long folder name")
    assert "tuner search --resume lm-1 --max-tokens N --home 'a long folder name'" in text


def test_summary_of_a_record_that_lacks_data_begins_with_sync(space: SearchSpace) -> None:
    """The server has died: the other commands would show less than was trained."""
    lines = printed(result_of(space, problem="no answer"), home="h").splitlines()
    commands = [line.strip() for line in lines if line.startswith("  tuner ")]
    assert commands[0].startswith("tuner sync lm-1 --home h  ")
    assert len(commands) == 6


def test_summary_commands_repeat_home(space: SearchSpace) -> None:
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


def test_summary_of_one_unfinished_trial(tmp_path: Path, space: SearchSpace) -> None:
    trials = trials_of(space, [4.0])
    trials[0].reports, trials[0].outcome = trials[0].reports[:1], Outcome.stopped(1)
    text = printed(result_of(space, trials, halted="interrupted"))
    value = trials[0].objective("val_loss")
    expected = f"The lowest val_loss is {value:.4f}, of trial 0 at report 1 of 5."
    assert f"No trial was trained to the end. {expected}" in text
