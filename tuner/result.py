"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.board import TrialRow
from tuner.confirmation import Confirmation
from tuner.space import SearchSpace


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

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
        confirmation: of the best configurations by fresh seeds.
        confirmation_tokens: that it took.
        limit: which limit ended the search, if one did.
        halted: why it ended before its time; it can be resumed.
        advice: what to do next.
        problem: why the record is not complete, if it is not.
    """

    name: str
    space: SearchSpace
    metric: str
    trials: list[TrialRow]
    best: TrialRow
    run_ids: dict[int, str]
    experiment_id: str
    wall_seconds: float
    training_share: float
    confirmation: Confirmation | None = None
    confirmation_tokens: int = 0
    limit: str | None = None
    halted: str | None = None
    advice: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def tokens_spent(self) -> int:
        """Training tokens of all trials."""
        return sum(row.tokens_trained for row in self.trials)

    @property
    def tokens_full(self) -> int:
        """What the trials would have used without early stopping."""
        return sum(
            row.spec.budget_tokens - row.tokens_before for row in self.trials if not row.recorded
        )

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
        if self.confirmation is not None:
            numbers[f"confirmed_{self.metric}"] = self.confirmation.ranked[0].mean
        return {name: float(value) for name, value in numbers.items() if value < float("inf")}
