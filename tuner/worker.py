"""The Ray actor that runs an engine on one device.

The engine turns in a thread of its own; the actor's event loop passes orders in and reports out.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.pairs import Pairs
from model.reading import Tokens
from model.report import Report
from model.spec import TrialSpec


class Worker:
    """Serves trials from one engine.

    Args:
        train: training tokens or pairs, shared through Ray's object store.
        validation: likewise.
        slots: trials in training at one time.
        device: "cpu" or "cuda".
        checkpoint_dir: where states are saved at reports.
        starts: where what warm-started trials start with lies.
        decode: from token ids to text, for what encoder–decoders write.
    """

    def __init__(
        self,
        train: Tokens | Pairs,
        validation: Tokens | Pairs,
        slots: int,
        device: str,
        checkpoint_dir: str,
        starts: str,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        from model.engine import Engine

        self._engine = Engine(
            train,
            validation,
            slots=slots,
            device=device,
            checkpoint_dir=Path(checkpoint_dir),
            starts=Path(starts),
            decode=decode,
        )
        self._device = device
        self._open: set[str] = set()  # trials admitted and not ended, as the event loop sees them
        self._orders: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._reports: defaultdict[str, asyncio.Queue[Report | Exception]] = defaultdict(
            asyncio.Queue
        )
        self._broken: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._turn, name="engine", daemon=True)

    async def environment(self) -> dict[str, str]:
        """Device and versions; also starts the engine."""
        from model.environment import environment

        self._loop = asyncio.get_running_loop()
        if not self._thread.is_alive():
            self._thread.start()
        return environment(self._device)

    async def load(self) -> int:
        """Trials that train or wait here.

        Raises:
            Exception: what the engine died of, if it did: it must not attract trials.
        """
        if self._broken is not None:
            raise self._broken
        return len(self._open)

    async def start(self, trial_id: str, spec: str, most: int) -> bool:
        """Admit a trial unless `most` are here already.

        Args:
            trial_id: unique in the search.
            spec: a `TrialSpec` as JSON.
            most: trials that may be here before.

        Returns:
            Whether it was admitted.
        """
        if len(self._open) > most:
            return False
        self._open.add(trial_id)
        self._orders.put(("admit", (trial_id, TrialSpec.model_validate_json(spec))))
        return True

    async def next_report(self, trial_id: str) -> Report:
        """Wait for a trial's next report.

        Raises:
            Exception: what the engine died of, if it did.
        """
        if self._broken is not None:
            raise self._broken
        report = await self._reports[trial_id].get()
        if isinstance(report, Exception):
            raise report
        return report

    async def stop(self, trial_id: str) -> None:
        """Free a trial's slot; repeating it does no harm."""
        self._open.discard(trial_id)
        self._reports.pop(trial_id, None)
        self._orders.put(("stop", trial_id))

    async def usage(self) -> dict[str, float]:
        """Seconds spent in training and tokens trained so far."""
        engine = self._engine
        return {"training_seconds": engine.training_seconds, "tokens": float(engine.tokens)}

    # the engine's thread --------------------------------------------------------------------

    def _turn(self) -> None:
        """Follow orders and turn the engine, for ever; sleep while there is nothing to train."""
        assert self._loop is not None
        try:
            while True:
                self._follow_orders(wait=self._engine.load == 0)
                for report in self._engine.turn():
                    self._loop.call_soon_threadsafe(self._deliver, report)
        except Exception as error:  # noqa: BLE001 - the thread ends; every client must hear why
            self._loop.call_soon_threadsafe(self._break, error)

    def _follow_orders(self, *, wait: bool) -> None:
        while wait or not self._orders.empty():
            kind, order = self._orders.get()
            if kind == "admit":
                self._engine.admit(*order)
            else:
                self._engine.stop(order)
            wait = False

    def _deliver(self, report: Report) -> None:
        if report.trial_id in self._open:
            self._reports[report.trial_id].put_nowait(report)

    def _break(self, error: Exception) -> None:
        self._broken = error
        for reports in self._reports.values():
            reports.put_nowait(error)
