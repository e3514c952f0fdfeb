"""From the slots of a stack to its next quantum: what each trial reads, and with which numbers.

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
from model.engine.slot import Slot, SlotState
from model.keys import derive_key
from model.network.dropout import PLACES
from model.optimizers.averaging import averaging_share
from model.optimizers.pruning import pruning_of
from model.optimizers.registry import coefficients
from model.optimizers.update_rule import IDLE
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.plan import Plan

# Ticks between two looks at the outside: an order to stop waits this long at most.
QUANTUM_TICKS = 8


class Planner:
    """Plans the quanta of one stack; the next one, if asked, while a device is busy with this one.

    Args:
        a: the architecture of the stack.
        b: its micro-batch.
        train: what its slots read.
        is_read_there: as for `plan_of`.
    """

    def __init__(self, a: Architecture, b: int, train: Dataset, *, is_read_there: bool) -> None:
        self._for, self._is_read_there = (a, b, train), is_read_there
        self._ahead: tuple[list[Slot], Plan] | None = None

    def _plan(self, slots: Sequence[Slot]) -> Plan:
        return plan_of(slots, *self._for, is_read_there=self._is_read_there)

    def next(self, slots: Sequence[Slot]) -> Plan:
        """The next quantum of some slots."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and all(map(_is_alike, slots, ahead[0])):
            return ahead[1]
        return self._plan(slots)

    def look_ahead(self, slots: Sequence[Slot], plan: Plan) -> None:
        """Plan what follows a plan that has begun, if no report comes between."""
        later = [_after(slot, plan.due[:, row].tolist()) for row, slot in enumerate(slots)]
        training = [slot for slot in later if slot.state is SlotState.TRAINING]
        if not any(slot.is_at_report for slot in training):
            self._ahead = later, self._plan(later)


def _is_alike(one: Slot, other: Slot) -> bool:
    """Whether two slots are planned alike; between reports nothing else changes."""
    if one.state is not SlotState.TRAINING or one.state is not other.state:
        return one.state is other.state
    is_same = one.admission is other.admission and one.spec is other.spec
    return is_same and (one.step, one.tick) == (other.step, other.tick)


def _after(slot: Slot, due: Sequence[bool]) -> Slot:
    """A slot as it will be after some ticks, some of which end an update."""
    later = copy(slot)
    if slot.state is SlotState.TRAINING:
        for is_due in due:
            later.step, later.tick = (later.step + 1, 0) if is_due else (later.step, later.tick + 1)
    return later


def plan_of(
    slots: Sequence[Slot], a: Architecture, b: int, train: Dataset, *, is_read_there: bool = False
) -> Plan:
    """Ticks up to the next report of any slot, with all that they need from the host.

    Args:
        slots: those of a stack; one of them at least is training.
        a: the architecture of the stack.
        b: its micro-batch.
        train: what they read.
        is_read_there: whether the device has the data, so that the numbers of the sequences do,
            if no slot adds noise to them.
    """
    training = {row: slot for row, slot in enumerate(slots) if slot.state is SlotState.TRAINING}
    q_ticks, k = QUANTUM_TICKS, len(slots)
    for slot in training.values():
        ticks = (slot.next_report - slot.step) * slot.ticks_per_step - slot.tick
        q_ticks = min(q_ticks, ticks)
    if k == 1 and slot.reported:  # it may be stopped there: then all since is for nothing
        since = (slot.step - slot.reported) * slot.ticks_per_step + slot.tick
        q_ticks = min(q_ticks, max(1, since))
    is_noisy = any(slot.spec.hyperparameters.token_noise for slot in training.values())
    plan = Plan(
        numbers=np.zeros((q_ticks, k, b), np.int64),
        given=None if is_read_there and not is_noisy else _no_ids((q_ticks, k, b), a),
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
    for row, slot in training.items():
        _plan_slot(plan, row, slot, train)
    return plan


def _no_ids(shape: tuple[int, ...], a: Architecture) -> Batch:
    has_encoder = a.n_encoder_layers > 0
    return Batch(
        inputs=np.zeros((*shape, a.context_length), np.int64),
        targets=np.zeros((*shape, a.context_length), np.int64),
        sources=np.zeros((*shape, a.source_length), np.int64) if has_encoder else None,
    )


def _plan_slot(plan: Plan, row: int, slot: Slot, train: Dataset) -> None:
    h, spec = slot.spec.hyperparameters, slot.spec
    moments_before = spec.init_from.optimizer_steps if spec.init_from else 0
    q_ticks, b = len(plan), spec.micro_batch
    # All of the updates that the ticks belong to: a tick's weight is its share of the whole.
    num_updates = 1 + (slot.tick + q_ticks - 1) // slot.ticks_per_step
    stream = slot.step * h.batch_size + np.arange(num_updates * h.batch_size)
    order = data_order(spec.seed, stream, spec.train_sequences)
    own = slice(slot.tick * b, (slot.tick + q_ticks) * b)
    plan.numbers[:, row] = order[own].reshape(q_ticks, b)
    if plan.given is not None:
        _read(plan.given, plan.numbers, row, spec, stream[own].reshape(q_ticks, b), train)
    counts = train.num_targets(order, spec.architecture).reshape(num_updates, -1, b).sum(-1)
    shares = (counts / counts.sum(1, keepdims=True)).reshape(-1)  # of each tick
    plan.weight[:, row] = shares[slot.tick : slot.tick + q_ticks]
    plan.label_smoothing[row], plan.z_loss[row] = h.label_smoothing, h.z_loss
    rates = h.embedding_dropout, h.attention_dropout, h.residual_dropout
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
    ids: Batch, numbers: Ints, row: int, spec: TrialSpec, positions: Ints, train: Dataset
) -> None:
    """Fill in what a slot reads."""
    inputs, ids.targets[:, row], sources = train.batch(numbers[:, row], spec.architecture)
    ids.inputs[:, row] = _noisy(inputs, "noise", spec, positions)
    if sources is not None:
        assert ids.sources is not None
        ids.sources[:, row] = _noisy(sources, "source noise", spec, positions)


def _noisy(ids: Ints, place: str, spec: TrialSpec, positions: Ints) -> Ints:
    """Sequences as a trial reads them: with token noise, if it wants some."""
    noise, a = spec.hyperparameters.token_noise, spec.architecture
    if not noise:
        return ids
    key = derive_key(spec.seed, place)
    return replace_tokens(ids, noise, a.vocab_size, a.end_of_text, key, positions)
