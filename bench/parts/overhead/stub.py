"""An engine that sleeps instead of training, in an otherwise real worker."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from model.engine.occupancy import Occupancy
from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.workers.worker import Worker

_LONGEST_NAP = 0.01  # seconds without taking calls, as in a quantum of training


@dataclass
class _Trial:
    spec: TrialSpec
    after: int  # step of its last report
    due: float = 0.0  # time of its next report


def synthetic_loss(spec: TrialSpec, step: int) -> float:
    """Return a loss that falls with the step, and is best at a learning rate of 0.01."""
    far = abs(math.log10(spec.hyperparameters.max_learning_rate / 0.01))
    return 4.0 + 0.3 * far + math.exp(-3 * step / spec.report_steps[-1])


class StubEngine:
    """Engine whose trials report synthetic losses at known times.

    Args:
        seconds: duration of a complete trial, shared evenly by its reports.
        slots: number of trials in training at one time.
    """

    def __init__(self, seconds: float, slots: int) -> None:
        self._seconds, self.slots = seconds, slots
        self._waiting: dict[str, _Trial] = {}
        self._training: dict[str, _Trial] = {}
        self.failures: dict[str, Exception] = {}
        self.training_seconds = 0.0
        self.tokens = 0
        self.occupancy, self.width = Occupancy(), 1

    @property
    def num_pending(self) -> int:
        """Number of trials that sleep or wait."""
        return len(self._waiting) + len(self._training)

    def add_trial(self, trial_id: str, spec: TrialSpec, resume: Any = None, after: int = 0) -> None:
        """Queue a trial for the next free slot."""
        self._waiting[trial_id] = _Trial(spec, after)

    def stop(self, trial_id: str) -> None:
        """Free a slot."""
        self._waiting.pop(trial_id, None)
        self._training.pop(trial_id, None)

    def prune_checkpoints(self, trial_id: str, step: int, needed: Any = ()) -> None:
        """Do nothing: there are no checkpoints."""

    def delete_checkpoints(self, trial_id: str) -> None:
        """Do nothing: there are no checkpoints."""

    def step(self) -> list[Report]:
        """Sleep until a report is due, at most `_LONGEST_NAP` seconds."""
        while self._waiting and len(self._training) < self.slots:
            trial_id = next(iter(self._waiting))
            trial = self._training[trial_id] = self._waiting.pop(trial_id)
            trial.due = time.monotonic() + self._nap(trial)
        began = time.monotonic()
        first = min((trial.due for trial in self._training.values()), default=math.inf)
        time.sleep(min(max(0.0, first - began), _LONGEST_NAP))
        now = time.monotonic()
        self.training_seconds += now - began
        due = [trial_id for trial_id, trial in self._training.items() if trial.due <= now]
        return [self._report(trial_id, self._training[trial_id]) for trial_id in due]

    def _nap(self, trial: _Trial) -> float:
        return self._seconds / len(trial.spec.report_steps)

    def _report(self, trial_id: str, trial: _Trial) -> Report:
        """Return the report that is due, and schedule the next one."""
        spec, steps = trial.spec, trial.spec.report_steps
        step = trial.after = next(step for step in steps if step > trial.after)
        trial.due += self._nap(trial)
        if step == steps[-1]:
            del self._training[trial_id]
        loss = synthetic_loss(spec, step)
        self.tokens += spec.tokens_per_step * (
            step - max((s for s in steps if s < step), default=0)
        )
        return Report(
            trial_id=trial_id,
            status=Status.FINISHED if step == steps[-1] else Status.TRAINING,
            step=step,
            tokens=step * spec.tokens_per_step,
            val_loss=loss,
            train_loss=loss,
            grad_norm=1.0,
            learning_rate=1e-3,
        )


class StubWorker(Worker):
    """Worker whose engine is a `StubEngine`.

    Args:
        seconds: duration of a complete trial.
        slots: number of trials in training at one time.
    """

    def __init__(self, seconds: float, slots: int) -> None:
        from model.engine import engine as module

        def engine(*_: Any, slots: int, **__: Any) -> StubEngine:
            return StubEngine(seconds, slots)

        module.Engine = engine  # type: ignore[assignment, misc]  # a worker imports it late
        super().__init__(None, None, slots, "cpu", "", "")  # type: ignore[arg-type]
