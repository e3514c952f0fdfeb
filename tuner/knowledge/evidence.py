"""Evidence: finished trials of a source, with what their losses depend on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from model.spec.trial import TrialSpec
from tuner.knowledge.laws import block_weights
from tuner.knowledge.settings import OPTIMIZERS, SCHEDULES, SETTINGS, point
from tuner.texts.formatting import listed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Trials that finished their budget; n trials.

    Attributes:
        points: places of the settings (`settings.SETTINGS`), (n, D).
        sizes: logs of the weights of the blocks, the training tokens, and all weights, (n, 3).
        cells: what but settings and seed is equal in the trials of a cell, as text, (n,).
        texts: text and tokenizer, as text, (n,).
        losses: val_loss, (n,); infinity if training diverged.
    """

    points: Floats
    sizes: Floats
    cells: npt.NDArray[np.str_]
    texts: npt.NDArray[np.str_]
    losses: Floats

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.losses)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Evidence:
        """Return some of the trials."""
        return Evidence(
            self.points[chosen], self.sizes[chosen], self.cells[chosen], self.texts[chosen],
            self.losses[chosen],
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """Return the trials of several sources, at least one."""
        return cls(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.cells for part in parts]),
            np.concatenate([part.texts for part in parts]),
            np.concatenate([part.losses for part in parts]),
        )


# of trials ----------------------------------------------------------------------------------------

# rows beside the settings on which the loss of a trial may depend
_OTHERS = (
    "eps", "embedding_decay", "gain_decay", "l1_penalty", "dropout", "embedding_dropout",
    "attention_dropout", "residual_dropout", "token_noise", "label_smoothing", "grad_clip_value",
    "z_loss", "ema_decay", "target_sparsity", "schedule",
)  # fmt: skip
_BUDGETS = 20  # cells of budgets in a factor of e: B rounds a budget to whole updates


def obstacle(spec: TrialSpec) -> str | None:
    """Return why a trial is no evidence; None if it is."""
    h, a = spec.hyperparameters, spec.architecture
    if a.n_encoder_layers:
        return "it has an encoder"
    if a.target is not None:
        return "it is a proxy, whose settings are those of its target"
    if spec.init_from is not None or spec.continues is not None:
        return "it does not start from random weights"
    if h.optimizer not in OPTIMIZERS:
        return f"its optimizer is {h.optimizer}, not {listed(OPTIMIZERS, 'or')}"
    if h.schedule not in SCHEDULES or h.cycle_steps != h.total_steps:
        return f"its schedule is not {listed(SCHEDULES, 'or')} over the whole training"
    return None


def text_of(data_fingerprint: str, tokenizer_fingerprint: str) -> str:
    """Return the name of a text with its tokenizer; losses of different ones cannot be compared."""
    return f"{data_fingerprint[:16]}+{tokenizer_fingerprint[:16]}"


def cell_of(spec: TrialSpec) -> str:
    """Return the name of the cell of a trial: what the loss depends on beside settings and seed."""
    h = spec.hyperparameters
    content = {
        "text": text_of(spec.data_fingerprint, spec.tokenizer_fingerprint),
        "model": spec.architecture.model_dump(mode="json"),
        "validation": spec.validation_sequences,
        "tokens": round(math.log(spec.budget_tokens) * _BUDGETS),
        "others": {name: getattr(h, name) for name in _OTHERS},
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _sizes(spec: TrialSpec) -> list[int]:
    a = spec.architecture
    return [block_weights(a), spec.budget_tokens, a.num_parameters]


def evidence_of(trials: Sequence[tuple[TrialSpec, float]]) -> Evidence:
    """Return trials without obstacles, each with its loss at the end, as evidence."""
    specs = [spec for spec, _ in trials]
    return Evidence(
        np.array([point(s.hyperparameters, s.architecture.context_length) for s in specs]).reshape(
            -1, len(SETTINGS)
        ),
        np.log([_sizes(s) for s in specs]).reshape(-1, 3),
        np.array([cell_of(s) for s in specs], dtype=np.str_),
        np.array(
            [text_of(s.data_fingerprint, s.tokenizer_fingerprint) for s in specs], dtype=np.str_
        ),
        np.array([loss if math.isfinite(loss) else math.inf for _, loss in trials]),
    )
