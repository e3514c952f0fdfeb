"""Evaluation of some slots of a stack on the same sequences; a GPU is waited for once, at the end.

K = evaluated slots, b = sequences at a time, T = tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.corpus.dataset import IGNORED, Batch, Ints
from model.device.async_copy import begin_upload
from model.network.encoder_decoder import EncoderDecoder
from model.network.layers import Weights
from model.network.losses import token_losses
from model.network.transformer import LanguageModel
from model.stack.plan import Floats


class Evaluation(NamedTuple):
    """Results of k slots on the same sequences.

    Attributes:
        loss: (k,) nats per token.
        accuracy: (k,) share of the targets that were the most probable token; None for sequences
            of text, all of whose tokens are targets.
        exact: (k,) share of the answers all of whose tokens were the most probable one after those
            before, so that greedy decoding writes exactly the answer; None for such sequences.
    """

    loss: Floats
    accuracy: Floats | None = None
    exact: Floats | None = None

    def of(self, columns: list[int]) -> Evaluation:
        """Return the results of some of the slots."""
        return Evaluation(*(None if each is None else each[columns] for each in self))  # type: ignore[arg-type]


def evaluate(
    model: LanguageModel | EncoderDecoder,
    weights: Weights,
    rows: Batch,
    batch: int,
    *,
    ignored: int | None,
) -> Evaluation:
    """Return the mean loss of slots on the same sequences, without dropout and smoothing.

    Args:
        model: the architecture.
        weights: weights of K slots.
        rows: the sequences.
        batch: sequences at a time.
        ignored: target that does not count; None if all count.
    """
    k, device = _num_slots(weights), _device(weights)
    ids = [begin_upload(each, device) for each in rows.arrays]
    losses, hits, head = [], list[Tensor](), model.head
    starts = range(0, len(rows.targets), batch)
    for start in starts:
        chunk = [each[start : start + batch].expand(k, -1, -1) for each in ids]
        inputs, targets, *others = chunk
        x = model.activations(weights, inputs, *others)
        losses.append(head.losses(weights, x, targets, ignore_index=ignored)[0])
        if ignored is None:
            continue
        places = _places(rows.targets[start : start + batch], device)
        if isinstance(model, EncoderDecoder):
            is_hit = head(weights, x).argmax(-1) == targets
            hits.append(is_hit.reshape(k, -1)[:, places])
        else:
            hits += [
                logits.argmax(-1) == true
                for logits, true in head.at_targets(weights, x, targets, places)
            ]
    counts = [int((rows.targets[s : s + batch] != IGNORED).sum()) for s in starts]
    # read once: (chunks + targets, K)
    read = torch.cat([torch.stack(losses), *(each.T.float() for each in hits)]).cpu().double()
    chunk_losses, right = read[: len(starts)].numpy(), read[len(starts) :].T.bool().numpy()
    # a sum of Python: in which order numpy and torch add depends on K
    loss = sum(
        (c / sum(counts) * part for c, part in zip(counts, chunk_losses, strict=True)),
        0 * chunk_losses[0],
    )
    if not hits:
        return Evaluation(loss)
    answers = np.logical_and.reduceat(right, _answer_begins(rows), axis=1)
    return Evaluation(loss, right.mean(1), answers.mean(1))


def log_probabilities(
    model: LanguageModel, weights: Weights, inputs: Ints, targets: Ints, batch: int
) -> Floats:
    """Return for each slot the sums of the logarithms of the targets' probabilities.

    Args:
        model: the architecture.
        weights: weights of K slots.
        inputs: (N, T) int64, texts.
        targets: (N, T) int64, IGNORED where none counts.
        batch: texts at a time.

    Returns:
        (K, N) float64.
    """
    k, device = _num_slots(weights), _device(weights)
    losses = list[Tensor]()
    for start in range(0, len(inputs), batch):
        chunk = slice(start, start + batch)
        x, y = (begin_upload(e[chunk], device).expand(k, -1, -1) for e in (inputs, targets))
        hidden, places = model.activations(weights, x), _places(targets[chunk], device)
        losses += [
            token_losses(logits, true, with_slope=False).objective
            for logits, true in model.head.at_targets(weights, hidden, y, places)
        ]
    each = torch.cat(losses, 1).cpu().double().numpy()  # (K, targets)
    counts = (targets != IGNORED).sum(1)
    sums: Floats = -np.add.reduceat(each, np.cumsum(counts) - counts, axis=1)
    return sums


def _num_slots(weights: Weights) -> int:
    """Return K: weights that all slots share have a leading 1."""
    return max(len(weight) for weight in weights.values())


def _device(weights: Weights) -> torch.device:
    return next(iter(weights.values())).device


def _places(targets: Ints, device: torch.device) -> Tensor:
    """Return the places of the targets that count, on the device."""
    return begin_upload(np.flatnonzero(targets != IGNORED), device)


def _answer_begins(rows: Batch) -> Ints:
    """Return the places at which answers begin among all targets of some sequences, in order."""
    counts = rows.targets != IGNORED
    follows = np.zeros_like(counts)
    follows[..., 1:] = counts[..., :-1]
    if rows.begins is not None:  # two examples may lie side by side
        follows[..., 1:] &= rows.begins[..., 1:] == rows.begins[..., :-1]
    (begins,) = np.nonzero(~follows[counts])
    return begins
