"""What a search found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from tuner.conductor.confirmation import Confirmation
from tuner.conductor.trial import Trial
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace

if TYPE_CHECKING:  # they take seconds to import
    import optuna
    import pandas

_NOTEBOOK_TRIALS = 8  # shown in the HTML of a notebook


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found; of one under way, what it has found so far.

    Attributes:
        name: of the search.
        space: what was searched, with the changes that a resumed search made.
        metric: the objective.
        trials: those of the search, by number; not those that confirm.
        best: the best one; the confirmed winner if there is one.
        run_ids: trial number → MLflow run.
        experiment_id: of MLflow.
        wall_seconds: from start, or from being resumed, to summary.
        training_share: part of the workers' time spent inside training, from 0 to 1.
        run_id: the search's own MLflow run, the parent of the others.
        status: finished, interrupted, failed, or running.
        started: in milliseconds since the epoch.
        space_text: the file that the space came from.
        environment: device and versions.
        confirming: the trials that retrained others with fresh seeds.
        confirmation: what came of that.
        limit: which limit ended the search, if one did.
        halted: why it ended before its time; it can be resumed.
        advice: what to do next.
        problem: why the record is not complete, if it is not.
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
    confirming: list[Trial] = field(default_factory=list)
    confirmation: Confirmation | None = None
    limit: str | None = None
    halted: str | None = None
    advice: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def ranked(self) -> list[Trial]:
        """The trials, best first; those with their full budget before the others."""
        sign = -1 if self.space.objective.mode == "max" else 1

        def rank(row: Trial) -> tuple[bool, float]:
            value = row.objective(self.metric)
            return not row.has_finished, sign * value if math.isfinite(value) else math.inf

        return sorted(self.trials, key=rank)

    @property
    def tokens_spent(self) -> int:
        """Training tokens of all trials."""
        return sum(row.tokens_trained for row in self.trials)

    @property
    def tokens_full(self) -> int:
        """What the trials would have used without early stopping."""
        return sum(
            row.spec.budget_tokens - row.tokens_before for row in self.trials if not row.reused
        )

    @property
    def confirmation_tokens(self) -> int:
        """Training tokens that the confirmation took."""
        return sum(row.tokens_trained for row in self.confirming)

    @property
    def times(self) -> dict[int, list[float]]:
        """Trial → seconds from the start of the search to each of its reports."""
        rows = (*self.trials, *self.confirming)
        return {row.number: [(time - self.started) / 1000 for time in row.times] for row in rows}

    def summary(self) -> dict[str, float]:
        """The numbers that MLflow gets on the parent run."""
        best, defaults = self.best, self.trials[0]
        numbers = {
            f"best_{self.metric}": best.objective(self.metric),
            f"defaults_{self.metric}": defaults.objective(self.metric),
            "trials": len(self.trials),
            "diverged": sum(row.has_diverged for row in self.trials),
            "tokens_spent": self.tokens_spent,
            "tokens_spared": self.tokens_full - self.tokens_spent,
            "confirmation_tokens": self.confirmation_tokens,
            "wall_seconds": self.wall_seconds,
            "training_share": self.training_share,
        }
        if self.confirmation is not None and self.confirmation.winner is not None:
            numbers[f"confirmed_{self.metric}"] = self.confirmation.winner.mean
        return {name: float(value) for name, value in numbers.items() if value < float("inf")}

    # for others ------------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each trial: outcome, objectives, tokens, and what was searched."""
        from tuner.results.frames import trials_frame

        return trials_frame(self.space, self.trials, self.run_ids)

    def curves(self) -> pandas.DataFrame:
        """A row for each report of each trial, with all its metrics and when it came."""
        from tuner.results.frames import curves_frame

        return curves_frame((*self.trials, *self.confirming), self.times)

    def to_study(self) -> optuna.Study:
        """The trials as a study of Optuna, in memory; stopped ones are pruned, with their curves.

        The user attribute `trial` of each is its number here.
        """
        from tuner.results.optuna_export import study_of

        return study_of(self.name, self.space, self.trials)

    def __repr__(self) -> str:
        value = self.best.objective(self.metric)
        return (
            f"<search {self.name}, {self.status}: {len(self.trials)} trials, the best is trial "
            f"{self.best.number} with {self.metric} {value:.4f}>"
        )

    def _repr_html_(self) -> str:
        """The best trials as a table under a sentence, for notebooks."""
        best = [row.number for row in self.ranked[:_NOTEBOOK_TRIALS]]
        frame = self.to_pandas().loc[best].drop(columns=["parent", "recorded", "reports"])
        frame["run"] = frame["run"].str[:8]
        frame = frame.rename(columns={name: symbol(name) for name in frame.columns})
        table = frame.to_html(float_format=lambda x: f"{x:.4g}", na_rep="", border=0)
        return f"<p>{escape(repr(self).strip('<>'))}</p>\n{table}"
