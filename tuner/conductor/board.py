"""All trials of a running search, with the numbers that views show and summaries count."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self

from model.engine.report import Report
from tuner.conductor.outcome import INTERRUPTED, OutcomeKind
from tuner.conductor.trial import Trial
from tuner.conductor.trust import Trust
from tuner.samplers.arms import num_finalists
from tuner.samplers.observation import Observation
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.data_facts import DataFacts
from tuner.space.objective import Objective
from tuner.space.proposals import DefaultsMode
from tuner.space.space import SearchSpace

_RATE_WINDOW_SECONDS = 20.0


class Board:
    """All trials of one search.

    Args:
        objectives: objectives of the search; trials are ranked by the first one.
        num_trials: number of trials that will run.
        expected_tokens: estimate of the training tokens of the search, or a function that makes it
            when a view asks for the remaining time.
        confirm: number of configurations to confirm, and of seeds for each.
        defaults: `search.defaults`.
        in_flops: True if trials are compared after equal numbers of FLOPs.
        trust: trust in what earlier searches proposed, which the trials change.
        most_infeasible: number of infeasible trials in whose place others are tried.

    Attributes:
        num_trials: number of trials that will run, as known so far.
        confirm: number of configurations to confirm, and of seeds for each.
        winner: number of the trial whose configuration was confirmed as the best.
        objective: objective by which trials are ranked.
        tokens: training tokens that the search spent, up to the newest reports.
        clock: clock in seconds since the epoch; begin a session after it is replaced.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        num_trials: int,
        expected_tokens: int | Callable[[], int],
        confirm: tuple[int, int] = (0, 0),
        defaults: DefaultsMode = "full",
        *,
        in_flops: bool = False,
        trust: Trust | None = None,
        most_infeasible: int = 0,
    ) -> None:
        self._objectives = objectives
        self.objective = objectives[0]
        self.metric = objectives[0].metric
        self.num_trials = num_trials
        self.trials: dict[int, Trial] = {}
        self.winner: int | None = None
        self.tokens = 0
        self._leaders: dict[int, tuple[float, int, int]] = {}  # place → rank, trial, trials there
        self._best_finished: Trial | None = None
        self._expected_tokens = expected_tokens
        self.confirm = confirm
        self._defaults, self._in_flops, self._trust = defaults, in_flops, trust
        self._num_finished = self._num_infeasible = 0
        self._most_infeasible = most_infeasible
        self.clock: Callable[[], float] = lambda: time.time()
        self.begin_session()

    @classmethod
    def of(cls, space: SearchSpace, facts: DataFacts, trust: Trust | None = None) -> Self:
        """Return the board of a search that begins."""
        return cls(
            space.objectives, num_planned(space), lambda: expected_tokens(space, facts)[1],
            (num_finalists(space), space.confirm.seeds), space.search.defaults,
            in_flops=space.budget.flops is not None, trust=trust,
            most_infeasible=_most_infeasible(space),
        )  # fmt: skip

    def replace(self, trial: Trial) -> bool:
        """Expect another trial in the place of an infeasible one; return False if none comes.

        None comes for the points of a grid, the arms of a comparison and populations, which are
        counted, nor once as many trials were infeasible as the search has.
        """
        self._num_infeasible += 1
        is_replaced = self._num_infeasible <= self._most_infeasible and trial.is_searched
        self.num_trials += is_replaced
        return is_replaced

    def edit(self, space: SearchSpace, num_never: int) -> None:
        """Expect other trials and another confirmation.

        Args:
            space: the edited space.
            num_never: number of shorter budgets that their trunks did not reach.
        """
        continued = [t for t in self.searched if t.parent is not None]
        unplanned = len(self.confirming) + len(continued)  # they came beside those of the space
        self.num_trials, self.winner = num_planned(space) - num_never + unplanned, None
        self.num_trials += min(self._num_infeasible, self._most_infeasible)
        self.confirm = num_finalists(space), space.confirm.seeds

    @property
    def defaults(self) -> Trial | None:
        """Trial 0, if it has the defaults."""
        return None if self._defaults == "off" else self.trials.get(0)

    def begin_session(self, at: float | None = None) -> None:
        """Count seconds and rates from a time on, by default from now on."""
        self.started = self.clock() if at is None else at
        # time of a report and its tokens; the first one only begins the time of the others
        self._recent = deque([(self.started, 0)])

    def add(self, trial: Trial) -> None:
        """Add a trial that was suggested."""
        # a new dict, because the view's thread may iterate over the old one
        self.trials = {**self.trials, trial.number: trial}
        if self._trust is not None:
            self._trust.add(trial)

    def record_report(self, number: int, report: Report, at: float | None = None) -> bool:
        """Add the report of a trial.

        Args:
            number: number of the trial.
            report: the report.
            at: time of the report, in seconds since the epoch; by default now.

        Returns:
            True if the trial became the best one, or reported for the first time as the best one.
        """
        best_before = self.best
        trial = self.trials[number]
        tokens_before = trial.tokens_trained
        trial.reports.append(report)
        tokens = trial.tokens_trained - tokens_before
        self.tokens += tokens
        now = self.clock() if at is None else at
        self._recent.append((now, tokens))
        while self._recent[1][0] < now - _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        if trial.is_searched:
            self._record_leader(trial)
            if self._trust is not None and len(trial.reports) == 1:
                self._trust.take(trial, self.rank(trial))
        if trial.has_finished and trial.is_searched:
            self._num_finished += 1
            first = self._best_finished
            if self.rank(trial) < (math.inf if first is None else self.rank(first)):
                self._best_finished = trial
        return self.best is trial and (best_before is not trial or len(trial.reports) == 1)

    def _record_leader(self, trial: Trial) -> None:
        rank, number, count = self._leaders.get(trial.place, (math.inf, trial.number, 0))
        if self.rank(trial) < rank:
            rank, number = self.rank(trial), trial.number
        self._leaders[trial.place] = rank, number, count + 1

    def leads(self, trial: Trial) -> bool:
        """Return True if no trial is better at the newest report of a trial, and one is worse.

        Losses after other numbers of tokens are not compared. The first trial that finishes leads.
        """
        _, number, count = self._leaders.get(trial.place, (math.inf, -1, 0))
        return number == trial.number and (count > 1 or trial.has_finished)

    # values --------------------------------------------------------------------------------

    def value(self, trial: Trial) -> float:
        """Return the newest value of the objective; infinity without one."""
        return trial.objective(self.metric)

    def rank(self, trial: Trial) -> float:
        """Return the value by which trials are compared: smaller is better, infinity is worst."""
        return self.objective.rank(self.value(trial))

    def curve(self, trial: Trial) -> list[tuple[Report, float]]:
        """Return the reports of a trial, each with the value by which trials are compared."""
        return [
            (report, self.objective.rank(trial.value(self.metric, report)))
            for report in trial.reports
        ]

    def spent(self, trial: Trial, tokens: int) -> int:
        """Return what some tokens of a trial cost, in tokens or in FLOPs, as the budget is."""
        return trial.flops(tokens) if self._in_flops else tokens

    def observation(self, trial: Trial) -> Observation:
        """Return the observation of an ended or paused trial for the sampler."""
        curve = self.curve(trial)
        values = {self.spent(trial, r.tokens): v for r, v in curve if math.isfinite(v)}
        kind = trial.outcome.kind if trial.outcome else None
        # a value that is not finite ends a trial as diverged, even if its report does not say so
        if trial.has_diverged or kind is OutcomeKind.DIVERGED:
            return Observation("diverged", values)
        if trial.has_finished:
            return Observation("finished", values, self.values(trial))
        is_cut = trial.is_paused or trial.is_stopped
        return Observation("stopped" if is_cut else "failed", values)

    def values(self, trial: Trial) -> tuple[float, ...]:
        """Return the newest value of every objective."""
        return tuple(trial.objective(objective.metric) for objective in self._objectives)

    @property
    def searched(self) -> list[Trial]:
        """Trials of the search itself, without those that confirm others or cool down."""
        return [t for t in self.trials.values() if t.is_searched]

    @property
    def branches(self) -> list[Trial]:
        """Shorter budgets of the trials of the search."""
        return [t for t in self.trials.values() if t.is_cool_down]

    @property
    def confirming(self) -> list[Trial]:
        """Trials that confirm others."""
        return [t for t in self.trials.values() if t.confirms is not None]

    @property
    def ranked(self) -> list[Trial]:
        """Finished trials of the search, best first."""
        finished = [t for t in self.searched if t.has_finished]
        return sorted(finished, key=lambda t: (self.rank(t), t.number))

    @property
    def best_finished(self) -> Trial | None:
        """The finished trial of the search with the best value; of equal ones, the first."""
        return self._best_finished

    @property
    def best(self) -> Trial | None:
        """The confirmed winner; else the best finished trial; else the best trial of all."""
        if self.winner is not None:
            return self.trials[self.winner]
        if self._best_finished is not None:
            return self._best_finished
        candidates = [t for t in self.searched if self.rank(t) < math.inf]
        return min(candidates, key=self.rank, default=None)

    @property
    def ended(self) -> list[Trial]:
        """Trials that have ended, and do not continue when the search is resumed."""
        return [t for t in self.trials.values() if t.outcome not in (None, INTERRUPTED)]

    @property
    def training(self) -> list[Trial]:
        """Trials in training, by number."""
        return [t for t in self.trials.values() if t.outcome is None and not t.is_paused]

    @property
    def paused(self) -> list[Trial]:
        """Trials that wait to be resumed."""
        return [t for t in self.trials.values() if t.is_paused]

    # rates ---------------------------------------------------------------------------------

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, over the last 20 seconds or since the report before."""
        span = self.clock() - self._recent[0][0]
        return sum(tokens for _, tokens in list(self._recent)[1:]) / max(span, 1e-9)

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return self.clock() - self.started

    @cached_property
    def _expected(self) -> int:
        """Estimate of the training tokens of the search."""
        expected = self._expected_tokens
        return expected() if callable(expected) else expected

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the remaining seconds; None before the rate is known."""
        rate = self.tokens_per_second
        if rate == 0:
            return None
        over = self.ended + self.paused
        mean_tokens = self._expected / self.num_trials
        if len(over) >= max(1, self.num_trials // 3):
            mean_tokens = sum(t.tokens - t.shared_tokens for t in over) / len(over)
        # The first trial and retrainings run to the end of their budgets, and a trial beyond the
        # mean probably does.
        remaining = sum(
            (
                t.spec.budget_tokens
                if t.tokens >= mean_tokens or self._always_ends(t)
                else mean_tokens
            )
            - t.tokens
            for t in self.training
        )
        remaining += mean_tokens * (self.num_trials - len(self.trials))
        return (remaining + self._tokens_to_confirm) / rate

    @property
    def _tokens_to_confirm(self) -> int:
        """Tokens of the retrainings that have not begun, of the configurations known so far."""
        top, seeds = self.confirm
        count = min(top, max(1, self._num_finished)) * seeds - len(self.confirming)
        budget = next((trial.spec.budget_tokens for trial in self.trials.values()), 0)
        return max(0, count) * budget

    def _always_ends(self, trial: Trial) -> bool:
        is_first = trial.number == 0 and self._defaults == "full"
        if self._trust is not None:
            is_first = trial.number in self._trust.never_stopped
        return is_first or not trial.is_searched


def num_planned(space: SearchSpace) -> int:
    """Return the number of trials before the confirmation, those of shorter budgets included."""
    return space.search.trials * (1 + len(space.budget.shorter))


def _most_infeasible(space: SearchSpace) -> int:
    """Return for how many infeasible trials others are tried."""
    search = space.search
    is_counted = search.sampler == "grid" or space.compare or space.budget.shorter
    if is_counted or SCHEDULERS[search.scheduler].is_population:
        return 0
    return search.trials
