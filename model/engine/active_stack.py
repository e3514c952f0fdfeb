"""A stack in training: its tensors, its plan and its slots."""

from __future__ import annotations

from model.corpus.dataset import Dataset
from model.engine.planner import Planner
from model.engine.slot import Slot
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.base import Base
from model.stack.stack import Stack


class ActiveStack:
    """A stack with its planner and its slots; an empty row has the slot None."""

    def __init__(self, spec: TrialSpec, stack: Stack, train: Dataset) -> None:
        self.shape, self.stack = shape_of(spec), stack
        self.planner = Planner(*self.shape, train, is_data_on_device=stack.data is not None)
        self.slots: list[Slot | None] = [None] * stack.width

    def fits(self, shape: tuple[Architecture, int], base: Base | None) -> bool:
        """Return True if the stack holds trials of a shape over some frozen weights."""
        return self.shape == shape and self.stack.base is base

    @property
    def occupied(self) -> list[tuple[int, Slot]]:
        """Rows that hold a trial, with their slots; a list, so that rows may be emptied."""
        return [(row, slot) for row, slot in enumerate(self.slots) if slot is not None]

    @property
    def empty_row(self) -> int | None:
        """First row without a trial; None if all rows hold one."""
        return next((row for row, slot in enumerate(self.slots) if slot is None), None)


def shape_of(spec: TrialSpec) -> tuple[Architecture, int]:
    """Return architecture and micro-batch: trials that agree on both can share a stack."""
    return spec.architecture, spec.micro_batch
