"""Planner of a stack: from its slots to its next quantum, with all numbers that the ticks need.

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens, S = tokens
of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from model.corpus.dataset import Batch, Dataset, Ints
from model.corpus.order import data_order
from model.corpus.token_noise import replace_tokens
from model.engine.slot import Slot
from model.keys import derive_key
from model.network.dropout import PLACES
from model.optimizers.averaging import averaging_share
from model.optimizers.pruning import pruning_of
from model.optimizers.registry import coefficients
from model.optimizers.update_rule import IDLE
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.plan import QuantumPlan

# Most ticks of a quantum. The engine takes orders only between quanta: a longer quantum would
# delay the stop of a trial, a shorter one would leave a GPU waiting for the host more often.
QUANTUM_TICKS = 8


class Planner:
    """Plans the quanta of one stack, the next one while a device computes the current one.

    Args:
        a: architecture of the stack.
        b: micro-batch of the stack.
        train: training data of the slots.
        is_data_on_device: as for `plan_of`.
    """

    def __init__(self, a: Architecture, b: int, train: Dataset, *, is_data_on_device: bool) -> None:
        self._arguments, self._is_data_on_device = (a, b, train), is_data_on_device
        self._ahead: tuple[list[Slot | None], QuantumPlan] | None = None

    def _plan(self, slots: Sequence[Slot | None]) -> QuantumPlan:
        return plan_of(slots, *self._arguments, is_data_on_device=self._is_data_on_device)

    def next(self, slots: Sequence[Slot | None]) -> QuantumPlan:
        """Return the next quantum: the one planned ahead if it still fits the slots."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and all(map(_has_same_plan, slots, ahead[0])):
            return ahead[1]
        return self._plan(slots)

    def look_ahead(self, slots: Sequence[Slot | None], plan: QuantumPlan) -> None:
        """Plan the quantum after `plan`, which has begun, unless a report comes between.

        A report may change the learning rate (a plateau schedule), and a trial may diverge, stop
        or change its specification: `next` then plans again.
        """
        later = [_after(slot, plan.due[:, row].tolist()) for row, slot in enumerate(slots)]
        if not any(slot.is_at_report for slot in later if slot is not None):
            self._ahead = later, self._plan(later)


def _has_same_plan(one: Slot | None, other: Slot | None) -> bool:
    """True if two slots have the same plan: between two reports nothing else of a slot changes."""
    if one is None or other is None:
        return one is other
    is_same_trial = one.request is other.request and one.spec is other.spec
    return is_same_trial and (one.step, one.tick) == (other.step, other.tick)


def _after(slot: Slot | None, due: Sequence[bool]) -> Slot | None:
    """Return a copy of a slot after some ticks; `due` is True for each that ends an update."""
    if slot is None:
        return None
    later = copy(slot)
    for is_due in due:
        later.step, later.tick = (later.step + 1, 0) if is_due else (later.step, later.tick + 1)
    return later


def plan_of(
    slots: Sequence[Slot | None],
    a: Architecture,
    b: int,
    train: Dataset,
    *,
    is_data_on_device: bool = False,
) -> QuantumPlan:
    """Plan at most QUANTUM_TICKS ticks, up to the next report of any slot.

    Args:
        slots: slots of a stack, at least one of them with a trial.
        a: architecture of the stack.
        b: micro-batch of the stack.
        train: training data.
        is_data_on_device: True if the device has the training data. The plan then has the indices
            of the sequences only, unless a slot adds noise to its tokens.
    """
    occupied = {row: slot for row, slot in enumerate(slots) if slot is not None}
    indices_only = is_data_on_device and not any(
        slot.spec.hyperparameters.token_noise for slot in occupied.values()
    )
    q_ticks, k = _num_ticks(slots), len(slots)
    plan = QuantumPlan(
        indices=np.zeros((q_ticks, k, b), np.int64),
        host_batch=None if indices_only else _zero_ids((q_ticks, k, b), a, train),
        weight=np.zeros((q_ticks, k)),
        due=np.zeros((q_ticks, k), np.bool_),
        coefficients=np.tile(IDLE, (q_ticks, k, 1)),
        max_norm=np.full((q_ticks, k), np.inf),
        max_value=np.full((q_ticks, k), np.inf),
        averaging=np.zeros((q_ticks, k)),
        pruning=np.zeros((q_ticks, k)),
        z_loss=np.zeros(k),
        label_smoothing=np.zeros(k),
        dropout=np.zeros((len(PLACES), k)),
        dropout_keys=np.zeros((q_ticks, k), np.int64),
    )
    for row, slot in occupied.items():
        _plan_slot(plan, row, slot, train)
    return plan


def _num_ticks(slots: Sequence[Slot | None]) -> int:
    """Return the number of ticks of the next quantum, Q."""
    ticks = QUANTUM_TICKS
    for slot in slots:
        if slot is not None:
            ticks_to_report = (slot.next_report - slot.step) * slot.ticks_per_step - slot.tick
            ticks = min(ticks, ticks_to_report)
    # A trial alone in its stack trains on while its last report travels to the scheduler. If the
    # answer is to stop, all ticks since the report were wasted, and the ticks of the quantum that
    # runs when the answer arrives are wasted too. So a quantum is at most as long as the training
    # since the report, 1, 1, 2, 4, 8 ticks: a fast answer wastes a tick or two instead of eight,
    # and the wait for the end of a quantum at most doubles the waste. A wide stack does not shrink
    # its quanta: most of its slots have no report pending, and all would pay for one of them.
    if len(slots) == 1 and slots[0] is not None and slots[0].reported:
        slot = slots[0]
        ticks_since_report = (slot.step - slot.reported) * slot.ticks_per_step + slot.tick
        ticks = min(ticks, max(1, ticks_since_report))
    return ticks


def _zero_ids(shape: tuple[int, ...], a: Architecture, train: Dataset) -> Batch:
    """Return a batch of zeros with the arrays that the data have."""
    like = train.batch(np.zeros(0, np.int64), a)._asdict().items()
    return Batch(
        **{
            name: np.zeros((*shape, ids.shape[-1]), np.int64)
            for name, ids in like
            if ids is not None
        }
    )


def _plan_slot(plan: QuantumPlan, row: int, slot: Slot, train: Dataset) -> None:
    """Write a slot's numbers into its row of a plan."""
    h, spec = slot.spec.trained_hyperparameters, slot.spec
    # Adam's corrections count the updates that the moments have seen, those before a warm start too
    moments_before = spec.init_from.optimizer_steps if spec.init_from else 0
    q_ticks, b = len(plan), spec.micro_batch
    # All updates of which the quantum has a tick, complete: the weight of a tick is its share of
    # the targets of its complete update.
    num_updates = 1 + (slot.tick + q_ticks - 1) // slot.ticks_per_step
    positions = slot.step * h.batch_size + np.arange(num_updates * h.batch_size)
    order = data_order(spec.seed, positions, spec.train_sequences)
    in_quantum = slice(slot.tick * b, (slot.tick + q_ticks) * b)
    plan.indices[:, row] = order[in_quantum].reshape(q_ticks, b)
    if plan.host_batch is not None:
        places = positions[in_quantum].reshape(q_ticks, b)
        _read(plan.host_batch, plan.indices, row, spec, places, train)
    counts = train.num_targets(order, spec.architecture).reshape(num_updates, -1, b).sum(-1)
    shares = (counts / counts.sum(1, keepdims=True)).reshape(-1)  # of each tick
    plan.weight[:, row] = shares[slot.tick : slot.tick + q_ticks]
    plan.label_smoothing[row], plan.z_loss[row] = h.label_smoothing, h.z_loss
    rates = h.embedding_dropout, h.attention_dropout, h.residual_dropout, h.lora_dropout
    plan.dropout[:, row] = rates
    for q in range(q_ticks):
        update, tick = divmod(slot.tick + q, slot.ticks_per_step)
        step = slot.step + update + 1
        if any(rates):
            key = derive_key(spec.seed, "dropout", step, tick)
            plan.dropout_keys[q, row] = np.uint64(key).astype(np.int64)
        if tick == slot.ticks_per_step - 1:
            plan.due[q, row] = True
            rate = slot.learning_rate(step)
            plan.coefficients[q, row] = coefficients(moments_before + step, rate, h)
            plan.max_norm[q, row] = h.grad_clip or np.inf
            plan.max_value[q, row] = h.grad_clip_value or np.inf
            plan.averaging[q, row] = averaging_share(step, h.ema_decay)
            plan.pruning[q, row] = pruning_of(step, h)


def _read(
    batch: Batch, indices: Ints, row: int, spec: TrialSpec, positions: Ints, train: Dataset
) -> None:
    """Write the token ids that a slot reads into its row of a batch."""
    read = train.batch(indices[:, row], spec.architecture)
    read = read._replace(inputs=_with_noise(read.inputs, "noise", spec, positions))
    if read.sources is not None:
        read = read._replace(sources=_with_noise(read.sources, "source noise", spec, positions))
    for ids, of_slot in zip(batch.arrays, read.arrays, strict=True):
        ids[:, row] = of_slot


def _with_noise(ids: Ints, place: str, spec: TrialSpec, positions: Ints) -> Ints:
    """Return sequences with the trial's token noise, which depends on their positions."""
    noise, a = spec.hyperparameters.token_noise, spec.architecture
    if not noise:
        return ids
    key = derive_key(spec.seed, place)
    return replace_tokens(ids, noise, a.vocab_size, a.end_of_text, key, positions)
