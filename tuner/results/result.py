"""Result of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Self

from tuner.conductor.confirmation import Confirmation
from tuner.conductor.left import Left, estimate_left
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import ArmComparison, verdict_of
from tuner.journal.fold import Search
from tuner.results.pareto import pareto_front
from tuner.space.parameter import symbol
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace
from tuner.texts.formatting import counted

if TYPE_CHECKING:  # they take seconds to import
    import optuna
    import pandas

_NOTEBOOK_TRIALS = 8  # shown in the HTML of a notebook


@dataclass(frozen=True, repr=False)
class SearchResult:
    """Result of a search; of a running search, the result so far.

    Attributes:
        name: name of the search.
        space: the searched space, with the changes of a resumed search.
        metric: the objective.
        trials: drawn trials of the search by number: those of the longest budget.
        best: the best trial; the confirmed winner if there is one.
        run_ids: trial number → MLflow run.
        experiment_id: of MLflow.
        wall_seconds: time of all sessions, each from its start to its end or last report.
        training_share: share of the workers' time that the last session spent inside training,
            from 0 to 1.
        run_id: MLflow run of the search, the parent of the trials' runs.
        status: finished, interrupted, failed, or running.
        started: time of the start, in milliseconds since the epoch.
        space_text: text of the space file.
        environment: device and versions.
        branches: trials of the shorter budgets, cooled down from the states of the trials.
        confirming: trials that retrained others with fresh seeds.
        confirmation: conclusion of these retrainings.
        verdict: comparison of the arms of `compare:`, by these retrainings.
        limit: name of the limit that ended the search, if one did.
        halted: reason why the search ended early; it can be resumed.
        advice: recommendations for the next search.
        problem: why the tracking store lacks data, which `tuner sync` sends; None if it has all.
        lost: why the journal lacks its last events; None if it has all.
        signal: number of the signal that interrupted the session; None if none did.
        sessions: number of times that the search was begun or resumed.
        proposals: what was learned from earlier searches before it began.
        distrust: what the first trials say against the proposals; empty if they bear them out.
    """

    name: str
    space: SearchSpace
    metric: str
    trials: list[Trial]
    best: Trial
    run_ids: dict[int, str]
    experiment_id: str
    wall_seconds: float
    training_share: float
    run_id: str = ""
    status: str = "finished"
    started: int = 0
    space_text: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    branches: list[Trial] = field(default_factory=list)
    confirming: list[Trial] = field(default_factory=list)
    confirmation: Confirmation | None = None
    verdict: ArmComparison | None = None
    limit: str | None = None
    halted: str | None = None
    advice: list[str] = field(default_factory=list)
    problem: str | None = None
    lost: str | None = None
    signal: int | None = None
    sessions: int = 1
    proposals: Proposals = NOTHING
    distrust: str = ""

    @property
    def learned(self) -> list[str]:
        """What was learned from earlier searches, and what the first trials say against it."""
        return [text for text in (self.proposals.sentence, self.distrust) if text]

    @property
    def defaults(self) -> Trial | None:
        """Trial 0, which has the defaults; None with `search.defaults: off`."""
        if self.space.search.defaults == "off":
            return None
        return next((trial for trial in self.trials if trial.number == 0), None)

    @property
    def ranked(self) -> list[Trial]:
        """The trials: finished ones, best first; then the others, the furthest trained first."""

        def order(trial: Trial) -> tuple[bool, int, float]:
            place = 0 if trial.has_finished or trial.has_diverged else trial.place
            return not trial.has_finished, -place, self.rank(trial)

        return sorted(self.trials, key=order)

    @property
    def front(self) -> list[Trial]:
        """The finished trials that no other one beats in every objective."""
        return pareto_front(self.trials, self.space.objectives)

    def rank(self, trial: Trial) -> float:
        """Return the newest value of a trial for comparisons after equal training.

        Smaller is better; infinity if the trial diverged or has no value.
        """
        return self.space.objective.rank(trial.objective(self.metric))

    @cached_property
    def left(self) -> Left | None:
        """What as many trials again could still find; None if it cannot be told."""
        return estimate_left(self.space, self.trials, self.proposals.draws)

    @property
    def best_by_budget(self) -> dict[int, Trial]:
        """Budget in tokens → its best finished trial, in ascending order; empty for one budget."""
        best: dict[int, Trial] = {}
        for tokens in self.space.budget.shorter:
            trials = [t for t in self.branches if t.has_finished and self.budget_of(t) == tokens]
            if trials:
                best[tokens] = min(trials, key=self.rank)
        longest = self.space.budget.tokens
        if best and longest is not None and self.best.has_finished:
            best[longest] = self.best
        return best

    def budget_of(self, trial: Trial) -> int:
        """Return the one of `budget.tokens` that a trial trains for; updates round it up."""
        budgets = (*self.space.budget.shorter, self.space.budget.tokens or 0)
        return max(tokens for tokens in budgets if tokens <= trial.spec.budget_tokens)

    @property
    def tokens_spent(self) -> int:
        """Training tokens of all trials and branches."""
        return sum(trial.tokens_trained for trial in (*self.trials, *self.branches))

    @property
    def tokens_full(self) -> int:
        """Training tokens of all trials and branches that could train, without early stopping."""
        return sum(
            trial.spec.budget_tokens - trial.tokens_before
            for trial in (*self.trials, *self.branches)
            if not (trial.reused or trial.is_infeasible)
        )

    @property
    def confirmation_tokens(self) -> int:
        """Training tokens of the confirmation."""
        return sum(trial.tokens_trained for trial in self.confirming)

    @property
    def times(self) -> dict[int, list[float]]:
        """Trial → seconds from the start of the search to each of its reports."""
        return {
            trial.number: [(time - self.started) / 1000 for time in trial.times]
            for trial in (*self.trials, *self.branches, *self.confirming)
        }

    def summary(self) -> dict[str, float]:
        """Return the metrics of the parent run in MLflow."""
        best, defaults = self.best, self.defaults
        numbers = {f"best_{self.metric}": best.objective(self.metric)}
        # the value of raced defaults that were stopped is of another number of tokens
        is_full = self.proposals.mode_of_defaults(self.space.search.defaults) == "full"
        if defaults is not None and (is_full or defaults.has_finished):
            numbers[f"defaults_{self.metric}"] = defaults.objective(self.metric)
        numbers |= {
            "trials": len(self.trials),
            "diverged": sum(trial.has_diverged for trial in self.trials),
            "tokens_spent": self.tokens_spent,
            "tokens_spared": self.tokens_full - self.tokens_spent,
            "confirmation_tokens": self.confirmation_tokens,
            "wall_seconds": self.wall_seconds,
            "training_share": self.training_share,
        }
        for tokens, trial in self.best_by_budget.items():
            numbers[f"{self.metric}_after_{tokens}_tokens"] = trial.objective(self.metric)
        if self.confirmation is not None and self.confirmation.winner is not None:
            numbers[f"confirmed_{self.metric}"] = self.confirmation.winner.mean
        return {name: float(value) for name, value in numbers.items() if value < float("inf")}

    @classmethod
    def of(
        cls, name: str, search: Search, *, run_id: str, experiment_id: str, run_ids: dict[int, str]
    ) -> Self | None:
        """Return the result that a journal describes; None if no trial has reported.

        Args:
            name: name of the search.
            search: the search.
            run_id: MLflow run of the search.
            experiment_id: of MLflow.
            run_ids: trial number → MLflow run.
        """
        board, end = search.board, search.end
        best = board.best if end is None or end.best is None else board.trials[end.best]
        if best is None:
            return None
        return cls(
            name=name,
            space=search.space,
            metric=board.metric,
            trials=board.searched,
            best=best,
            run_ids=run_ids,
            experiment_id=experiment_id,
            wall_seconds=search.seconds,
            training_share=end.summary.get("training_share", 0.0) if end else 0.0,
            run_id=run_id,
            status=end.status if end else "running",
            started=search.begun.time_ms,
            space_text=search.space_text,
            environment=search.session.environment if search.session else {},
            branches=board.branches,
            confirming=board.confirming,
            confirmation=search.confirmation,
            verdict=verdict_of(board, search.space, search.confirmation),
            limit=end.limit if end else None,
            halted=end.halted if end else None,
            advice=list(end.advice) if end else [],
            sessions=len(search.sessions),
            proposals=search.begun.proposals,
            distrust=search.trust.sentence,
        )

    # for other tools -------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each trial: outcome, objectives, tokens and searched parameters."""
        from tuner.results.frames import trials_frame

        return trials_frame(self.space, self.trials, self.run_ids)

    def curves(self) -> pandas.DataFrame:
        """Return a row for each report of each trial, with all its metrics and its time."""
        from tuner.results.frames import curves_frame

        return curves_frame((*self.trials, *self.branches, *self.confirming), self.times)

    def to_study(self) -> optuna.Study:
        """Return the trials as an Optuna study in memory; stopped trials are pruned, with curves.

        The user attribute `trial` of each is its number in the search.
        """
        from tuner.results.optuna_export import study_of

        return study_of(self.name, self.space, self.trials)

    def __repr__(self) -> str:
        value = self.best.objective(self.metric)
        return (
            f"<search {self.name}, {self.status}: {counted(len(self.trials), 'trial')}, the best "
            f"is trial {self.best.number} with {self.metric} {value:.4f}>"
        )

    def _repr_html_(self) -> str:
        """Return the best trials as a table under a sentence, for notebooks."""
        best = [trial.number for trial in self.ranked[:_NOTEBOOK_TRIALS]]
        frame = self.to_pandas().loc[best].drop(columns=["parent", "recorded", "reports"])
        frame["run"] = frame["run"].str[:8]
        frame = frame.rename(columns={name: symbol(name) for name in frame.columns})
        table = frame.to_html(float_format=lambda x: f"{x:.4g}", na_rep="", border=0)
        return f"<p>{escape(repr(self).strip('<>'))}</p>\n{table}"
