"""A trial by the training loop that a user writes: torch's own modules and fused AdamW.

It trains the same specification as our engine: equal initial weights, data in equal order, equal
learning rates, clipping and validation sequences. Losses differ by rounding only, since torch's
modules sum in another order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from model.corpus.corpus import Corpus
from model.corpus.dataset import TextDataset
from model.corpus.order import data_order
from model.keys import derive_key
from model.randomness import permute
from model.spec.schedules import learning_rate
from model.spec.trial import TrialSpec
from parts.fusion.model import PlainModel
from parts.fusion.sides import optimizer_of

_EVALUATED = 64  # sequences of a batch of the validation
_LOGGED_UPDATES = 8  # between two lines of the log

Log = Callable[[float, int], None]
OnReport = Callable[[float, int], None]


class PlainTrial:
    """A trial of a plain loop.

    Args:
        spec: specification of the trial; AdamW, and all choices of the model at their defaults.
        corpus: prepared data.
        device: "cpu" or "cuda".
    """

    def __init__(self, spec: TrialSpec, corpus: Corpus, device: str) -> None:
        assert spec.hyperparameters.optimizer == "adamw"
        self._spec, self._device = spec, device
        if device == "cpu":
            torch.set_num_threads(1)  # one process for each core
        self._train, self._validation = (TextDataset(split) for split in corpus.splits)
        self._model = PlainModel(spec.architecture, spec.seed).to(device)
        named = dict(self._model.named_parameters())
        self._optimizer = optimizer_of(named, spec.hyperparameters)

    def run(self, log: Log, report: OnReport) -> None:
        """Train to the end.

        Args:
            log: takes the seconds in training and the tokens so far, often.
            report: takes validation loss and tokens, at each report; may raise to stop the trial.
        """
        spec, seconds = self._spec, 0.0
        for step in range(1, spec.hyperparameters.total_steps + 1):
            began = time.perf_counter()
            is_finite = self._update(step)
            seconds += time.perf_counter() - began
            is_report = step in spec.report_steps
            tokens = step * spec.tokens_per_step
            if step % _LOGGED_UPDATES == 1 or is_report or not is_finite:
                log(seconds, tokens)
            if is_report or not is_finite:
                loss = self._evaluate() if is_finite else math.inf
                report(loss if math.isfinite(loss) else math.inf, tokens)
                if not math.isfinite(loss):
                    return

    def _update(self, step: int) -> bool:
        spec, h = self._spec, self._spec.hyperparameters
        positions = (step - 1) * h.batch_size + np.arange(h.batch_size)
        numbers = data_order(spec.seed, positions, spec.train_sequences)
        x, y = self._read(self._train, numbers)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, h)
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self._model(x).flatten(0, 1), y.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), h.grad_clip or math.inf)
        self._optimizer.step()
        return bool(math.isfinite(loss.item()) and math.isfinite(norm.item()))

    @torch.no_grad()
    def _evaluate(self) -> float:
        total, count = 0.0, 0
        for numbers in self._batches():
            x, y = self._read(self._validation, numbers)
            logits = self._model(x).flatten(0, 1)
            total += F.cross_entropy(logits, y.flatten(), reduction="sum").item()
            count += y.numel()
        return total / count

    def _batches(self) -> Iterator[Any]:
        """Yield the numbers of the sequences that evaluate every trial of all sides."""
        available = self._validation.num_sequences(self._spec.architecture)
        size = self._spec.validation_sequences
        chosen = permute(np.arange(size), available, derive_key(0, "validation"))
        for begin in range(0, size, _EVALUATED):
            yield chosen[begin : begin + _EVALUATED]

    def _read(self, data: TextDataset, numbers: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch = data.batch(numbers, self._spec.architecture)
        return (
            torch.from_numpy(batch.inputs).to(self._device),
            torch.from_numpy(batch.targets).to(self._device),
        )
