"""The trials of a search in the order of a table, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, cast

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from tuner.conductor.left import Left, estimate_left
from tuner.conductor.outcome import OutcomeKind
from tuner.conductor.verdict import ArmComparison, verdict_of
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.space.settings import Budget
from tuner.summaries.searches import current
from tuner.texts.formatting import number_of
from tuner.tracking.metrics import with_counts
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord, drawn
from tuner.tracking.tags import Tag
from tuner.trained.recorded_trials import journaled

# Derived from other parameters: in the table they would repeat them.
_DERIVED = ("cycle_steps", "d_ff", "epochs", "total_steps")


@dataclass(frozen=True)
class SearchTable:
    """The trials of a search with their searched hyperparameters.

    Finished trials come first, the best one on top, then the others, the furthest trained on top.
    Shorter budgets follow, from the longest. Trials of the confirmation come last, ordered by the
    trials that they confirm.

    Attributes:
        search: record of the search, with its present status.
        trials: trials in the order of the table.
        names: searched parameters.
        branches: numbers of the trials that cool down from another one.
        budgets: best finished trial of each of several budgets in tokens, the shortest first.
        proxy: sentence on the target, if the trials are proxies.
        left: what more trials could find; None if it cannot be told.
        verdict: comparison of the arms of `compare:`.
    """

    search: SearchRecord
    trials: tuple[TrialRecord, ...]
    names: tuple[str, ...]
    branches: frozenset[int]
    budgets: Mapping[int, TrialRecord]
    proxy: str | None = None
    left: Left | None = None
    verdict: ArmComparison | None = None

    @classmethod
    def read(cls, record: Record, home: Home, name: str | None = None) -> SearchTable:
        """Read a search; by default the newest one.

        Raises:
            RecordError: if there is no such search.
            StoreError: if the store cannot be read.
        """
        search = current(record.search(name), home)
        known = journaled(home, search)
        trials = trials_of(record, search, known)
        if known is None:
            return cls.of(search, trials)
        space = known.space
        proxy = space.proxy_text(known.facts.vocab_size) if space.proxy else None
        table = cls.of(search, trials, space.searched_names, space.budget, proxy)
        return replace(
            table,
            left=estimate_left(space, known.board.searched, known.begun.proposals.draws),
            verdict=verdict_of(known.board, space, known.confirmation),
        )

    @classmethod
    def of(
        cls,
        search: SearchRecord,
        trials: Sequence[TrialRecord],
        names: Sequence[str] | None = None,
        budget: Budget | None = None,
        proxy: str | None = None,
    ) -> SearchTable:
        """Order trials.

        Args:
            search: record of the search.
            trials: its trials by number.
            names: searched parameters; None for those in which the trials differ.
            budget: budgets of the trials, if they are known.
            proxy: sentence on the target.
        """
        searched = drawn(trials)
        confirming = [t for t in trials if t.confirms is not None]
        branches = [t for t in trials if t.confirms is None and t not in searched]
        metric = search.metric
        ranked = (
            *sorted(searched, key=lambda t: (*_progress(t), t.rank(metric))),
            *sorted(branches, key=lambda t: (*_progress(t), -t.budget_tokens, t.rank(metric))),
            *sorted(confirming, key=lambda t: (cast(int, t.confirms), t.number)),
        )
        names = varied(trials, searched) if names is None else names
        best = _best_of_budgets([*searched, *branches], metric, budget)
        numbers = frozenset(trial.number for trial in branches)
        return cls(search, ranked, tuple(names), numbers, best, proxy)

    @property
    def init_from(self) -> str | None:
        """Description of the trial or checkpoint that all trials started from."""
        return self.search.tags.get(Tag.INIT_FROM)

    @property
    def learned(self) -> str | None:
        """What was learned from earlier searches before the search began, as a sentence."""
        return self.search.tags.get(Tag.LEARNED)

    @property
    def journal(self) -> str | None:
        """Digest of the journal."""
        return self.search.tags.get(Tag.JOURNAL)

    def outcome(self, trial: TrialRecord) -> str:
        """Return how a trial ended, and its relation to another trial."""
        if trial.confirms is not None:
            return f"{trial.status}, confirms {trial.confirms}"
        if trial.parent is None:
            return trial.status
        if trial.number not in self.branches:
            return f"{trial.status}, continued trial {trial.parent}"
        tokens = f"{trial.budget_tokens:,}"
        return f"{trial.status} after {tokens} tokens, cooled down from {trial.parent}"

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner show --json`."""
        search, metric = self.search, self.search.metric
        return {
            "search": search.name,
            "journal": self.journal,
            "init_from": self.init_from,
            "learned_from": self.learned,
            "status": search.status,
            "best_run": search.best_run,
            "left": asdict(self.left) if self.left else None,
            "budgets": [
                {"tokens": n, "trial": t.number, "run": t.run_id, metric: t.loss(metric)}
                for n, t in self.budgets.items()
            ],
            "comparison": self.verdict.as_json if self.verdict else None,
            "trials": [
                {
                    "trial": t.number,
                    "run": t.run_id,
                    "status": t.status,
                    "parent": t.parent,
                    "confirms": t.confirms,
                    "metrics": finite(t.metrics),
                    "parameters": t.parameters,
                }
                for t in self.trials
            ],
        }


def trials_of(record: Record, search: SearchRecord, known: Search | None) -> list[TrialRecord]:
    """Return the trials of a search by number.

    Args:
        record: the store.
        search: the search.
        known: the search by the journal of the home. Without it, of a search that another home
            runs, or if the store lacks runs, trials are as MLflow has them.

    Raises:
        RecordError, StoreError: as for `Record.trials`.
    """
    if known is not None:
        runs = record.run_ids(search)
        if runs.keys() == known.trials.keys():
            return [
                TrialRecord.of(search.name, trial, runs[number])
                for number, trial in sorted(known.trials.items())
            ]
    return record.trials(search)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics for JSON, which has no NaN."""
    return {k: v for k, v in with_counts(metrics).items() if not math.isnan(v)}


def _progress(trial: TrialRecord) -> tuple[bool, int]:
    """Return a key that puts finished trials first, then the stopped ones trained furthest.

    Losses after other numbers of tokens are not compared.
    """
    outcome = trial.outcome
    if outcome is None:
        return True, 0
    reports = int(outcome.detail) if outcome.kind is OutcomeKind.STOPPED else 0
    return outcome.kind is not OutcomeKind.FINISHED, -reports


def _best_of_budgets(
    trials: Sequence[TrialRecord], metric: str, budget: Budget | None
) -> dict[int, TrialRecord]:
    """Return the best finished trial of each of several budgets, the shortest first."""
    best: dict[int, TrialRecord] = {}
    if budget is None or budget.tokens is None or not budget.shorter:
        return best
    for tokens, up_to in pairwise((*budget.shorter, budget.tokens, math.inf)):
        fit = [t for t in trials if t.status == "finished" and tokens <= t.budget_tokens < up_to]
        if fit:
            best[int(tokens)] = min(fit, key=lambda t: t.rank(metric))
    return best


# parameters --------------------------------------------------------------------------------------


def is_used(name: str, parameters: Mapping[str, str]) -> bool:
    """Return whether a hyperparameter has an effect, given the others; a size always has."""
    if name.startswith("prune_"):
        return number_of(parameters.get("target_sparsity", "0")) > 0
    used_when = SYMBOL_TABLE[name].used_when if name in SYMBOL_TABLE else {}
    return all(parameters.get(other) in values for other, values in used_when.items())


def varied(trials: Sequence[TrialRecord], searched: Sequence[TrialRecord]) -> list[str]:
    """Return the parameters that differ between trials, without those that follow others."""
    names = [n for t in trials[:1] for n in t.parameters]
    different = [n for n in names if len({t.parameters.get(n) for t in searched}) > 1]
    different = [n for n in different if n not in _DERIVED and not follows_other(n, searched)]
    return [n for n in different if any(is_used(n, t.parameters) for t in searched)]


def follows_other(name: str, trials: Sequence[TrialRecord]) -> bool:
    """Return whether every trial has the default of a parameter, a share of another one."""
    row = SYMBOL_TABLE.get(name)
    if row is None or not isinstance(row.default, FractionOf):
        return False
    share, other = row.default.share, row.default.name
    tolerance = 0.5 if row.kind is int else 1e-9  # whole numbers are rounded
    low = float(row.low or 0)
    return all(
        {name, other} <= t.parameters.keys()
        and math.isclose(
            number_of(t.parameters[name]),
            max(share * number_of(t.parameters[other]), low),
            rel_tol=1e-9,
            abs_tol=tolerance,
        )
        for t in trials
        if t.parameters  # a new run has none yet
    )
