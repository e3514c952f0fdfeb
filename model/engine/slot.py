"""A slot of a stack and the trial in it, from the queue to its last update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from torch import Tensor

from model.checkpoints import store as states
from model.checkpoints.store import CheckpointRef, SavedState
from model.checkpoints.warm_start import first_state
from model.errors import CheckpointError
from model.spec.schedules import ScheduleContext, learning_rate
from model.spec.trial import TrialSpec


@dataclass(frozen=True)
class TrialRequest:
    """A trial that waits for a slot.

    Attributes:
        trial_id: names it in its reports.
        spec: what to train.
        resumes: where it may go on from, the first that there is: a file, which must be readable,
            or a place among the saved states. Otherwise it begins anew.
        after: reports up to this update are not made.
        problem: what its next report has to tell.
    """

    trial_id: str
    spec: TrialSpec
    resumes: tuple[Path | CheckpointRef, ...] = ()
    after: int = 0
    problem: str | None = None


class SlotState(StrEnum):
    """What a slot is doing."""

    EMPTY = "empty"  # free for the next trial
    TRAINING = "training"  # takes part in every tick


@dataclass
class Slot:
    """One row of a stack and the trial in it.

    A trial that continues others trains their specifications one after the other, if it does not
    begin with their state. It is silent until its own.
    """

    state: SlotState = SlotState.EMPTY
    admission: TrialRequest = field(init=False)
    spec: TrialSpec = field(init=False)  # in training
    then: tuple[TrialSpec, ...] = ()  # that continue it; the last one is the trial's own
    reported: int = 0  # update of the last report that was made, or is not to be made
    problem: str | None = None  # what the next report has to tell
    step: int = 0  # updates done
    tick: int = 0  # micro-batches into the next update
    loss_sum: float = 0.0  # since the last report, of updates
    loss_weight: float = 0.0
    norm_sum: float = 0.0
    norm_count: int = 0
    val_losses: list[float] = field(default_factory=list)  # of the reports so far

    @property
    def trial_id(self) -> str:
        """The trial that is in it."""
        return self.admission.trial_id

    @property
    def ticks_per_step(self) -> int:
        """B/b: micro-batches of one update."""
        return self.spec.hyperparameters.batch_size // self.spec.micro_batch

    def learning_rate(self, step: int) -> float:
        """α_t of an update before the next report."""
        facts = ScheduleContext(self.spec.architecture.d_model, self.val_losses)
        return learning_rate(step, self.spec.hyperparameters, facts)

    @property
    def next_report(self) -> int:
        """The update after which this trial reports next."""
        return next(step for step in self.spec.report_steps if step > self.step)

    @property
    def is_at_report(self) -> bool:
        """Whether the update was just finished after which the trial reports."""
        return self.tick == 0 and self.step in self.spec.report_steps

    @property
    def is_silent(self) -> bool:
        """Whether a report of this update has been made, or is not the trial's own."""
        return bool(self.then) or self.step <= self.reported

    def account(
        self,
        due: Sequence[bool],
        weights: Sequence[float],
        losses: Sequence[float],
        norms: Sequence[float],
    ) -> bool:
        """Add up ticks; False at the first update that is not finite.

        Args:
            due: whether each tick ended an update.
            weights: share of each tick in its update.
            losses: of each tick.
            norms: of the gradient, where due.
        """
        for is_due, weight, loss, norm in zip(due, weights, losses, norms, strict=True):
            self.tick += 1
            self.loss_sum += weight * loss
            self.loss_weight += weight
            if is_due:
                self.step, self.tick = self.step + 1, 0
                self.norm_sum += norm
                self.norm_count += 1
            if not (math.isfinite(loss) and (not is_due or math.isfinite(norm))):
                self.step += not is_due
                return False
        return True

    def begin_interval(self, val_loss: float) -> None:
        """Go on after a report, with the next specification if this one ends here."""
        self.val_losses.append(val_loss)
        self.loss_sum = self.loss_weight = self.norm_sum = 0.0
        self.norm_count = 0
        self._change_over()

    def _change_over(self) -> None:
        while self.then and self.then[0].continues and self.then[0].continues.step == self.step:
            self.spec, *rest = self.then
            self.then = tuple(rest)

    def again(self, problem: str) -> TrialRequest:
        """The trial as it waits for another slot: it goes on from its last report."""
        own = (CheckpointRef(self.trial_id, self.reported),) if self.reported else ()
        resumes = own + tuple(r for r in self.admission.resumes if r not in own)
        return replace(self.admission, resumes=resumes, after=self.reported, problem=problem)


def start_trial(
    admission: TrialRequest, folder: Path | None, starts: Path | None
) -> tuple[Slot, dict[str, Tensor] | None]:
    """What a trial's slot says at first, and the state to load; None: fresh from its seed.

    Args:
        admission: the trial.
        folder: where states are saved.
        starts: where what warm-started trials begin with lies.

    Raises:
        CheckpointError: if a file to go on from cannot be read, or is of another specification or
            of a finished trial; or what the trial starts with is missing.
    """
    chain = admission.spec.chain
    slot = Slot(SlotState.TRAINING)
    slot.admission, slot.reported, slot.problem = admission, admission.after, admission.problem
    slot.spec, slot.then = chain[0], chain[1:]
    if folder is not None:
        states.tidy(folder, admission.trial_id)
    found = _state_to_go_on_from(admission, folder)
    if found is None:
        is_warm = slot.spec.init_from is not None
        return slot, first_state(starts, slot.spec) if is_warm else None
    link = _link(chain, found)
    assert link is not None
    slot.spec, slot.then = chain[link], chain[link + 1 :]
    slot.step, slot.val_losses = found.step, list(found.val_losses)
    slot.reported = max(slot.reported, slot.step)
    slot._change_over()
    return slot, found.tensors


def _state_to_go_on_from(admission: TrialRequest, folder: Path | None) -> SavedState | None:
    chain = admission.spec.chain
    for place in admission.resumes:
        if isinstance(place, Path):
            state = states.read(place)
            if state.step >= admission.spec.hyperparameters.total_steps:
                raise CheckpointError(f"{place} is of a trial that has finished")
            if _link(chain, state) is None:
                raise CheckpointError(
                    f"{place} belongs to another specification than trial {admission.trial_id}"
                )
            return state
        if folder is not None:
            found = states.newest(folder, place, lambda state: _link(chain, state) is not None)
            if found is not None:
                return found
    return None


def _link(chain: Sequence[TrialSpec], state: SavedState) -> int | None:
    """Which specification of a chain a state is of; None if it is on the way of none."""
    ends = [spec.continues.step for spec in chain[1:] if spec.continues]
    ends.append(chain[-1].hyperparameters.total_steps - 1)
    for number, (spec, end) in enumerate(zip(chain, ends, strict=True)):
        if spec.hash == state.spec_hash:
            return number if state.step <= end else None
    return None
