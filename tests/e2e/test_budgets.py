"""A search with several budgets: killed in a cool-down, resumed, and proved by retraining."""

from __future__ import annotations

import re

import pytest

from model.spec.cool_down import last_shared_report
from tests.e2e.conftest import SPACE, make_workplace
from tuner.home.home import Home
from tuner.trained.load_search import load_search

pytestmark = pytest.mark.slow

_BUDGETS = (2_048, 4_096, 8_192)
_SPACE = (
    SPACE.replace("T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}", "T_warmup: 4")
    .replace("hyperparameters:", "hyperparameters:\n  schedule: wsd\n  β_ema: 0.95")
    .replace("tokens: 12000, reports: 9", f"tokens: {[*_BUDGETS]}, reports: 8")
    .replace("trials: 6", "trials: 3, scheduler: none, keep: 1")
    .replace("confirm: {top: 2, seeds: 2}", "confirm: off")
)
_SEARCH = ("--name", "it", "--workers", "1", "--set", "engine.slots=2", "--json")


def test_budgets_of_a_killed_search_are_trials_from_update_0(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = make_workplace(tmp_path_factory.mktemp("budgets"))
    (place.folder / "small.yaml").write_text(_SPACE, encoding="utf-8")
    search = ("search", "--space", "small.yaml", *_SEARCH)
    with place.start(*search, on_ray=False) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r"report [23]/[34]\b", line):  # of a branch: 8 are the longest's
                break
        process.kill()
    run = place.tuner(*search)
    assert run.status == 0, run.err

    result = load_search("it", home=Home.of(place.home))
    assert [len(trials) for trials in (result.trials, result.branches)] == [3, 6]
    assert all(trial.has_finished for trial in (*result.trials, *result.branches))
    for branch in result.branches:
        begin = last_shared_report(branch.spec)
        # every budget cools down over a fifth of it
        assert 0 < begin <= 0.81 * branch.spec.hyperparameters.total_steps
        assert [r.step for r in branch.reports] == list(branch.spec.report_steps)
        assert branch.tokens_trained == branch.spec.budget_tokens - begin * (
            branch.spec.tokens_per_step
        )
    best = result.best_by_budget
    assert list(best) == list(_BUDGETS)
    assert run.json["trials"] == 3
    assert run.json["budgets"] == [
        {"tokens": tokens, "trial": trial.number, "val_loss": trial.objective("val_loss")}
        for tokens, trial in best.items()
    ]
    assert run.json["tokens_spent"] == result.tokens_spent
    values = [f"{trial.objective('val_loss'):.4f} after {n:,} tokens" for n, trial in best.items()]

    shown = place.tuner("show", "--search", "it")
    assert all(value in shown.out for value in values)
    assert len(re.findall(r"finished after 4,096 tokens, cooled down from \d", shown.out)) == 3
    report = place.tuner("report", "--search", "it", "-o", str(place.folder / "it.html"))
    assert report.status == 0, report.err
    page = (place.folder / "it.html").read_text(encoding="utf-8")
    assert all(value in page for value in values)
    assert page.count("cooled down from trial") == 6

    # the law: each of them is the trial of its budget, trained from update 0
    for trial in (best[4_096], result.branches[-1]):
        replayed = place.tuner("replay", f"it/{trial.number}", "--json")
        assert replayed.json["verdict"] == "bit-exact", replayed.out
    # and the best have their weights, so that an export trains nothing
    folder = str(place.folder / "exported")
    exported = place.tuner("export", f"it/{best[2_048].number}", "-o", folder, "--format", "torch")
    assert exported.status == 0, exported.err
    assert "report" not in exported.err
