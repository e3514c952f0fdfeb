"""What the compiled code of a tick depends on; imports no torch, so that a driver can count."""

from __future__ import annotations

import json
from typing import NamedTuple, Self

from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec


class TickKind(NamedTuple):
    """Kind of the ticks of a trial alone in its stack; ticks of one kind share compiled code.

    All other numbers of a trial are arguments of the code. The kind follows from a trial's
    specification alone.

    Attributes:
        architecture: architecture of the model.
        micro_batch: sequences per tick.
        dtype: dtype of the computation, a name in `precision.DTYPES`.
        label_smoothing: True if labels are smoothed.
        z_loss: True if there is a z-loss.
        embedding_dropout: True if token embeddings are dropped.
        attention_dropout: True if attention probabilities are dropped.
        residual_dropout: True if values that branches add are dropped.
        has_examples: True if sequences are of examples, of whose tokens only some are targets.
        is_packed: True if a sequence has several examples.
    """

    architecture: Architecture
    micro_batch: int
    dtype: str
    label_smoothing: bool = False
    z_loss: bool = False
    embedding_dropout: bool = False
    attention_dropout: bool = False
    residual_dropout: bool = False
    has_examples: bool = False
    is_packed: bool = False

    @classmethod
    def of(cls, spec: TrialSpec, dtype: str = "float32") -> Self:
        """Return the kind of a trial's ticks."""
        h = spec.hyperparameters
        features = (
            h.label_smoothing, h.z_loss,
            h.embedding_dropout, h.attention_dropout, h.residual_dropout, spec.data.examples,
            spec.data.examples and spec.data.packing,
        )  # fmt: skip
        return cls(spec.architecture, spec.micro_batch, dtype, *map(bool, features))

    def to_json(self) -> str:
        """Return the kind as JSON."""
        return json.dumps([self.architecture.model_dump(mode="json"), *self[1:]])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the kind of `to_json`."""
        architecture, *others = json.loads(text)
        return cls(Architecture.model_validate(architecture), *others)
