"""The engine: assigns trials to slots, steps the stacks, yields reports.

The engine needs neither Ray nor MLflow nor a search:

    engine = Engine(corpus.train, corpus.validation, slots=4)
    for report in engine.run(specs):
        print(report.trial_id, report.step, report.val_loss)

K = slots in a stack, Q = ticks of a quantum.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from model.checkpoints import store
from model.checkpoints.store import CheckpointRef
from model.checkpoints.writer import LIMITS, Writer
from model.corpus.data import Data, as_dataset
from model.corpus.device_dataset import on_device
from model.corpus.examples import ExampleDataset
from model.device.memory import give_back, keep_freed, oom_reason
from model.device.precision import Precision
from model.engine.active_stack import ActiveStack, shape_of
from model.engine.calibration import Setup, slots_for
from model.engine.evaluator import Evaluator, PendingReport
from model.engine.fits import check_fits
from model.engine.occupancy import Occupancy
from model.engine.report import Report, Status
from model.engine.slot import TrialRequest, start_trial
from model.sources.choices import ChoiceSet
from model.spec.trial import TrialSpec
from model.stack import compiled
from model.stack.base import Bases
from model.stack.plan import QuantumPlan
from model.stack.stack import Measured, Stack

# Longest wait of a step for a checkpoint when no trial trains: the caller gives orders between
# two steps, and should not wait long.
_MAX_WAIT_SECONDS = 0.05


class Engine:
    """Trains many trials on one device.

    On a CPU the engine sets torch to one thread for the complete process: small models gain
    nothing from more threads, and the number of threads changes how sums are rounded.

    A trial waits in a queue, trains in a slot, and its reports wait until their checkpoints are
    written:

        add_trial → waiting → slot of a stack → pending reports → returned by `step`
                       ↑_________|  memory ran out

    One thread calls all methods. Only the writer of checkpoints has threads of its own, so the
    races are all with the disk: see `stop`, `delete_checkpoints` and `_wait_for_checkpoints`.

    Args:
        train: training tokens, 1-D; or examples; or pairs, for an encoder–decoder.
        validation: validation tokens, 1-D, examples, or pairs.
        slots: number of trials in training at one time; fewer when memory runs out.
        width: slots per stack; by default 1 on a CPU and `slots` elsewhere.
        device: "cpu", "cuda", "cuda:1", "mps" …
        dtype: dtype of the computation, one of `precision.DTYPES`.
        is_compiled: True to run compiled ticks, on a CPU, but of LoRA; see `model.stack.compiled`.
        checkpoint_dir: folder for a checkpoint of each trial at each report, laid out as in
            `model.checkpoints.store`; they are written while training continues. None writes no
            checkpoints.
        decode: function from token ids to text. With it, the last report of an encoder–decoder
            has a BLEU score.
        choices: questions on which language models are evaluated, too.
        starts: folder with the tensors of warm starts, from `warm_start.write_start`.

    Attributes:
        failures: errors of the trials that could not start, or do not fit into memory even alone,
            by trial id. Such a trial makes no report; the caller removes its entry.
    """

    def __init__(
        self,
        train: Data,
        validation: Data,
        *,
        slots: int = 2,
        width: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        is_compiled: bool = False,
        checkpoint_dir: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
        choices: ChoiceSet | None = None,
        starts: Path | None = None,
    ) -> None:
        self._train_data, self._validation_data = as_dataset(train), as_dataset(validation)
        self.device = torch.device(device)
        self.precision = Precision.of(dtype, self.device)
        self.precision.set_up(self.device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
            keep_freed()
        self._device_data = on_device(self._train_data, self.device)
        self.slots = slots
        self.width = width or (1 if self.device.type == "cpu" else slots)
        self._requested_size = self.slots, self.width
        self._is_compiled = is_compiled
        if is_compiled and (self.device.type, self.width) != ("cpu", 1):
            raise ValueError("ticks are compiled on a CPU only, in stacks one slot wide")
        self._checkpoint_dir = checkpoint_dir
        self._writer = Writer(LIMITS.get(self.device.type, LIMITS["cpu"]))
        self._choices = choices
        self._evaluator = Evaluator(
            self._validation_data, self._writer, checkpoint_dir, decode, choices
        )
        self._starts, self._bases = starts, Bases(starts, self.device, self.precision)
        self._stacks: deque[ActiveStack] = deque()
        self._waiting: deque[TrialRequest] = deque()
        self._pending: deque[PendingReport] = deque()  # reports that were not returned yet
        self.failures: dict[str, Exception] = {}
        self.training_seconds = 0.0  # spent in ticks, without validation and checkpoints
        self.tokens = 0  # trained
        self.occupancy = Occupancy()

    @property
    def num_pending(self) -> int:
        """Trials in training or waiting, reports not yet returned, checkpoints being written."""
        return (
            len(self._waiting) + self._num_training + len(self._pending) + self._writer.num_pending
        )

    @property
    def _num_training(self) -> int:
        return sum(len(active.occupied) for active in self._stacks)

    def add_trial(
        self,
        trial_id: str,
        spec: TrialSpec,
        resume: Path | CheckpointRef | None = None,
        after: int = 0,
    ) -> None:
        """Queue a trial for the next free slot.

        Args:
            trial_id: name of the trial in its reports.
            spec: specification to train. The specifications that it continues are trained first,
                without reports, as far as `resume` does not cover them.
            resume: checkpoint to resume from, of this specification, of one that it continues, or
                of one with equal updates until there (`num_shared_updates`): a readable file; or a
                reference into `checkpoint_dir`, which stands for the newest readable checkpoint of
                a trial up to an update. Without one a reference restarts the trial.
            after: update of the last report that was made before; later reports are made.

        Raises:
            ValueError: if the specification does not fit the engine's data, or no report is left
                to make.
        """
        check_fits(spec, self._train_data, self._validation_data, self._choices)
        if after >= spec.hyperparameters.total_steps:
            raise ValueError(f"the trial has made its last report, at update {after}")
        checkpoints = () if resume is None else (resume,)
        self._waiting.append(TrialRequest(trial_id, spec, checkpoints, after))

    def slots_for(self, spec: TrialSpec, file: Path) -> int:
        """Return how many trials like `spec` this device should train at one time.

        Args:
            spec: specification of a typical trial.
            file: file with earlier measurements (`calibration`).
        """
        setup = Setup(self._train_data, self.device, self.precision, self._device_data)
        return slots_for(spec, setup, file)

    def stop(self, trial_id: str) -> None:
        """Free a trial's slot, or remove the trial from the queue; unknown trials are ignored.

        Reports that `step` has not returned yet are dropped together with their checkpoints.
        """
        # The caller decided without these reports. If their checkpoints remained, a later resume
        # would start from an update of which the caller has no report.
        for pending in [p for p in self._pending if p.report.trial_id == trial_id]:
            self._pending.remove(pending)
            if pending.write is not None:
                self._writer.discard(pending.write)
        self._waiting = deque(r for r in self._waiting if r.trial_id != trial_id)
        for active in self._stacks:
            for row, slot in active.occupied:
                if slot.trial_id == trial_id:
                    active.slots[row] = None
        self._count_occupancy()

    def prune_checkpoints(self, trial_id: str, step: int, needed: Collection[int] = ()) -> None:
        """Delete checkpoints older than the one before `step`, but those of updates `needed`."""
        if self._checkpoint_dir is not None:
            store.prune(self._checkpoint_dir, CheckpointRef(trial_id, step), needed)

    def delete_checkpoints(self, trial_id: str) -> None:
        """Delete all checkpoints of a trial that has been stopped."""
        if self._checkpoint_dir is not None:
            # a write that began before the stop would otherwise make its file after the deletion
            self._writer.wait_for(trial_id)
            store.delete(self._checkpoint_dir, trial_id)

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Report]:
        """Train all specifications to the end; the id of trial i is str(i).

        `stop(report.trial_id)` between two reports stops a trial early.

        Raises:
            Exception: if a trial cannot start or does not fit into memory; the error of the trial.
        """
        for number, spec in enumerate(specs):
            self.add_trial(str(number), spec)
        while self.num_pending:
            yield from self.step()
            for error in self.failures.values():
                raise error

    # one step: plan, compute, settle --------------------------------------------------------

    def step(self) -> list[Report]:
        """Train the next stack for one quantum.

        If no trial trains, wait for checkpoints for at most `_MAX_WAIT_SECONDS`.

        Returns:
            Reports whose checkpoints are written, in order, at most one per trial: the caller may
            stop the trial after it.
        """
        self._fill_slots()
        self._count_occupancy()
        if self._stacks:
            self._stacks.rotate(-1)  # round robin: stacks of different shapes take turns
            self._train_last_stack()
            self._count_occupancy()
        elif not (self._pending and self._pending[0].is_ready):
            self._writer.wait(_MAX_WAIT_SECONDS)
        return self._ready_reports()

    def _train(self, active: ActiveStack) -> None:
        """Plan, compute and settle one quantum of a stack."""
        started = time.perf_counter()
        plan = active.planner.next(active.slots)
        wait = active.stack.run(plan)
        if self.device.type != "cpu":  # plan the next quantum while the GPU works
            active.planner.look_ahead(active.slots, plan)
        measured = wait()
        self.training_seconds += time.perf_counter() - started
        self._settle(active, plan, measured)

    def _settle(self, active: ActiveStack, plan: QuantumPlan, measured: Measured) -> None:
        """Account for a quantum; report the trials that diverged or reached a report.

        Args:
            active: the stack that ran.
            plan: plan of the quantum.
            measured: losses and gradient norms of the quantum.
        """
        a, micro_batch = active.shape
        self.tokens += len(active.occupied) * len(plan) * micro_batch * a.context_length
        reached = {}
        for row, slot in active.occupied:
            ticks = (plan.due, plan.weight, *measured)
            if not slot.account(*(array[:, row].tolist() for array in ticks)):
                self._pending.append(self._evaluator.report_divergence(slot))
                active.slots[row] = None
            elif slot.is_at_report:
                reached[row] = slot
        for row, pending in self._evaluator.evaluate(active.stack, reached):
            slot, status = reached[row], pending.report.status
            # A trial whose earlier specification diverges has no later report: this one ends it.
            if not slot.is_before_own_reports or status is Status.DIVERGED:
                self._pending.append(pending)
                slot.reported, slot.problem = slot.step, None
            slot.begin_interval(pending.report.val_loss)
            if status is not Status.TRAINING:
                active.slots[row] = None

    def _ready_reports(self) -> list[Report]:
        """Remove the reports that may be returned now, at most one per trial.

        Reports leave in the order in which they were made, so a slow checkpoint holds back the
        reports behind it: the order of reports then does not depend on the disk.
        """
        ready: dict[str, Report] = {}
        while self._pending and self._pending[0].is_ready:
            trial_id = self._pending[0].report.trial_id
            if trial_id in ready:  # the caller may stop the trial before its second report
                break
            ready[trial_id] = self._pending.popleft().resolve()
        return list(ready.values())

    def _count_occupancy(self) -> None:
        """Count the seconds so far, and how many slots hold a trial from now on."""
        self.occupancy = self.occupancy.after(self._num_training, self.slots)

    # slots ----------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        """Assign waiting trials to free slots, first come first served."""
        while self._waiting and self._num_training < self.slots:
            request = self._waiting.popleft()
            reason = self._place_or_fail(request)
            if reason is not None:
                self._recover_from_oom(self.width, [request], reason)
                break
        self._drop_empty_stacks()

    def _place_or_fail(self, request: TrialRequest) -> str | None:
        """Place a trial, or record its failure if it cannot start.

        Returns:
            The message of the device if memory ran out, otherwise None.
        """
        try:
            return oom_reason(partial(self._place, request))
        except (ValueError, OSError) as error:
            self.failures[request.trial_id] = error
            return None

    def _place(self, request: TrialRequest) -> None:
        """Load a trial into a row of a stack of its shape; make a stack if none has room."""
        self._wait_for_checkpoints(request)
        if self._is_compiled and not request.spec.architecture.lora_rank:
            compiled.prepare(request.spec, self.precision.name)
        slot, tensors = start_trial(request, self._checkpoint_dir, self._starts)
        active = self._stack_with_room(slot.spec)
        row = active.empty_row
        assert row is not None
        averaged = slot.spec.hyperparameters.ema_decay > 0
        active.stack.load(
            row, slot.spec.seed, tensors, averaged=averaged, scale=slot.spec.lora_scale
        )
        active.slots[row] = slot

    def _wait_for_checkpoints(self, request: TrialRequest) -> None:
        """Wait until all checkpoints that a trial may resume from are on the disk.

        Without the wait the trial would resume from an older checkpoint, or from none, whenever
        the disk is slow: its reports would be the same, but updates would be trained twice.
        """
        refs = (ref.trial_id for ref in request.checkpoints if isinstance(ref, CheckpointRef))
        for trial_id in {request.trial_id, *refs}:
            self._writer.wait_for(trial_id)

    def _stack_with_room(self, spec: TrialSpec) -> ActiveStack:
        """Return a stack of the specification's shape with an empty row; make it if needed."""
        shape, base = shape_of(spec), self._bases.of(spec)
        with_room = (s for s in self._stacks if s.fits(shape, base) and s.empty_row is not None)
        active = next(with_room, None)
        if active is None:
            self._drop_empty_stacks()  # the new stack may need their memory
            stack = Stack(
                spec.architecture, self.width, self.device, precision=self.precision,
                data=self._device_data, is_compiled=self._is_compiled and base is None,
                masks_targets=isinstance(self._train_data, ExampleDataset), base=base,
            )  # fmt: skip
            active = ActiveStack(spec, stack, self._train_data)
            self._stacks.append(active)
        return active

    def _drop_empty_stacks(self) -> None:
        self._stacks = deque(active for active in self._stacks if active.occupied)

    # out of memory --------------------------------------------------------------------------

    def _train_last_stack(self) -> None:
        """Train the last stack for one quantum; if memory runs out, requeue its trials."""
        active = self._stacks[-1]
        reason = oom_reason(partial(self._train, active))
        if reason is None:
            return
        self._stacks.pop()
        problem = "memory ran out; the trial resumed from its last report in a smaller stack"
        requests = [slot.retry_request(problem) for _, slot in active.occupied]
        width = active.stack.width
        del active  # the last reference: the memory of the stack is free now
        self._recover_from_oom(width, requests, reason)

    def _recover_from_oom(self, width: int, requests: Sequence[TrialRequest], reason: str) -> None:
        """Recover from out of memory: halve the stack and requeue its trials.

        A trial that does not fit alone fails, and the requested number and width of slots are
        restored: the others may have been narrowed only because of this trial.

        Args:
            width: width of the stack that did not fit.
            requests: trials without a slot, in the order in which they get one again.
            reason: message of the device.
        """
        give_back(self.device)
        if width == 1 and self._num_training == 0:
            (alone,) = requests
            self.failures[alone.trial_id] = RuntimeError(
                f"out of memory: the trial does not fit on {self.device} even alone ({reason})"
            )
            self.slots, self.width = self._requested_size
            return
        if width > 1:
            self.slots = max(1, self.slots // 2)
            self.width = min(self.width, width // 2, self.slots)
        else:  # stacks cannot get narrower, so there must be fewer of them
            self.slots = max(1, min(self.slots - 1, self._num_training + len(requests) - 1))
        self._waiting.extendleft(reversed(requests))
