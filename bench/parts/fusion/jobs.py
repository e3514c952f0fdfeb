"""Models and jobs of fusion.py.

K = trials of a process, B = sequences, N = updates. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from parts import synthetic

SEQUENCES = 4096  # length of the text


@dataclass(frozen=True)
class Size:
    """Model to train, and limits of its measurement.

    Attributes:
        architecture: architecture of the model.
        batch: number of sequences of an update.
        most: largest number of trials of one process.
        check: number of updates after which losses are compared.
        checked: number of trials of a process whose losses are compared.
    """

    architecture: Architecture
    batch: int
    most: int
    check: int = 8
    checked: int = 2

    @property
    def described(self) -> dict[str, Any]:
        """Numbers and a text about the model, for results."""
        a = self.architecture
        return {
            "parameters": a.num_parameters,
            "flops_per_token": a.flops_per_token,
            "model": f"d_model {a.d_model}, {a.n_layers} layers, vocabulary {a.vocab_size:,}, "
            f"{self.batch} × {a.context_length} tokens an update",
            "updates_checked": self.check,
        }


def _model(vocab_size: int, d_model: int, n_layers: int, n_heads: int, length: int) -> Architecture:
    return Architecture(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        context_length=length,
    )


TINY = Size(_model(512, 32, 1, 2, 32), batch=4, most=2)
# 0.37 (lm.yaml's), 1.1, 10.6 and 47.9 million parameters; on a CPU with fewer tokens an update, to
# end in time
SIZES = {
    "cpu": {
        "0.4M": Size(_model(2048, 64, 2, 4, 64), batch=8, most=8),
        "1M": Size(_model(2048, 128, 3, 4, 128), batch=8, most=8),
        "10M": Size(_model(8192, 256, 8, 4, 128), batch=1, most=2),
        "50M": Size(_model(16384, 512, 10, 8, 64), batch=1, most=2, check=4, checked=1),
    },
    "cuda": {
        "1M": Size(_model(2048, 128, 3, 4, 128), batch=8, most=1024),
        "10M": Size(_model(8192, 256, 8, 4, 256), batch=8, most=256),
        "50M": Size(_model(16384, 512, 10, 8, 512), batch=8, most=64),
    },
}


@dataclass(frozen=True)
class Job:
    """Work of one process.

    Attributes:
        side: a key of `SIDES`.
        architecture: architecture of all trials.
        batch: B, number of sequences of an update.
        trials: K.
        seed: seed of the first trial; the next trials have the next numbers.
        check: N, number of updates after which losses are compared.
        checked: number of trials whose losses are compared.
        threads: threads of torch on a CPU; our engine takes one.
        device: "cpu", "cuda" …
        dtype: dtype of the computation; of torch's loops that of their matrix products.
    """

    side: str
    architecture: Architecture
    batch: int
    trials: int
    seed: int
    check: int
    checked: int
    threads: int
    device: str
    dtype: str

    @property
    def tokens(self) -> int:
        """Number of tokens of one update of one trial."""
        return self.batch * self.architecture.context_length

    @property
    def seeds(self) -> range:
        """Seeds of the trials."""
        return range(self.seed, self.seed + self.trials)

    def spec(self, seed: int, updates: int) -> TrialSpec:
        """Return a trial that reports once, at its end."""
        rows = {
            "batch_size": self.batch,
            "max_learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "warmup_steps": 4,
            "cycle_steps": updates,
            "grad_clip": 1.0,
            "total_steps": updates,
        }
        return synthetic.trial(self.architecture, seed, rows, (SEQUENCES, 1))
