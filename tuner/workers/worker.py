"""Ray actor that runs an engine on one device.

The engine runs in its own thread. The event loop of the actor sends commands to this thread and
receives reports from it; neither thread touches the state of the other.

Clients pull reports: a worker returns a report as often as a client asks for it, so that a lost
answer loses nothing, and never sends one unasked.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.errors import TrialError, WorkerError
from tuner.workers.assignment import Assignment
from tuner.workers.load import ProcessMeter

if TYPE_CHECKING:  # these import torch, which the driver must not wait for
    from model.checkpoints.store import CheckpointRef
    from model.corpus.dataset import Tokens
    from model.corpus.pairs import PairDataset

# Delay before a broken worker exits, so that waiting clients receive the error.
_EXIT_DELAY_SECONDS = 1.0


class _Segment:
    """Segment of a trial from its start on this worker to its stop; only for the event loop.

    Args:
        after: step of the last report that the driver has recorded.
    """

    def __init__(self, after: int) -> None:
        self.after = after
        self.error: Exception | None = None  # raised in place of further reports
        self.changed = asyncio.Event()  # a report, an error or a release has come
        self._reports: dict[int, Report] = {}

    def add(self, report: Report) -> None:
        """Store a report."""
        self._reports[report.step] = report
        self.changed.set()

    def fail(self, error: Exception) -> None:
        """Store the error that ends the segment; the first one counts."""
        self.error = self.error or error
        self.changed.set()

    def next(self, after: int) -> Report | None:
        """Return the first report after a step; None if the engine has not made it yet."""
        return next((self._reports[step] for step in sorted(self._reports) if step > after), None)


class Worker:
    """Trains the assignments of one device with one engine.

    Args:
        train: training tokens or pairs, shared through Ray's object store.
        validation: validation tokens or pairs, shared in this way too.
        slots: number of trials in training at one time.
        device: "cpu", "cuda" or "mps".
        checkpoint_dir: folder in which reports save their checkpoints.
        starts: folder of the weights that warm-started trials start from.
        decode: function from token ids to text, for the outputs of encoder–decoders.
        dtype: dtype of the computation; "auto" lets the device choose.
        is_compiled: True to run compiled ticks.
        gated: True if reports are held back until `release_reports`.
    """

    def __init__(
        self,
        train: Tokens | PairDataset,
        validation: Tokens | PairDataset,
        slots: int,
        device: str,
        checkpoint_dir: str,
        starts: str,
        decode: Callable[[list[int]], str] | None = None,
        *,
        dtype: str = "float32",
        is_compiled: bool = False,
        gated: bool = False,
    ) -> None:
        from model.device.compiler import check_compiler
        from model.device.environment import NOT_COMPILED, computing_dtype
        from model.engine.engine import Engine

        self._dtype = computing_dtype(dtype, device)
        self._compiled = check_compiler() if is_compiled else NOT_COMPILED
        self._engine = Engine(
            train,
            validation,
            slots=slots,
            device=device,
            dtype=self._dtype,
            is_compiled=is_compiled,
            checkpoint_dir=Path(checkpoint_dir),
            starts=Path(starts),
            decode=decode,
        )
        self._device, self._gated = device, gated
        self._meter = ProcessMeter(device)
        self._segments: dict[str, _Segment] = {}
        self._released: dict[str, int] = {}  # trial → step of its last released report
        self._broken: Exception | None = None  # set when the engine's thread has died
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

        Raises:
            TrialError: if the specification is invalid.
            WorkerError: if the engine broke, with the reason.
        """
        if self._broken is not None:
            raise self._broken
        trial_id = assignment.trial_id
        segment = self._segments.get(trial_id)
        if segment is not None:
            # The driver starts each segment, and its client once more (in whichever order their
            # calls arrive), and again after a lost answer. `after` only grows: `stop` reads it.
            segment.after = max(segment.after, assignment.after)
            return
        segment = _Segment(assignment.after)
        if assignment.reports:
            for report in assignment.reports:
                segment.add(replace(report, trial_id=trial_id))
        else:
            try:
                spec = TrialSpec.model_validate_json(assignment.spec)
            except ValueError as error:
                raise TrialError(f"invalid specification: {error}") from error
            from model.checkpoints.store import CheckpointRef

            source = assignment.source
            resume = None if source is None else CheckpointRef(*source)
            self._submit(partial(self._admit, segment, trial_id, spec, resume, assignment.after))
        self._segments[trial_id] = segment

    async def next_report(self, trial_id: str, after: int) -> Report:
        """Wait for the first report of a trial after a step, and for its release.

        Raises:
            TrialError: if the trial cannot be trained, was stopped or was never started.
            WorkerError: if the engine broke, with the reason.
        """
        segment = self._segments.get(trial_id)
        if segment is None:
            raise self._broken or TrialError(f"this worker does not train trial {trial_id}")
        while True:
            report = segment.next(after)
            if report is not None and self._is_released(report):
                return report
            if segment.error is not None:
                raise segment.error
            segment.changed.clear()
            await segment.changed.wait()

    def _is_released(self, report: Report) -> bool:
        return not self._gated or report.step <= self._released.get(report.trial_id, 0)

    async def release_reports(self, trial_id: str, step: int) -> None:
        """Release the reports of a trial up to a step; may be called before `start`, and again."""
        self._released[trial_id] = max(step, self._released.get(trial_id, 0))
        if trial_id in self._segments:
            self._segments[trial_id].changed.set()

    async def prune_checkpoints(self, trial_id: str, step: int) -> None:
        """Delete checkpoints older than the one before `step`, whose report is recorded."""
        self._submit(partial(self._engine.prune_checkpoints, trial_id, step))

    async def stop(self, trial_id: str, keep: bool = True, step: int | None = None) -> None:
        """Free the slot of a trial and withdraw its releases; calling it again changes nothing.

        Args:
            trial_id: number of the trial.
            keep: False to delete the checkpoints of the trial.
            step: step of the report after which the trial was paused or stopped, if one was. The
                trial may be resumed from this report at once, and the calls of driver and client
                may overtake each other: if a segment after `step` has started, this call refers to
                the previous segment and is ignored.
        """
        segment = self._segments.get(trial_id)
        if segment is not None and step is not None and segment.after >= step:
            return
        self._segments.pop(trial_id, None)
        self._released.pop(trial_id, None)
        if segment is not None:
            segment.fail(TrialError(f"trial {trial_id} was stopped"))
        self._submit(partial(self._free, trial_id, keep))

    async def ping(self) -> dict[str, Any]:
        """Answer as long as the process lives.

        Returns:
            pid and host; engine_steps, number of steps of the engine; is_healthy, False once the
            engine is broken.
        """
        return {
            "pid": os.getpid(),
            "host": platform.node(),
            "engine_steps": self._engine_steps,
            "is_healthy": self._broken is None,
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
                    self._call_in_loop(segment.add, report)
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
        self._call_in_loop(segment.fail, TrialError(str(error)))

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

    # the event loop again -------------------------------------------------------------------

    def _break(self, error: Exception) -> None:
        """Pass the error to every client, then exit: Ray restarts the worker."""
        assert self._loop is not None
        self._broken = WorkerError(f"the engine broke: {type(error).__name__}: {error}")
        for segment in self._segments.values():
            segment.fail(self._broken)
        self._loop.call_later(_EXIT_DELAY_SECONDS, _exit_process)


def _exit_process() -> None:
    os._exit(1)
