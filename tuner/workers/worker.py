"""The Ray actor that runs an engine on one device.

The engine turns in a thread of its own; the actor's event loop passes orders in and reports out.
Clients pull: a report is delivered as often as it is asked for, so that a lost answer costs
nothing, and nothing is delivered to one who has not asked.
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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.errors import TrialError, WorkerError
from tuner.workers.load import ProcessMeter

if TYPE_CHECKING:  # they bring torch, which the driver need not wait for
    from model.checkpoints.store import CheckpointRef
    from model.corpus.dataset import Tokens
    from model.corpus.pairs import PairDataset

# How long a worker whose engine broke lives on, so that all who wait hear of what.
_LAST_WORDS_SECONDS = 1.0


class _Segment:
    """A trial that is served, from its start to its stop, as the event loop sees it.

    Args:
        after: update of the last report that is known to whoever started it.
    """

    def __init__(self, after: int) -> None:
        self.after = after
        self.error: Exception | None = None  # instead of further reports
        self.news = asyncio.Event()
        self._reports: dict[int, Report] = {}

    def add(self, report: Report) -> None:
        """A report was made."""
        self._reports[report.step] = report
        self.news.set()

    def fail(self, error: Exception) -> None:
        """No more reports will be made."""
        self.error = self.error or error
        self.news.set()

    def next(self, after: int) -> Report | None:
        """The first report after an update, if it has been made."""
        return next((self._reports[step] for step in sorted(self._reports) if step > after), None)


class Worker:
    """Serves trials from one engine.

    Args:
        train: training tokens or pairs, shared through Ray's object store.
        validation: likewise.
        slots: trials in training at one time.
        device: "cpu", "cuda" or "mps".
        checkpoint_dir: where states are saved at reports.
        starts: where what warm-started trials start with lies.
        decode: from token ids to text, for what encoder–decoders write.
        dtype: in which it computes; "auto" leaves that to the device.
        gated: whether reports are held back until `allow`.
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
        gated: bool = False,
    ) -> None:
        from model.device.environment import computing_dtype
        from model.engine.engine import Engine

        self._dtype = computing_dtype(dtype, device)
        self._engine = Engine(
            train,
            validation,
            slots=slots,
            device=device,
            dtype=self._dtype,
            checkpoint_dir=Path(checkpoint_dir),
            starts=Path(starts),
            decode=decode,
        )
        self._device, self._gated = device, gated
        self._meter = ProcessMeter(device)
        self._legs: dict[str, _Segment] = {}
        self._allowed: dict[str, int] = {}  # trial → update of the last report that may go out
        self._broken: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # of the engine's thread
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._served: dict[str, _Segment] = {}
        self._turns = 0
        self._first_turn = math.inf

    async def environment(self) -> dict[str, str]:
        """Device, dtype and versions."""
        from model.device.environment import environment

        return environment(self._device, self._dtype, self._engine.width)

    async def slots_for(self, spec: str, file: str) -> int:
        """How many trials like one its device should train at one time; while none is started.

        Args:
            spec: a `TrialSpec` as JSON.
            file: of what was measured before.
        """
        parsed = TrialSpec.model_validate_json(spec)
        return await asyncio.to_thread(self._engine.slots_for, parsed, Path(file))

    async def start(
        self,
        trial_id: str,
        spec: str,
        after: int = 0,
        source: tuple[str, int] | None = None,
        reports: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Admit a trial; one that is open trains on.

        Args:
            trial_id: unique in the search.
            spec: a `TrialSpec` as JSON.
            after: reports up to this update are not made again.
            source: the trial whose states to go on from, at most of an update.
            reports: of an equal trial that has finished, as fields; delivered instead of training.

        Raises:
            TrialError: if the specification is none.
            WorkerError: what the engine died of, if it did.
        """
        if self._broken is not None:
            raise self._broken
        leg = self._legs.get(trial_id)
        if leg is not None:
            leg.after = max(leg.after, after)
            return
        leg = _Segment(after)
        if reports is not None:
            for fields in reports:
                leg.add(Report.of(trial_id, fields))
        else:
            try:
                parsed = TrialSpec.model_validate_json(spec)
            except ValueError as error:
                raise TrialError(f"the specification is none: {error}") from error
            from model.checkpoints.store import CheckpointRef

            resume = None if source is None else CheckpointRef(*source)
            self._order(partial(self._admit, leg, trial_id, parsed, resume, after))
        self._legs[trial_id] = leg

    async def next_report(self, trial_id: str, after: int) -> Report:
        """Wait for a trial's first report after an update, and until it may go out.

        Raises:
            TrialError: if the trial cannot be trained, is stopped or was never started.
            WorkerError: what the engine died of, if it did.
        """
        leg = self._legs.get(trial_id)
        if leg is None:
            raise self._broken or TrialError(f"trial {trial_id} is not in training here")
        while True:
            report = leg.next(after)
            if report is not None and self._may_go_out(report):
                return report
            if leg.error is not None:
                raise leg.error
            leg.news.clear()
            await leg.news.wait()

    def _may_go_out(self, report: Report) -> bool:
        return not self._gated or report.step <= self._allowed.get(report.trial_id, 0)

    async def allow(self, trial_id: str, step: int) -> None:
        """Let reports of a trial up to an update go out; repeating it does no harm."""
        self._allowed[trial_id] = max(step, self._allowed.get(trial_id, 0))
        if trial_id in self._legs:
            self._legs[trial_id].news.set()

    async def acknowledge(self, trial_id: str, step: int) -> None:
        """A report is safe: older states of the trial than the one before it are deleted."""
        self._order(partial(self._engine.prune_checkpoints, trial_id, step))

    async def stop(self, trial_id: str, keep: bool = True, step: int | None = None) -> None:
        """Free a trial's slot and forget its gate; repeating it does no harm.

        Args:
            trial_id: the trial.
            keep: whether its states are kept.
            step: the report that decided it, if one did. If the trial was started again to go on
                from there, the order has come too late, and is none.
        """
        leg = self._legs.get(trial_id)
        if leg is not None and step is not None and leg.after >= step:
            return
        self._legs.pop(trial_id, None)
        self._allowed.pop(trial_id, None)
        if leg is not None:
            leg.fail(TrialError(f"trial {trial_id} was stopped"))
        self._order(partial(self._free, trial_id, keep))

    async def pulse(self) -> dict[str, Any]:
        """Signs of life, which come as long as the process lives.

        Returns:
            pid and host; turns, how often the engine turned; is_well, whether it is not broken.
        """
        return {
            "pid": os.getpid(),
            "host": platform.node(),
            "turns": self._turns,
            "is_well": self._broken is None,
        }

    async def vitals(self) -> dict[str, float]:
        """How busy process and device are (`vitals.Meter`); a driver that hangs holds up nothing.

        One call at a time: what is measured is measured since the call before.
        """
        return await asyncio.to_thread(self._meter.read)

    async def usage(self) -> dict[str, float]:
        """What the engine did so far.

        Returns:
            training_seconds and tokens, spent and trained; slots, that memory allows; first_turn,
            when the first trial began to train, in seconds since the epoch; seconds since then,
            and of them idle_seconds without any trial and free_slot_seconds without one in a slot.
        """
        engine = self._engine
        full = engine.occupancy.now()
        return {
            "training_seconds": engine.training_seconds,
            "tokens": float(engine.tokens),
            "slots": float(engine.slots),
            "first_turn": self._first_turn,
            "seconds": full.seconds,
            "idle_seconds": full.idle_seconds,
            "free_slot_seconds": full.free_slot_seconds,
        }

    def _order(self, order: Callable[[], None]) -> None:
        """Have the engine's thread do something; the first order starts it.

        After a restart by Ray there is nobody else to do that.
        """
        self._orders.put(order)
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._turn, name="engine", daemon=True)
            self._thread.start()

    # the engine's thread --------------------------------------------------------------------

    def _turn(self) -> None:
        """Follow orders and turn the engine, for ever; sleep while there is nothing to train."""
        try:
            while True:
                self._follow_orders(wait=self._engine.num_pending == 0)
                if self._first_turn == math.inf and self._engine.num_pending:
                    self._first_turn = time.time()
                for report in self._engine.step():
                    leg = self._served[report.trial_id]
                    self._tell(leg.add, report)
                    if report.status is not Status.TRAINING:
                        del self._served[report.trial_id]
                while self._engine.failures:
                    self._fail(*self._engine.failures.popitem())
                self._turns += 1
        except Exception as error:  # noqa: BLE001 - the thread ends; every client must hear why
            traceback.print_exception(error)
            self._tell(self._break, error)

    def _follow_orders(self, *, wait: bool) -> None:
        while wait or not self._orders.empty():
            self._orders.get()()
            wait = False

    def _admit(
        self,
        leg: _Segment,
        trial_id: str,
        spec: TrialSpec,
        resume: CheckpointRef | None,
        after: int,
    ) -> None:
        self._served[trial_id] = leg
        try:
            self._engine.add_trial(trial_id, spec, resume=resume, after=after)
        except ValueError as error:
            self._fail(trial_id, error)

    def _fail(self, trial_id: str, error: Exception) -> None:
        leg = self._served.pop(trial_id)
        self._tell(leg.fail, TrialError(str(error)))

    def _tell(self, do: Callable[..., None], *what: Any) -> None:
        """Have the event loop do something; if it was closed, nobody listens any more."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(do, *what)

    def _free(self, trial_id: str, keep: bool) -> None:
        self._served.pop(trial_id, None)
        self._engine.stop(trial_id)
        if not keep:
            self._engine.delete_checkpoints(trial_id)

    # the event loop again -------------------------------------------------------------------

    def _break(self, error: Exception) -> None:
        """Tell everyone what the engine died of, and end: Ray starts the worker again."""
        assert self._loop is not None
        self._broken = WorkerError(f"the engine broke: {type(error).__name__}: {error}")
        for leg in self._legs.values():
            leg.fail(self._broken)
        self._loop.call_later(_LAST_WORDS_SECONDS, _end_process)


def _end_process() -> None:
    os._exit(1)
