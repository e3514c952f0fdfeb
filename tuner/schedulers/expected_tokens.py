"""Training tokens that a search is expected to take."""

from __future__ import annotations

from tuner.samplers.arms import arms_of, num_confirmations
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.cool_down import branch_tokens
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace


def expected_tokens(space: SearchSpace, corpus: DataFacts) -> tuple[int, int]:
    """Return the training tokens of a search without early stopping, and an estimate with it.

    Both include the shorter budgets and the retraining of the best trials (`confirm:`). The first
    trial is never stopped, unless `search.defaults` says otherwise; one trial at least trains to
    the end in any case.
    """
    trial, trials = space.mean_tokens(corpus), space.search.trials
    arms = len(arms_of(space)) or 1  # each has its own first trial, and is stopped alone
    lengths = space.report_tokens(corpus), space.budget_tokens(corpus)
    expected_share = SCHEDULERS[space.search.scheduler].expected_share
    if space.search.defaults == "full":
        search = arms * trial * (1 + expected_share(space, trials // arms - 1, *lengths))
    else:
        search = arms * trial * max(1, expected_share(space, trials // arms, *lengths))
    branches = trials * branch_tokens(space, corpus)
    search += branches
    if space.search.max_tokens is not None:
        search = min(search, space.search.max_tokens)
    confirmation = trial * num_confirmations(space)
    return round(trial * trials + branches + confirmation), round(search + confirmation)
