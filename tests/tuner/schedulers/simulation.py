"""A search without training: slots, trials with made-up values, and every rule of the protocol."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.schedulers.scheduler import Branch, Choice, Decision, Resume, Scheduler, SchedulerContext
from tuner.space.parameter import Choice as Options
from tuner.space.parameter import Parameter, Range, Value
from tuner.space.space import SearchSpace

Draw = Mapping[str, Value]

# What a trial is worth: number, its draw, tokens.
Worth = Callable[[int, Draw, int], float]

PARAMETERS = (
    Parameter(name="max_learning_rate", distribution=Range(kind="log", low=1e-4, high=1e-1)),
    Parameter(
        name="min_learning_rate",
        fraction_of="max_learning_rate",
        distribution=Range(kind="uniform", low=0.0, high=0.5),
    ),
    Parameter(name="weight_decay", distribution=Range(kind="log", low=1e-3, high=1.0)),
    Parameter(name="batch_size", distribution=Options(kind="choice", values=(8, 16))),
)


def facts(
    scheduler: str = "asha",
    *,
    reports: int = 9,
    never_stopped: frozenset[int] = frozenset({0}),
    parameters: tuple[Parameter, ...] = PARAMETERS,
    report_tokens: int = 100,
    **search: Any,
) -> SchedulerContext:
    """Facts of a search whose trials report every `report_tokens`."""
    space = SearchSpace.model_validate(
        {
            "hyperparameters": {p.name: p for p in parameters},
            "budget": {"tokens": 1_000_000},
            "search": {"scheduler": scheduler, **search},
        }
    )
    return SchedulerContext(space, report_tokens, report_tokens * reports, never_stopped)


def drawn(space: SearchSpace, rng: random.Random) -> dict[str, Value]:
    """A random point of a space without conditions."""
    draw: dict[str, Value] = {}
    for p in space.searched:
        d = p.distribution
        if isinstance(d, Range):
            low, high = (math.log(d.low), math.log(d.high)) if d.is_log else (d.low, d.high)
            number = rng.uniform(low, high)
            draw[p.label] = math.exp(number) if d.is_log else number
        else:
            assert isinstance(d, Options)
            draw[p.label] = rng.choice(d.values)
    return draw


@dataclass
class Trial:
    """What the simulation knows of a trial."""

    draw: Draw
    tokens: int = 0
    state: str = "training"  # or paused, stopped, finished, failed
    parent: int | None = None
    trained: int = 0  # tokens of its own


@dataclass
class Search:
    """A search on some slots, which calls a scheduler as the protocol says.

    Attributes:
        facts: of the search.
        scheduler: under test.
        slots: how many trials train at once.
        trials: how many new ones may be started.
        worth: the values that trials report.
        seed: of who reports next, of draws, and of failures.
        failing: probability that a trial fails instead of reporting.
        calls: every call that changed something, with its arguments and its answer.
    """

    facts: SchedulerContext
    scheduler: Scheduler
    slots: int
    trials: int
    worth: Worth
    seed: int = 0
    failing: float = 0.0
    calls: list[tuple[str, tuple[Any, ...], Any]] = field(default_factory=list)
    board: dict[int, Trial] = field(default_factory=dict)
    started: int = 0  # of the new ones
    idle: int = 0  # times that a slot stayed empty although a new trial might have been started
    lockstep: bool = False  # trials report in turn, the least trained first

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(self.scheduler, name)(*args, **kwargs)
        if not (name == "choose" and answer is None):  # which must not change anything
            self.calls.append((name, (args, kwargs), answer))
        return answer

    @property
    def training(self) -> list[int]:
        """The trials that train."""
        return [n for n, trial in self.board.items() if trial.state == "training"]

    @property
    def tokens(self) -> int:
        """Training tokens spent."""
        return sum(trial.trained for trial in self.board.values())

    def states(self, state: str) -> list[int]:
        """The trials in some state."""
        return [n for n, trial in self.board.items() if trial.state == state]

    def run(self) -> Search:
        """Go on until there is nothing to do."""
        self.fill()
        for _ in range(200_000):
            if not self.training:
                return self
            self.step()
            self.fill()
        raise AssertionError("the search does not end")

    def fill(self) -> None:
        """Give every free slot something to train."""
        while len(self.training) < self.slots:
            may_start = self.started < self.trials
            choice: Choice | None = self._call("choose", may_start=may_start)
            if choice is None:
                self.idle += may_start
                return
            if isinstance(choice, Resume):
                trial = self.board[choice.number]
                assert trial.state == "paused", f"{choice.number} is {trial.state}"
                trial.state = "training"
                continue
            number = len(self.board)
            if isinstance(choice, Branch):
                parent, gone = self.board[choice.parent], self.board[choice.replaces]
                assert parent.state in {"training", "paused"}, parent
                assert parent.tokens > 0
                assert gone.state in {"paused", "stopped", "failed"}
                if gone.state == "paused":
                    gone.state = "stopped"
                self.board[number] = Trial(choice.draw, parent.tokens, parent=choice.parent)
            else:
                assert may_start
                self.started += 1
                self.board[number] = Trial(drawn(self.facts.space, self.rng))
            self._call("add", number, self.board[number].draw)

    def step(self) -> None:
        """One of the trials in training reports, finishes or fails."""
        number = (
            min(self.training, key=lambda n: (self.board[n].tokens, n))
            if self.lockstep
            else self.rng.choice(self.training)
        )
        trial = self.board[number]
        trial.tokens += self.facts.report_tokens
        trial.trained += self.facts.report_tokens
        if self.rng.random() < self.failing:
            trial.state = "failed"
            self._call("end", number, trial.tokens, None)
            return
        value = self.worth(number, trial.draw, trial.tokens)
        if trial.tokens >= self.facts.budget_tokens:
            trial.state = "finished"
            self._call("end", number, trial.tokens, value)
            return
        decision = self._call("judge", number, trial.tokens, value)
        if number in self.facts.never_stopped:
            assert decision is Decision.CONTINUE
        states = {Decision.CONTINUE: "training", Decision.PAUSE: "paused", Decision.STOP: "stopped"}
        trial.state = states[decision]


def noise(seed: int, levels: int = 10**9) -> Worth:
    """Random values that fall with the tokens; of few levels, with many ties."""

    def worth(number: int, draw: Draw, tokens: int) -> float:
        quality = random.Random(f"{seed} {number}").randrange(levels) / levels
        wobble = random.Random(f"{seed} {number} {tokens}").randrange(levels) / levels
        return 2 + quality + 0.3 * wobble + 100 / (100 + tokens)

    return worth
