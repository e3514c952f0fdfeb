"""Occupancy of an engine's slots: seconds with and without a trial, from its first trial on."""

from __future__ import annotations

import time
from typing import NamedTuple


class Occupancy(NamedTuple):
    """Seconds counted so far.

    An immutable value: the engine's thread replaces it at once, so that another thread that reads
    it never sees half of an update.

    Attributes:
        seconds: seconds since the first trial began.
        free_slot_seconds: seconds in which a slot held no trial, summed over the slots.
        idle_seconds: seconds in which no slot held a trial.
        held: number of slots that hold a trial since `counted`.
        slots: number of slots.
        counted: `time.perf_counter()` up to which seconds are counted; 0 before the first trial.
    """

    seconds: float = 0.0
    free_slot_seconds: float = 0.0
    idle_seconds: float = 0.0
    held: int = 0
    slots: int = 0
    counted: float = 0.0

    def now(self) -> Occupancy:
        """Return the seconds counted up to now."""
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
        """Return the seconds counted up to now, when the number of occupied slots changes.

        Args:
            held: number of slots that hold a trial from now on.
            slots: number of slots from now on.
        """
        if not (self.counted or held):
            return self
        now = self.now()
        return now._replace(held=held, slots=slots, counted=now.counted or time.perf_counter())
