"""Rungs: numbers of training tokens at which trials are compared, and their results there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

# A result: value, how many came before it on its rung, number of the trial. Their order is the
# ranking: the smaller value first, of equal values the earlier report.
_Result = tuple[float, int, int]


class Rung:
    """The results of the trials that have come to one rung, and which of them wait there.

    Everything takes O(log n) comparisons, so that ten thousand trials cost no time.
    """

    def __init__(self) -> None:
        self._results: dict[int, _Result] = {}
        self._ranked: list[_Result] = []
        self._parked: list[_Result] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._ranked)

    def record(self, number: int, value: float) -> None:
        """A trial has come to this rung."""
        result = (value, self._arrivals, number)
        self._arrivals += 1
        self._results[number] = result
        insort(self._ranked, result)

    def park(self, number: int) -> None:
        """A recorded trial waits here."""
        insort(self._parked, self._results[number])

    def unpark(self, number: int) -> None:
        """A trial does not wait here any more, if it did."""
        if number in self._results:
            _take(self._results[number], self._parked)

    def remove(self, number: int) -> None:
        """Forget a trial, if it was here."""
        self.unpark(number)
        if number in self._results:
            _take(self._results.pop(number), self._ranked)

    def rank(self, number: int) -> int:
        """How many results are better than that of a recorded trial."""
        return bisect_left(self._ranked, self._results[number])

    def median(self, *, without: int) -> float:
        """Of the results of all recorded trials but one; there must be another."""
        skipped, count = self.rank(without), len(self._ranked) - 1
        middle = ((count - 1) // 2, count // 2)  # as if that one were not there
        low, high = (self._ranked[i + (i >= skipped)][0] for i in middle)
        return (low + high) / 2

    @property
    def ranking(self) -> list[int]:
        """The recorded trials, best first."""
        return [number for _, _, number in self._ranked]

    @property
    def values(self) -> list[float]:
        """Of the recorded trials, best first."""
        return [value for value, _, _ in self._ranked]

    @property
    def best_parked(self) -> int | None:
        """The best trial that waits here."""
        return self._parked[0][2] if self._parked else None


class Ladder:
    """The rungs of a search, and how far each trial has climbed.

    A report can pass several rungs at once, if an update takes more tokens than lie between them.
    It counts on the highest of them only: on a lower one the trial would be compared, after more
    training, with others after less.

    Args:
        tokens: of each rung, rising.
    """

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self.rungs = [Rung() for _ in tokens]
        self._climbed: dict[int, int] = {}  # number → rungs passed

    def climb(self, number: int, tokens: int, value: float) -> Rung | None:
        """Record a report.

        Returns:
            The rung that it reaches, a trial's first report with at least its tokens; or None.
        """
        passed = bisect_right(self._tokens, tokens)
        if passed <= self._climbed.get(number, 0):
            return None
        self._climbed[number] = passed
        rung = self.rungs[passed - 1]
        rung.record(number, value)
        return rung

    def unpark(self, number: int) -> None:
        """A trial does not wait any more, wherever it did."""
        for rung in self.rungs:
            rung.unpark(number)

    def remove(self, number: int) -> None:
        """Take a trial's results from all rungs."""
        for rung in self.rungs:
            rung.remove(number)


def _take(result: _Result, results: list[_Result]) -> None:
    """Take a result out of a sorted list, if it is there."""
    index = bisect_left(results, result)
    if index < len(results) and results[index] == result:
        del results[index]
