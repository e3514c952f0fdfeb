"""Ray actor that runs an engine on one device.

The engine runs in its own thread. The event loop of the actor sends commands to this thread and
receives reports from it; neither thread touches the state of the other.

A client pulls the reports of all trials. A worker never sends one unasked, and sends it again until
the client says that it has it, so that a lost answer loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.errors import StorageError
from tuner.storage.states import States
from tuner.workers.assignment import Assignment
from tuner.workers.batch import ALL_STEPS, Failure, ReportBatch
from tuner.workers.load import ProcessMeter
from tuner.workers.watchdog import node_id

if TYPE_CHECKING:  # these import torch, which the driver must not wait for
    from model.checkpoints.store import CheckpointRef
    from model.corpus.data import Data
    from model.sources.choices import ChoiceSet

# Delay before a broken worker exits, so that its client receives the reason.
_EXIT_DELAY_SECONDS = 1.0


class _Segment:
    """Segment of a trial from its start on this worker to its stop; only for the event loop.

    Args:
        assignment: the order to train it.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.segment
        self.sent = assignment.after  # step of the last report that the client has, or needs not
        self.error = ""  # why it cannot be trained

    def continue_as(self, assignment: Assignment) -> None:
        """Continue as a later assignment of the trial: the client asks from its beginning on."""
        if assignment.segment > self.number:
            self.number, self.sent = assignment.segment, assignment.after


class Worker:
    """Trains the assignments of one device with one engine.

    Args:
        train: training tokens, pairs or examples, shared through Ray's object store.
        validation: validation tokens, pairs or examples, shared in this way too.
        slots: number of trials in training at one time.
        device: "cpu", "cuda" or "mps".
        checkpoint_dir: folder in which reports save their checkpoints.
        starts: folder of the weights that warm-started trials start from.
        decode: function from token ids to text, for the outputs of encoder–decoders.
        choices: questions on which models are evaluated; None for none.
        dtype: dtype of the computation; "auto" lets the device choose.
        is_compiled: True to run compiled ticks.
        storage: URL of the search in storage, which gets the checkpoints; empty without one.
    """

    def __init__(
        self,
        train: Data,
        validation: Data,
        slots: int,
        device: str,
        checkpoint_dir: str,
        starts: str,
        decode: Callable[[list[int]], str] | None = None,
        choices: ChoiceSet | None = None,
        *,
        dtype: str = "float32",
        is_compiled: bool = False,
        storage: str = "",
    ) -> None:
        from model.device.compiler import check_compiler
        from model.device.environment import NOT_COMPILED, computing_dtype
        from model.engine.engine import Engine

        self._states = States(storage, Path(checkpoint_dir), Path(starts))
        self._dtype = computing_dtype(dtype, device)
        self._compiled = check_compiler() if is_compiled else NOT_COMPILED
        self._engine = Engine(
            train,
            validation,
            slots=slots,
            device=device,
            dtype=self._dtype,
            is_compiled=is_compiled,
            checkpoint_dir=self._states.folder,
            starts=self._states.starts,
            decode=decode,
            choices=choices,
        )
        self._device = device
        self._meter = ProcessMeter(device)
        self._segments: dict[str, _Segment] = {}
        self._stopped: dict[str, int] = {}  # trial → number of its last assignment that was stopped
        self._outbox: list[tuple[_Segment, Report]] = []  # until they are in the journal
        self._changed = asyncio.Event()  # something may be ready to send
        self._broken = ""  # why the engine's thread has died
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # A queue from the event loop to the engine's thread; the rest belongs to that thread, and
        # the event loop only reads the two counters.
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in_engine: dict[str, _Segment] = {}  # trials whose reports the engine will make
        self._engine_steps = 0
        self._first_turn = math.inf  # seconds since the epoch

    async def environment(self) -> dict[str, str]:
        """Return device, dtype and versions."""
        from model.device.environment import environment

        return environment(self._device, self._dtype, self._engine.width, self._compiled)

    async def slots_for(self, spec: str, file: str) -> int:
        """Return the number of trials like `spec` that the device should train at one time.

        Call this before the first `start`: it measures on the device.

        Args:
            spec: a `TrialSpec` as JSON.
            file: file of earlier measurements.
        """
        parsed = TrialSpec.model_validate_json(spec)
        return await asyncio.to_thread(self._engine.slots_for, parsed, Path(file))

    async def start(self, assignment: Assignment) -> None:
        """Queue a trial for the engine; a trial that is queued or in training continues.

        A specification that cannot be read fails the assignment, as `next_reports` says. An engine
        that broke takes no trial: the driver starts it again when the worker is back.
        """
        trial_id = assignment.trial_id
        if self._broken or assignment.segment <= self._stopped.get(trial_id, -1):
            return  # the stop of this very assignment has overtaken it
        segment = self._segments.get(trial_id)
        if segment is not None:
            segment.continue_as(assignment)
            self._changed.set()
            return
        segment = self._segments[trial_id] = _Segment(assignment)
        for report in assignment.reports:
            self._send(segment, replace(report, trial_id=trial_id))
        if assignment.is_reused:
            return
        try:
            spec = TrialSpec.model_validate_json(assignment.spec)
        except ValueError as error:
            self._refuse(segment, f"invalid specification: {error}")
            return
        source = assignment.source
        if self._states.has_storage:
            try:
                start = None if spec.init_from is None else spec.init_from.sha256
                await asyncio.to_thread(self._states.fetch_all, source, start)
            except StorageError as error:
                self._refuse(segment, str(error))
                return
            if self._segments.get(trial_id) is not segment:  # it was stopped meanwhile
                return
        from model.checkpoints.store import CheckpointRef

        resume = None if source is None else CheckpointRef(*source)
        after = max(assignment.after, assignment.step_copied)
        self._submit(partial(self._admit, segment, trial_id, spec, resume, after))

    async def next_reports(self, received: Mapping[int, int]) -> ReportBatch:
        """Wait until a trial has a report, or cannot go on; return all such news.

        Args:
            received: what the caller has received from this worker (`ReportBatch.received`). All
                that has not been received is sent again, so that a lost answer loses nothing.
        """
        for segment in self._segments.values():
            segment.sent = max(segment.sent, received.get(segment.number, 0))
        while True:
            batch = self._batch()
            if self._is_over or batch != ReportBatch():
                return batch
            self._changed.clear()
            await self._changed.wait()

    def _batch(self) -> ReportBatch:
        """Return all news that can be sent."""
        return ReportBatch(
            tuple(
                (segment.number, report)
                for segment, report in self._outbox
                if report.step > segment.sent
            ),
            tuple(
                Failure(segment.number, trial_id, segment.error)
                for trial_id, segment in self._segments.items()
                if segment.error and segment.sent < ALL_STEPS
            ),
            self._broken,
        )

    async def end_waiting(self) -> None:
        """Let `next_reports` return at once from now on: the search is over."""
        self._is_over = True
        self._changed.set()

    async def prune_checkpoints(
        self, trial_id: str, step: int, needed: Collection[int] = ()
    ) -> None:
        """Delete checkpoints older than the one before `step`, whose report is recorded.

        Args:
            trial_id: number of the trial.
            step: step of the report.
            needed: steps of checkpoints that remain, because other trials have yet to start there.
        """
        self._outbox = [
            (segment, report)
            for segment, report in self._outbox
            if report.trial_id != trial_id or report.step > step
        ]
        self._submit(partial(self._engine.prune_checkpoints, trial_id, step, needed))
        self._states.prune(trial_id, step, needed)

    async def stop(self, trial_id: str, segment: int, keep: bool = True) -> None:
        """Free the slot of a trial; calling it again changes nothing.

        Args:
            trial_id: number of the trial.
            segment: number of its assignment. The trial may be resumed at once, and the calls of
                the driver may overtake each other: a later assignment is not stopped.
            keep: False to delete the checkpoints of the trial.
        """
        self._stopped[trial_id] = max(segment, self._stopped.get(trial_id, -1))
        current = self._segments.get(trial_id)
        if current is not None and current.number > segment:
            return
        self._segments.pop(trial_id, None)
        self._outbox = [pair for pair in self._outbox if pair[0] is not current]
        self._submit(partial(self._free, trial_id, keep))

    async def send_states(self, seconds: float) -> int:
        """Wait until storage has the newest state of all trials; return how many it lacks.

        Args:
            seconds: longest wait.
        """
        return await asyncio.to_thread(self._states.wait, seconds)

    async def forget_states(self) -> None:
        """Delete the checkpoints on a node that does not see the home; nothing trains any more."""
        self._states.forget()

    async def ping(self) -> dict[str, Any]:
        """Answer as long as the process lives.

        Returns:
            pid; host, id of its node in Ray; engine_steps, number of steps of the engine.
        """
        return {
            "pid": os.getpid(),
            "host": node_id(),
            "engine_steps": self._engine_steps,
        }

    async def measure_load(self) -> dict[str, float]:
        """Measure the load of process and device since the last call (`load.ProcessMeter`).

        A thread measures, so that a GPU driver that hangs does not block the event loop. Call
        this again only after it has returned.
        """
        return await asyncio.to_thread(self._meter.read)

    async def usage(self) -> dict[str, float]:
        """Return counters of the engine.

        Returns:
            training_seconds and tokens of the training so far; slots, as many as memory allows;
            first_turn, time at which the first trial started to train, in seconds since the epoch;
            seconds since then, of which idle_seconds had no trial at all, and free_slot_seconds,
            the sum over slots of their seconds without a trial.
        """
        engine = self._engine
        occupancy = engine.occupancy.now()
        return {
            "training_seconds": engine.training_seconds,
            "tokens": float(engine.tokens),
            "slots": float(engine.slots),
            "first_turn": self._first_turn,
            "seconds": occupancy.seconds,
            "idle_seconds": occupancy.idle_seconds,
            "free_slot_seconds": occupancy.free_slot_seconds,
        }

    def _submit(self, command: Callable[[], None]) -> None:
        """Send a command to the engine's thread; the first command starts the thread.

        After a restart by Ray there is no other call that could start it.
        """
        self._commands.put(command)
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run_engine, name="engine", daemon=True)
            self._thread.start()

    # the engine's thread --------------------------------------------------------------------

    def _run_engine(self) -> None:
        """Run commands and step the engine forever; sleep while there is nothing to train."""
        try:
            while True:
                self._run_commands(wait=self._engine.num_pending == 0)
                if self._first_turn == math.inf and self._engine.num_pending:
                    self._first_turn = time.time()
                for report in self._engine.step():
                    segment = self._in_engine[report.trial_id]
                    if report.checkpoint is not None:
                        self._states.saved(report.trial_id, Path(report.checkpoint))
                    self._call_in_loop(self._send, segment, report)
                    if report.status is not Status.TRAINING:
                        del self._in_engine[report.trial_id]
                while self._engine.failures:
                    self._fail(*self._engine.failures.popitem())
                self._engine_steps += 1
        except Exception as error:  # noqa: BLE001 - the thread ends; every client needs the reason
            traceback.print_exception(error)
            self._call_in_loop(self._break, error)

    def _run_commands(self, *, wait: bool) -> None:
        while wait or not self._commands.empty():
            self._commands.get()()
            wait = False

    def _admit(
        self,
        segment: _Segment,
        trial_id: str,
        spec: TrialSpec,
        resume: CheckpointRef | None,
        after: int,
    ) -> None:
        self._in_engine[trial_id] = segment
        try:
            self._engine.add_trial(trial_id, spec, resume=resume, after=after)
        except ValueError as error:
            self._fail(trial_id, error)

    def _fail(self, trial_id: str, error: Exception) -> None:
        segment = self._in_engine.pop(trial_id)
        self._call_in_loop(self._refuse, segment, str(error))

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the event loop; do nothing if the loop is closed."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _free(self, trial_id: str, keep: bool) -> None:
        self._in_engine.pop(trial_id, None)
        self._engine.stop(trial_id)
        if not keep:
            self._engine.delete_checkpoints(trial_id)
            self._states.delete(trial_id)

    # the event loop again -------------------------------------------------------------------

    def _send(self, segment: _Segment, report: Report) -> None:
        """Put a report into the outbox, unless its trial was stopped meanwhile."""
        if self._segments.get(report.trial_id) is segment:
            self._outbox.append((segment, report))
            self._changed.set()

    def _refuse(self, segment: _Segment, reason: str) -> None:
        """Note that an assignment cannot be trained; the first reason counts."""
        segment.error = segment.error or _in_one_line(reason)
        self._changed.set()

    def _break(self, error: Exception) -> None:
        """Let the client know, then exit: Ray restarts the worker."""
        assert self._loop is not None
        self._broken = f"the engine broke: {type(error).__name__}: {_in_one_line(str(error))}"
        self._changed.set()
        self._loop.call_later(_EXIT_DELAY_SECONDS, _exit_process)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _exit_process() -> None:
    os._exit(1)
