"""The engine: admits trials to the slots of stacks, turns the stacks, emits reports.

It knows nothing of Ray, MLflow or search:

    engine = Engine(corpus.train, corpus.validation, slots=4)
    for report in engine.run(specs):
        print(report.trial_id, report.step, report.val_loss)

K = slots in a stack, Q = ticks of a quantum.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from model.checkpoints import store as states
from model.checkpoints.store import CheckpointRef
from model.checkpoints.writer import LIMITS, Writer
from model.corpus.dataset import Dataset, TextDataset, Tokens
from model.corpus.device_dataset import on_device
from model.corpus.pairs import PairDataset
from model.device.memory import give_back, is_out_of_memory, keep_freed
from model.device.precision import Precision
from model.engine.calibration import Setup, slots_for
from model.engine.evaluator import Evaluator, PendingReport
from model.engine.occupancy import Occupancy
from model.engine.planner import Planner
from model.engine.report import Report, Status
from model.engine.slot import Slot, SlotState, TrialRequest, start_trial
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.plan import Floats, Plan
from model.stack.stack import Stack

# How long a turn waits for the disk when there is nothing to train: orders come in between.
_PATIENCE_SECONDS = 0.05


class ActiveStack:
    """A stack, and what the host knows of its slots."""

    def __init__(self, spec: TrialSpec, stack: Stack, train: Dataset) -> None:
        self.shape, self.stack = _shape(spec), stack
        self.planner = Planner(*self.shape, train, is_read_there=stack.data is not None)
        self.slots = [Slot() for _ in range(stack.width)]

    @property
    def training(self) -> list[int]:
        """Rows that hold a trial."""
        return [i for i, slot in enumerate(self.slots) if slot.state is SlotState.TRAINING]

    @property
    def free(self) -> int | None:
        """A row that holds none."""
        empty = (i for i, slot in enumerate(self.slots) if slot.state is SlotState.EMPTY)
        return next(empty, None)


def _shape(spec: TrialSpec) -> tuple[Architecture, int]:
    """Trials that agree here can share a stack."""
    return spec.architecture, spec.micro_batch


class Engine:
    """Trains many trials on one device.

    On a CPU it sets torch to one thread for the whole process: small models gain nothing from
    more, and how a sum is split over threads is part of its rounding.

    Args:
        train: training tokens, 1-D; or pairs, for an encoder–decoder.
        validation: validation tokens, 1-D, or pairs.
        slots: trials in training at one time; fewer when memory runs out.
        width: slots per stack; by default 1 on a CPU and `slots` elsewhere.
        device: "cpu", "cuda", "cuda:1", "mps" …
        dtype: in which it computes: one of `precision.DTYPES`.
        checkpoint_dir: where each trial's state is saved at each report, as `states` says, while
            training goes on; None saves nothing.
        decode: from token ids to text. With it, what an encoder–decoder writes in the end is
            compared with the targets.
        starts: where `warm_start.keep` has put what warm-started trials begin with.

    Attributes:
        failures: trials that could not begin, or do not fit into memory even alone, and why. They
            make no report; who admits trials takes them out.
    """

    def __init__(
        self,
        train: Tokens | PairDataset,
        validation: Tokens | PairDataset,
        *,
        slots: int = 2,
        width: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        checkpoint_dir: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
        starts: Path | None = None,
    ) -> None:
        self._train, self._validation = _reading(train), _reading(validation)
        self.device = torch.device(device)
        self.precision = Precision.of(dtype, self.device)
        self.precision.set_up(self.device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
            keep_freed()
        self._data = on_device(self._train, self.device)
        self.slots = slots
        self.width = width or (1 if self.device.type == "cpu" else slots)
        self._asked = self.slots, self.width
        self._checkpoint_dir = checkpoint_dir
        self._writer = Writer(LIMITS.get(self.device.type, LIMITS["cpu"]))
        self._reporter = Evaluator(self._validation, self._writer, checkpoint_dir, decode)
        self._starts = starts
        self._running: deque[ActiveStack] = deque()
        self._waiting: deque[TrialRequest] = deque()
        self._made: deque[PendingReport] = deque()  # reports that have not gone out
        self.failures: dict[str, Exception] = {}
        self.training_seconds = 0.0  # spent in ticks, without validation and checkpoints
        self.tokens = 0  # trained
        self.occupancy = Occupancy()

    @property
    def load(self) -> int:
        """Trials in training or waiting, and reports and states that are on their way out."""
        return len(self._waiting) + self._active + len(self._made) + self._writer.load

    @property
    def _active(self) -> int:
        return sum(len(running.training) for running in self._running)

    def admit(
        self,
        trial_id: str,
        spec: TrialSpec,
        resume: Path | CheckpointRef | None = None,
        after: int = 0,
    ) -> None:
        """Queue a trial for the next free slot.

        Args:
            trial_id: names the trial in its reports.
            spec: what to train. If it continues others, they are trained first, without reports,
                as far as `resume` does not go.
            resume: a state of the same specification, or of one that it continues, to go on from:
                a checkpoint, which must be readable; or the newest readable one at most of an
                update of some trial in `checkpoint_dir`; if there is none, the trial begins anew.
            after: reports up to this update have been made and are not repeated.

        Raises:
            ValueError: if the specification is not of the engine's data, or nothing is left to
                report.
        """
        self._check(spec)
        if after >= spec.hyperparameters.total_steps:
            raise ValueError(f"the trial has made its last report, at update {after}")
        resumes = () if resume is None else (resume,)
        self._waiting.append(TrialRequest(trial_id, spec, resumes, after))

    def slots_for(self, spec: TrialSpec, file: Path) -> int:
        """How many trials like one this device should train at one time (`calibration`)."""
        trained_on = Setup(self._train, self.device, self.precision, self._data)
        return slots_for(spec, trained_on, file)

    def _check(self, spec: TrialSpec) -> None:
        a = spec.architecture
        if (a.n_encoder_layers > 0) != isinstance(self._train, PairDataset):
            raise ValueError("an encoder–decoder needs an engine with pairs, and only it does")
        for name, wanted, data in (
            ("training", spec.train_sequences, self._train),
            ("validation", spec.validation_sequences, self._validation),
        ):
            if wanted > data.num_sequences(a):
                raise ValueError(
                    f"the specification reads {wanted} {name} sequences, and the engine's data "
                    f"have {data.num_sequences(a)}"
                )

    def stop(self, trial_id: str) -> None:
        """Free a trial's slot, or take it from the queue; an unknown trial is no error.

        Its reports that have not gone out do not, nor do their states remain.
        """
        for made in [made for made in self._made if made.report.trial_id == trial_id]:
            self._made.remove(made)
            if made.saving is not None:
                self._writer.discard(made.saving)
        self._waiting = deque(w for w in self._waiting if w.trial_id != trial_id)
        for running in self._running:
            for row in running.training:
                if running.slots[row].trial_id == trial_id:
                    running.slots[row] = Slot()
        self._count()

    def acknowledge(self, trial_id: str, step: int) -> None:
        """A report is safe elsewhere: states older than the one before it are deleted."""
        if self._checkpoint_dir is not None:
            states.drop_before(self._checkpoint_dir, CheckpointRef(trial_id, step))

    def forget(self, trial_id: str) -> None:
        """Delete all saved states of a trial, which has been stopped; none comes after."""
        if self._checkpoint_dir is not None:
            self._writer.wait_for(trial_id)
            states.drop(self._checkpoint_dir, trial_id)

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Report]:
        """Train all specifications to the end; trial i is called str(i).

        `stop(report.trial_id)` between two reports stops a trial early.

        Raises:
            Exception: why a trial could not begin, or does not fit into memory.
        """
        for number, spec in enumerate(specs):
            self.admit(str(number), spec)
        while self.load:
            yield from self.turn()
            for error in self.failures.values():
                raise error

    def turn(self) -> list[Report]:
        """Train the next stack for one quantum.

        Returns:
            The reports whose states are safely on the disk, in the order in which they were
            reached, and one of a trial, which may be stopped because of it; the others come in
            later turns. With nothing to train it waits for them a little.
        """
        self._fill_slots()
        self._count()
        if self._running:
            self._running.rotate(-1)
            self._advance(self._running[-1])
            self._count()
        elif not (self._made and self._made[0].is_ready):
            self._writer.wait(_PATIENCE_SECONDS)
        ready: dict[str, Report] = {}
        while self._made and self._made[0].is_ready:
            trial_id = self._made[0].report.trial_id
            if trial_id in ready:
                break
            ready[trial_id] = self._made.popleft().delivered()
        return list(ready.values())

    # slots ----------------------------------------------------------------------------------

    def _count(self) -> None:
        """Note how many slots hold a trial from now on."""
        self.occupancy = self.occupancy.after(self._active, self.slots)

    def _fill_slots(self) -> None:
        """Give free slots to waiting trials, first come first served."""
        while self._waiting and self._active < self.slots:
            admission = self._waiting.popleft()
            try:
                self._place(admission)
            except Exception as error:
                if is_out_of_memory(error):
                    reason = str(error)
                elif isinstance(error, ValueError | OSError):
                    self.failures[admission.trial_id] = error
                    continue
                else:
                    raise
            else:
                continue
            # here, and not above: the traceback of an error keeps its tensors alive
            self._narrow(self.width, [admission], reason)
            break
        self._drop_empty_stacks()

    def _drop_empty_stacks(self) -> None:
        self._running = deque(running for running in self._running if running.training)

    def _place(self, admission: TrialRequest) -> None:
        """Put a trial into a row of a stack of its shape, made if there is none."""
        self._wait_for_states(admission)
        slot, state = start_trial(admission, self._checkpoint_dir, self._starts)
        shape = _shape(slot.spec)
        for running in self._running:
            if running.shape == shape and running.free is not None:
                break
        else:
            self._drop_empty_stacks()  # before another one takes their memory
            a, on = slot.spec.architecture, self.device
            stack = Stack(a, self.width, on, precision=self.precision, data=self._data)
            running = ActiveStack(slot.spec, stack, self._train)
            self._running.append(running)
        row = running.free
        assert row is not None
        averaged = slot.spec.hyperparameters.ema_decay > 0
        running.stack.load(row, slot.spec.seed, state, averaged=averaged)
        running.slots[row] = slot

    def _wait_for_states(self, admission: TrialRequest) -> None:
        """Have on the disk what a trial may go on from."""
        places = (at.trial_id for at in admission.resumes if isinstance(at, CheckpointRef))
        for trial_id in {admission.trial_id, *places}:
            self._writer.wait_for(trial_id)

    def _narrow(self, width: int, again: Sequence[TrialRequest], reason: str) -> None:
        """Make do with less memory: trials that found none wait for smaller stacks.

        One that finds none although nothing else is there fails. It may have been what others
        made room for in vain, so they get their room back.

        Args:
            width: of the stack that memory did not suffice for.
            again: trials without a slot, in the order in which they shall get one.
            reason: what the device said.
        """
        give_back(self.device)
        if width == 1 and self._active == 0:
            (alone,) = again
            self.failures[alone.trial_id] = RuntimeError(
                f"out of memory: the trial does not fit on {self.device} even alone ({reason})"
            )
            self.slots, self.width = self._asked
            return
        if width > 1:
            self.slots = max(1, self.slots // 2)
            self.width = min(self.width, width // 2, self.slots)
        else:
            self.slots = max(1, min(self.slots - 1, self._active + len(again) - 1))
        self._waiting.extendleft(reversed(again))

    # a turn: plan, compute, settle ----------------------------------------------------------

    def _advance(self, running: ActiveStack) -> None:
        """Train a stack for one quantum; if memory runs out, take it apart."""
        try:
            started = time.perf_counter()
            plan = running.planner.next(running.slots)
            wait = running.stack.run(plan)
            if self.device.type != "cpu":  # which would be done by now
                running.planner.look_ahead(running.slots, plan)
            losses, norms = wait()
            self.training_seconds += time.perf_counter() - started
            trained = len(running.training) * len(losses)
            self.tokens += trained * running.shape[1] * running.shape[0].context_length
            self._settle(running, plan, losses, norms)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        else:
            return
        self._running.remove(running)
        problem = "memory ran out; the trial went on from its last report in a smaller stack"
        again = [running.slots[row].again(problem) for row in running.training]
        width = running.stack.width
        del running  # and with it the memory
        self._narrow(width, again, reason)

    def _settle(self, running: ActiveStack, plan: Plan, losses: Floats, norms: Floats) -> None:
        """Account for a quantum and report the slots that diverged or reached a report."""
        reached = []
        for row in running.training:
            slot = running.slots[row]
            ticks = (plan.due, plan.weight, losses, norms)
            if not slot.account(*(array[:, row].tolist() for array in ticks)):
                self._made.append(self._reporter.diverged(slot))
                running.slots[row] = Slot()
            elif slot.is_at_report:
                reached.append(row)
        for row, made in self._reporter.at_report(running.stack, running.slots, reached):
            slot, status = running.slots[row], made.report.status
            if not slot.is_silent or status is Status.DIVERGED:
                self._made.append(made)
                slot.reported, slot.problem = slot.step, None
            slot.begin_interval(made.report.val_loss)
            if status is not Status.TRAINING:
                running.slots[row] = Slot()


def _reading(data: Tokens | PairDataset) -> Dataset:
    return data if isinstance(data, PairDataset) else TextDataset(data)
