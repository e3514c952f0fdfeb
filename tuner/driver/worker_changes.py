"""What follows when a worker comes, dies or is back: who trains its trials, which of them fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tuner.workers.orders import Orders
from tuner.workers.watchdog import WorkerChange, WorkerEvent

if TYPE_CHECKING:
    from tuner.workers.cluster import Environments

_EVENT_TEXTS = {
    WorkerEvent.LOST: "died and restarts; its trials will resume from their last reports",
    WorkerEvent.FROZEN: "did not answer, was killed and restarts; its trials will resume from "
    "their last reports",
    WorkerEvent.BACK: "has restarted",
}
_NO_REASON = "its process ended"
_MOST_DEATHS = 3  # of a worker before the next report of a trial: the trial may be the cause


class WorkerChanges:
    """Carries out what follows from the changes of workers, by orders that wait.

    Args:
        orders: orders to the workers.
        environments: devices and versions of the workers; None if they are all alike.
        step_of: function that returns the step of a trial's last report.
        fail: function to call with a trial that cannot continue, and the reason.
        say: function to call with news for the user.
    """

    def __init__(
        self,
        orders: Orders,
        environments: Environments | None,
        step_of: Callable[[int], int],
        fail: Callable[[int, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._orders, self._environments = orders, environments
        self._step_of, self._fail, self._say = step_of, fail, say
        self._reasons: dict[int, str] = {}  # worker → why it died last, as far as is known

    def broke(self, worker: int, reason: str) -> None:
        """Note why the engine of a worker broke, which ends its process."""
        self._reasons[worker] = reason

    def take(self, change: WorkerChange) -> None:
        """Take note of a worker that came, died or is back."""
        worker, event, reason, lost_node, _ = change
        if event in _EVENT_TEXTS:
            self._say(f"worker {worker} {_EVENT_TEXTS[event]}")
        match event:
            case WorkerEvent.UP:
                self._orders.welcome(worker, self._step_of)
            case WorkerEvent.LOST | WorkerEvent.FROZEN:
                self._reasons.setdefault(worker, reason)
            case WorkerEvent.BACK:
                self._start_again(worker, is_charged=not lost_node)
            case WorkerEvent.MISSING:
                self.move_trials(worker, f"not used: {reason}" if reason else "missing")
            case WorkerEvent.GONE:
                self._give_up(worker, reason)

    def _start_again(self, worker: int, *, is_charged: bool) -> None:
        """Start the trials of a worker that is back, but those that it may have died of."""
        why = self._reasons.pop(worker, _NO_REASON)
        if self._environments is not None:
            self._environments.ask_again(worker)
        own = self._orders.of_worker(worker)
        self._orders.welcome(worker, self._step_of)
        for number in own:
            step = self._step_of(number)
            if self._orders.start_again(number, step, is_charged=is_charged) == _MOST_DEATHS:
                self._fail(
                    number,
                    f"the worker of trial {number} died {_MOST_DEATHS} times before its next "
                    f"report: {why}",
                )

    def _give_up(self, worker: int, reason: str) -> None:
        """Let other workers train the trials of one that does not come back, or fail them."""
        trials, why = self._orders.of_worker(worker), self._reasons.get(worker, _NO_REASON)
        if self._orders.give_up(worker):
            for number in trials:
                self._fail(number, f"the worker of trial {number} {reason}; it died of: {why}")
        elif trials and not self._orders.is_missing(worker):
            self.move_trials(worker, f"gone: it {reason}")

    def move_trials(self, worker: int, how: str) -> None:
        """Let other workers train the trials of one.

        Args:
            worker: index of the worker.
            how: what is wrong with it, after `worker 3 is`.
        """
        steps = {number: self._step_of(number) for number in self._orders.of_worker(worker)}
        text = f"worker {worker} is {how}"
        if not self._orders.miss(worker, steps):
            text += "; no other worker is left"
        elif steps:
            text += "; its trials go on in other workers"
        self._say(text)
