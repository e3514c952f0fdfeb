"""Orders to the workers of a session: which of them trains which trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tuner.workers.assignment import Assignment

_MOST_FAILURES = 3  # of different trials in a row on one worker


class Orders:
    """Assigns trials to workers; each order waits until `send`.

    Args:
        workers: handles of the workers.
        slots: number of trials that each of them trains at one time.
        are_up: False if each worker is missing until it is welcome: a cluster may get nodes.

    Attributes:
        running: the assignments in training, by number of the trial.
        left_out: workers on which trials failed in a row.
        num_workers: number of workers.
    """

    def __init__(self, workers: Sequence[Any], slots: int = 1, *, are_up: bool = True) -> None:
        self._workers, self._slots, self.num_workers = workers, slots, len(workers)
        self.running: dict[int, Assignment] = {}
        self._segments = 0  # number of assignments so far
        self._deaths: Counter[int] = Counter()  # of a trial's worker, since its last report
        self._missing = set[int]() if are_up else set(range(len(workers)))  # workers
        self._gone: set[int] = set()  # workers of which nobody expects that they come back
        self.left_out: set[int] = set()
        self._failures: Counter[int] = Counter()  # of trials in a row, by worker
        self._waiting: list[Callable[[], Any]] = []

    def worker_of(self, lane: int) -> int:
        """Return the worker for a lane: always the same one, unless it is missing."""
        own = lane % len(self._workers)
        present = self._present()
        if own in present or not present:
            return own
        load = Counter(assignment.worker for assignment in self.running.values())
        return min(present, key=lambda index: load[index])

    def _present(self) -> list[int]:
        absent = self._missing | self.left_out
        return [index for index in range(len(self._workers)) if index not in absent]

    def is_current(self, segment: int, number: int) -> bool:
        """Return True if an assignment is the one that trains a trial at present."""
        assignment = self.running.get(number)
        return assignment is not None and assignment.segment == segment

    def of_worker(self, *workers: int) -> list[int]:
        """Return the trials that some workers train."""
        return [number for number, order in self.running.items() if order.worker in workers]

    def start(self, assignment: Assignment) -> None:
        """Let a worker start an assignment, or go on with its trial from there."""
        self._segments += 1
        assignment = replace(assignment, segment=self._segments)
        self.running[assignment.number] = assignment
        self._add(assignment.number, "start", assignment)

    def start_again(self, number: int, step: int, *, is_charged: bool = True) -> int:
        """Let a worker that is back train a trial from its last report on.

        Args:
            number: number of the trial.
            step: step of its last report; 0 before the first.
            is_charged: False if the trial cannot be the reason of the worker's death.

        Returns:
            How often its worker has died since that report.
        """
        self._start_from(number, step, self.running[number].worker)
        self._deaths[number] += is_charged
        return self._deaths[number]

    def miss(self, worker: int, steps: Mapping[int, int]) -> bool:
        """Let other workers train the trials of one that does not come back.

        Args:
            worker: index of the worker.
            steps: step of the last report of each of its trials.

        Returns:
            True if there are other workers.
        """
        self._missing.add(worker)
        for number, step in steps.items():
            if self._present():
                self._stop_here(number)  # it may live
                self._start_from(number, step, self.worker_of(worker))
        return bool(self._present())

    def is_missing(self, worker: int) -> bool:
        """Return True if a worker gets no trials until it is welcome."""
        return worker in self._missing

    def give_up(self, worker: int) -> bool:
        """Note that a worker is gone until it is welcome; return True if all workers are."""
        self._gone.add(worker)
        return len(self._gone) == self.num_workers

    def failed(self, number: int) -> int | None:
        """Note that a trial failed; return its worker if that is left out from now on.

        A worker is left out when several trials in a row failed on it, while others train: then its
        node is broken, and not the trials.
        """
        worker = self.running[number].worker
        self._failures[worker] += 1
        present = self._present()
        others_train = any(self._failures[other] == 0 for other in present if other != worker)
        if self._failures[worker] < _MOST_FAILURES or worker not in present or not others_train:
            return None
        self.left_out.add(worker)
        return worker

    def welcome(self, worker: int, step_of: Callable[[int], int] = lambda number: 0) -> None:
        """Assign trials to a worker that was missing: those of missing workers, and waiting ones.

        Args:
            worker: index of the worker.
            step_of: function that returns the step of a trial's last report.
        """
        self._gone.discard(worker)
        if worker not in self._missing:
            return
        self._missing.discard(worker)
        if worker in self.left_out:
            return
        load = Counter(assignment.worker for assignment in self.running.values())
        present = self._present()
        # the last that came wait for a slot
        for number, assignment in reversed([*self.running.items()]):
            own = assignment.worker
            waits = load[own] > self._slots and load[worker] < self._slots
            if own != worker and (waits or own not in present):
                self._stop_here(number)
                self._start_from(number, step_of(number), worker)
                load[own] -= 1
                load[worker] += 1

    def _start_from(self, number: int, step: int, worker: int) -> None:
        assignment = replace(self.running[number], worker=worker)
        if step > max(assignment.after, assignment.step_copied) and not assignment.is_reused:
            assignment = replace(assignment, source=(assignment.trial_id, step))
        self.start(replace(assignment, after=max(step, assignment.after)))

    def taken(self, number: int, step: int, needed: Collection[int] = ()) -> None:
        """Note that a report of a trial is in the journal.

        Args:
            number: number of the trial.
            step: step of the report.
            needed: steps of checkpoints that the worker must not delete yet.
        """
        self._deaths.pop(number, None)
        self._failures.pop(self.running[number].worker, None)
        kept = [tuple(sorted(each for each in needed if each < step))]
        self._add(number, "prune_checkpoints", str(number), step, *filter(None, kept))

    def stop(self, number: int, *, keep: bool) -> None:
        """Free the slot of a trial; keep its checkpoints, or delete them."""
        self._stop_here(number, keep=keep)
        del self.running[number]

    def end_waiting(self) -> None:
        """Let the clients of all workers return, because the search is over."""
        self._waiting += [worker.end_waiting.remote for worker in self._workers]

    def send(self) -> None:
        """Send the orders that wait."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def drop(self) -> None:
        """Forget the orders that wait."""
        self._waiting = []

    def _stop_here(self, number: int, *, keep: bool = True) -> None:
        assignment = self.running[number]
        self._add(number, "stop", assignment.trial_id, assignment.segment, keep)

    def _add(self, number: int, method: str, *arguments: Any) -> None:
        worker = self._workers[self.running[number].worker]
        self._waiting.append(partial(getattr(worker, method).remote, *arguments))
