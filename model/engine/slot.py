"""A slot: the host's bookkeeping of one trial in a stack, from its start to its last update.

A trial may continue others: its specification names the one before it, and so on. The first of
this chain starts from random weights (or from a warm start), and each later one takes over at the
update at which it continues the one before. For example, a population-based search changes the
learning rate of a trial at update 100, and once more at update 300:

    chain        A            B = A continued at 100       C = B continued at 300
    trained      1 … 100      101 … 300                    301 … total_steps
    reports      none         none                         all

Trained from random weights, trial C repeats A and B without reports, since other trials have made
these. Resumed from a checkpoint of B at update 200 it starts in the middle of the chain, and from
one of A at update 100 right at the change to B. A checkpoint of A at update 150 does not belong to
C at all: A's update 101 differs from B's.

A trial without a chain may also resume from a checkpoint of another trial with the same first
updates: a cool-down from its trunk (`model/spec/cool_down.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from model.checkpoints import store
from model.checkpoints.store import CheckpointRef, SavedState
from model.checkpoints.warm_start import initial_state
from model.errors import CheckpointError
from model.spec.cool_down import num_shared_updates
from model.spec.schedules import ScheduleContext, learning_rate
from model.spec.trial import TrialSpec


@dataclass(frozen=True)
class TrialRequest:
    """A trial that waits for a slot.

    Attributes:
        trial_id: name of the trial in its reports.
        spec: specification to train.
        checkpoints: checkpoints to resume from; the first one that exists is used: a file, which
            must be readable, or a reference into the folder of checkpoints. Without any, the trial
            starts from update 0.
        after: reports up to this update are not made.
        problem: problem that the trial's next report mentions.
    """

    trial_id: str
    spec: TrialSpec
    checkpoints: tuple[Path | CheckpointRef, ...] = ()
    after: int = 0
    problem: str | None = None


@dataclass
class Slot:
    """A trial in a row of a stack.

    Attributes:
        request: the trial.
        spec: specification in training, one of the trial's chain.
        remaining_specs: specifications of the chain after `spec`; the last one is the trial's own.
        reported: update of the last report that was made, or is not to be made.
        problem: problem that the next report mentions.
        step: updates done.
        tick: micro-batches done of the next update.
        loss_sum: sum of the losses since the last report, weighted by `loss_weight`.
        plain_sum: such a sum of the losses without label smoothing and z-loss.
        loss_weight: number of updates since the last report, counting parts of them.
        norm_sum: sum of the gradient norms since the last report.
        norm_count: number of these norms.
        val_losses: validation losses of the reports so far, also of those not made.
    """

    request: TrialRequest
    spec: TrialSpec
    remaining_specs: tuple[TrialSpec, ...] = ()
    reported: int = 0
    problem: str | None = None
    step: int = 0
    tick: int = 0
    loss_sum: float = 0.0
    plain_sum: float = 0.0
    loss_weight: float = 0.0
    norm_sum: float = 0.0
    norm_count: int = 0
    val_losses: list[float] = field(default_factory=list)

    @property
    def trial_id(self) -> str:
        """Id of the trial."""
        return self.request.trial_id

    @property
    def ticks_per_step(self) -> int:
        """Micro-batches of one update, B/b."""
        return self.spec.hyperparameters.batch_size // self.spec.micro_batch

    def learning_rate(self, step: int) -> float:
        """Return α_t of an update that is not after the next report."""
        a = self.spec.architecture
        context = ScheduleContext((a.target or a).d_model, self.val_losses)
        return learning_rate(step, self.spec.trained_hyperparameters, context)

    @property
    def next_report(self) -> int:
        """Update after which the trial reports next."""
        return next(step for step in self.spec.report_steps if step > self.step)

    @property
    def is_at_report(self) -> bool:
        """True if the last tick finished an update after which the trial reports."""
        return self.tick == 0 and self.step in self.spec.report_steps

    @property
    def is_before_own_reports(self) -> bool:
        """True if a report of this update belongs to an earlier trial, or was made before."""
        return bool(self.remaining_specs) or self.step <= self.reported

    def account(
        self,
        due: Sequence[bool],
        weights: Sequence[float],
        losses: Sequence[float],
        plain_losses: Sequence[float],
        norms: Sequence[float],
    ) -> bool:
        """Add the losses and norms of some ticks.

        Args:
            due: True for each tick that ended an update.
            weights: share of each tick in its update.
            losses: loss of each tick.
            plain_losses: loss of each tick without label smoothing and z-loss.
            norms: norm of the gradient, valid where due.

        Returns:
            False if a loss or a norm is not finite; the ticks after it are not counted.
        """
        ticks = zip(due, weights, losses, plain_losses, norms, strict=True)
        for is_due, weight, loss, plain, norm in ticks:
            self.tick += 1
            self.loss_sum += weight * loss
            self.plain_sum += weight * plain
            self.loss_weight += weight
            if is_due:
                self.step, self.tick = self.step + 1, 0
                self.norm_sum += norm
                self.norm_count += 1
            if not (math.isfinite(loss) and (not is_due or math.isfinite(norm))):
                self.step += not is_due  # the report names the update that was not finite
                return False
        return True

    def begin_interval(self, val_loss: float) -> None:
        """Begin to count anew after a report, with the next specification if this one ends."""
        self.val_losses.append(val_loss)
        self.loss_sum = self.plain_sum = self.loss_weight = self.norm_sum = 0.0
        self.norm_count = 0
        self._change_spec()

    def _change_spec(self) -> None:
        """Take the next specification of the chain if it continues this one at this update.

        A loop, since several may continue at one update: a trial that was changed twice at one
        report trains no update with the specification between.
        """
        while self.remaining_specs and (after := self.remaining_specs[0].continues) is not None:
            if after.step != self.step:
                break
            self.spec, *rest = self.remaining_specs
            self.remaining_specs = tuple(rest)

    def retry_request(self, problem: str) -> TrialRequest:
        """Return the request with which the trial waits for another slot, after its last report.

        Args:
            problem: reason, which the next report mentions.
        """
        newest = (CheckpointRef(self.trial_id, self.reported),) if self.reported else ()
        older = tuple(ref for ref in self.request.checkpoints if ref not in newest)
        checkpoints = newest + older
        return replace(self.request, checkpoints=checkpoints, after=self.reported, problem=problem)


def start_trial(
    request: TrialRequest, folder: Path | None, starts: Path | None
) -> tuple[Slot, dict[str, Tensor] | None]:
    """Make the slot of a trial and read the tensors to load into it.

    Args:
        request: the trial.
        folder: folder with the checkpoints of all trials; None if none are written.
        starts: folder with the tensors of warm starts.

    Returns:
        The slot, and the tensors for `Stack.load`; None for random weights from the seed.

    Raises:
        CheckpointError: if a file to resume from cannot be read, or belongs to another
            specification or to a finished trial; or if the tensors of a warm start are missing.
    """
    chain = request.spec.chain
    slot = Slot(request, chain[0], chain[1:], request.after, request.problem)
    if folder is not None:
        store.delete_partial_files(folder, request.trial_id)
    state = _find_state(request, folder)
    if state is None:
        is_warm = slot.spec.init_from is not None and not slot.spec.architecture.lora_rank
        return slot, initial_state(starts, slot.spec) if is_warm else None
    index = _spec_index(chain, state)
    assert index is not None
    slot.spec, slot.remaining_specs = chain[index], chain[index + 1 :]
    slot.step, slot.val_losses = state.step, list(state.val_losses)
    slot.reported = max(slot.reported, slot.step)
    slot._change_spec()  # the checkpoint may be the one at which the next specification continues
    return slot, state.tensors


def _find_state(request: TrialRequest, folder: Path | None) -> SavedState | None:
    """Read the first checkpoint that the trial can resume from; None if there is none."""
    chain = request.spec.chain
    for source in request.checkpoints:
        if isinstance(source, Path):
            state = store.read(source)
            if state.step >= request.spec.hyperparameters.total_steps:
                raise CheckpointError(f"{source} is of a trial that has finished")
            if _spec_index(chain, state) is None:
                raise CheckpointError(
                    f"{source} belongs to another specification than trial {request.trial_id}"
                )
            return state
        if folder is not None:
            newest = store.read_newest(
                folder, source, lambda state: _spec_index(chain, state) is not None
            )
            if newest is not None:
                return newest
    return None


def _spec_index(chain: Sequence[TrialSpec], state: SavedState) -> int | None:
    """Return the index of a checkpoint's specification in a chain; None if it does not belong.

    A checkpoint belongs to the chain only up to the update at which the next specification takes
    over; see the example in the docstring of this module. The last specification must have an
    update left to train.
    """
    last_steps = [spec.continues.step for spec in chain[1:] if spec.continues]
    last_steps.append(chain[-1].hyperparameters.total_steps - 1)
    for index, (spec, last_step) in enumerate(zip(chain, last_steps, strict=True)):
        if spec.hash == state.spec_hash:
            return index if state.step <= last_step else None
    return 0 if len(chain) == 1 and _is_shared(chain[0], state) else None


def _is_shared(spec: TrialSpec, state: SavedState) -> bool:
    """Return True if a checkpoint of another trial is also one of this specification."""
    try:
        other = TrialSpec.model_validate(state.spec)
    except ValidationError:  # another version of this program wrote it
        return False
    is_report = state.step in spec.report_steps[:-1]
    return other.hash == state.spec_hash and (
        is_report and state.step <= num_shared_updates(spec, other)
    )
