"""Results of trials at rungs, the numbers of training tokens at which trials are compared."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Container, Sequence

from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace
from tuner.texts.formatting import listed

# A result: value, number of earlier results on the rung, number of the trial. The order of results
# is the ranking: the smaller value first, of equal values the earlier report.
_Result = tuple[float, int, int]


class RungResults:
    """Results of the trials that have reached one rung, and which of the trials are paused there.

    Every operation takes O(log n) comparisons, so that ten thousand trials cost no time.
    """

    def __init__(self) -> None:
        self._results: dict[int, _Result] = {}
        self._ranked: list[_Result] = []
        self._paused: list[_Result] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._ranked)

    def record(self, number: int, value: float) -> None:
        """Record the value of a trial that has reached this rung."""
        result = (value, self._arrivals, number)
        self._arrivals += 1
        self._results[number] = result
        insort(self._ranked, result)

    def pause(self, number: int) -> None:
        """Mark a recorded trial as paused."""
        insort(self._paused, self._results[number])

    def unpause(self, number: int) -> None:
        """Mark a trial as not paused, if it was paused on this rung."""
        if number in self._results:
            _take(self._results[number], self._paused)

    def remove(self, number: int) -> None:
        """Remove the result of a trial, if there is one."""
        self.unpause(number)
        if number in self._results:
            _take(self._results.pop(number), self._ranked)

    def rank(self, number: int) -> int:
        """Return the number of results that are better than the result of a trial."""
        return bisect_left(self._ranked, self._results[number])

    def median(self, *, without: int) -> float:
        """Return the median of all results except that of one trial; there must be two or more."""
        skipped, count = self.rank(without), len(self._ranked) - 1
        middle = ((count - 1) // 2, count // 2)  # indices without the skipped result
        low, high = (self._ranked[i + (i >= skipped)][0] for i in middle)
        return (low + high) / 2

    @property
    def ranking(self) -> list[int]:
        """Numbers of the trials, best first."""
        return [number for _, _, number in self._ranked]

    def best(self, without: Container[int]) -> int | None:
        """Return the number of the best trial that is not among some trials; None without one."""
        return next((number for _, _, number in self._ranked if number not in without), None)

    @property
    def values(self) -> list[float]:
        """Values of the trials, best first."""
        return [value for value, _, _ in self._ranked]

    @property
    def best_paused(self) -> int | None:
        """Number of the best paused trial."""
        return self._paused[0][2] if self._paused else None


class Ladder:
    """The rungs of a search, and the highest rung that each trial has reached.

    A report can pass several rungs at once, if an update takes more tokens than the distance of two
    rungs. The report counts on the highest of them only: on a lower rung the trial would be
    compared with trials that had trained less.

    Args:
        tokens: training tokens of each rung, rising.
    """

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self.rungs = [RungResults() for _ in tokens]
        self._climbed: dict[int, int] = {}  # number of a trial → number of rungs passed

    def climb(self, number: int, tokens: int, value: float) -> RungResults | None:
        """Record a report of a trial.

        Returns:
            Rung that the report is the first to reach; None if the report reaches no new rung.
        """
        passed = bisect_right(self._tokens, tokens)
        if passed <= self._climbed.get(number, 0):
            return None
        self._climbed[number] = passed
        rung = self.rungs[passed - 1]
        rung.record(number, value)
        return rung

    def unpause(self, number: int) -> None:
        """Mark a trial as not paused on all rungs."""
        for rung in self.rungs:
            rung.unpause(number)

    def remove(self, number: int) -> None:
        """Remove the results of a trial from all rungs."""
        for rung in self.rungs:
            rung.remove(number)


def _take(result: _Result, results: list[_Result]) -> None:
    """Remove a result from a sorted list, if the list has it."""
    index = bisect_left(results, result)
    if index < len(results) and results[index] == result:
        del results[index]


def promotions(space: SearchSpace) -> str:
    """Return `one in 3 trials is promoted at each rung (after 1 and 3 of 9 reports)`."""
    eta, reports = space.search.reduction_factor, space.budget.reports
    levels = listed(rungs(1, eta, reports), "and")
    return f"one in {eta} trials is promoted at each rung (after {levels} of {reports} reports)"


def share_of_rungs(
    levels: Sequence[int], budget: int, trials: float, continuing: Callable[[float], float]
) -> float:
    """Return the training tokens of some trials, in units of the complete budget.

    Args:
        levels: training tokens of each rung, rising.
        budget: training tokens of a complete trial.
        trials: number of trials that start.
        continuing: function from the number of trials at a rung to the number that continue.
    """
    spent, before = 0.0, 0
    for rung in levels:
        spent += trials * (rung - before) / budget
        before, trials = rung, continuing(trials)
    return spent + trials * (budget - before) / budget
