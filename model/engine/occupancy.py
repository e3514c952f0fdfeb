"""How full the slots of an engine are, counted from the begin of its first trial."""

from __future__ import annotations

import time
from typing import NamedTuple


class Occupancy(NamedTuple):
    """Seconds so far. A value, which the engine replaces, so that other threads can read it.

    Attributes:
        seconds: since the first trial began.
        free_slot_seconds: of them, in which a slot held no trial, summed over the slots.
        idle_seconds: in which none did: there was nothing to train.
        held: slots that hold a trial from then on.
        slots: that there are.
        counted: the moment until which seconds were counted; 0 before the first trial.
    """

    seconds: float = 0.0
    free_slot_seconds: float = 0.0
    idle_seconds: float = 0.0
    held: int = 0
    slots: int = 0
    counted: float = 0.0

    def now(self) -> Occupancy:
        """Counted until now."""
        moment = time.perf_counter()
        passed = moment - self.counted if self.counted else 0.0
        return Occupancy(
            self.seconds + passed,
            self.free_slot_seconds + passed * (self.slots - self.held),
            self.idle_seconds + passed * (self.held == 0),
            self.held,
            self.slots,
            moment if self.counted else 0.0,
        )

    def after(self, held: int, slots: int) -> Occupancy:
        """Counted until now, when so many of so many slots begin to hold a trial."""
        if not (self.counted or held):
            return self
        now = self.now()
        return now._replace(held=held, slots=slots, counted=now.counted or time.perf_counter())
