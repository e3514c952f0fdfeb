"""Predicted peak memory of training one model on a CPU, from sizes alone.

A process that trains needs memory for the weights with their moments and gradients, for the
activations that the backward pass reads, and for the checkpoint that is written while training goes
on. What autograd keeps is counted for each layer from the code of `model.network`; allocators leave
holes, whose share was measured. Compiled ticks and lower precisions take less.

`tests/model/device/test_peak_memory.py` compares predictions with the measured peaks of processes.

b = sequences of a micro-batch, T = tokens, D = width, F = inner width, H = heads, V = vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from model.spec.architecture import Architecture
from model.spec.choices import GATED, Tower
from model.spec.trial import TrialSpec

_FLOAT = 4  # bytes
# of a weight, its gradient and two moments, in float32
BYTES_PER_WEIGHT = 4 * _FLOAT
BYTES_PER_FROZEN = _FLOAT
_PROCESS = 430_000_000  # Python, torch and its libraries, once they are used
# A checkpoint has a weight and two moments: copied, packed, and in the bytes of the file.
_COPIES = 3
_HOLES = 1.2  # memory of the activations, over their size
# Numbers of H·T for each token and layer of an attention that is computed step by step. With
# dropout: scores, probabilities, their random numbers and masks, which leave large holes.
_WITH_DROPOUT, _WITH_LEARNED_BIAS = 10, 2
_CHUNK = 128  # tokens whose logits are in memory at one time
_LOGITS = 4  # logits, probabilities, slopes and a copy


class PeakMemory(NamedTuple):
    """Largest memory that training takes, in bytes.

    Attributes:
        weights: weights, moments, sums and gradients.
        activations: what the backward pass needs.
        checkpoint: a checkpoint on its way to the disk.
        frozen: weights that LoRA adapts; a machine holds them once.
    """

    weights: float
    activations: float
    checkpoint: float
    frozen: float = 0.0

    @property
    def trial(self) -> float:
        """Bytes of the trial."""
        return sum(self)

    @property
    def process(self) -> float:
        """Bytes of a process that trains this trial alone."""
        return self.trial + _PROCESS


def peak_memory(spec: TrialSpec) -> PeakMemory:
    """Predict the peak memory of a trial."""
    a, h, b = spec.architecture, spec.hyperparameters, spec.micro_batch
    weights = a.num_trained * _FLOAT
    accumulates, averages = h.batch_size > b, h.ema_decay > 0
    matrices = 4 + accumulates + averages  # weights, two moments, gradients
    tokens = b * a.context_length
    kept = _tower(a, a.decoder, spec) * tokens + 4 * a.d_model * tokens
    if a.n_encoder_layers:
        kept += (_tower(a, a.encoder, spec) + 4 * a.d_model) * b * a.source_length
        kept += 2 * tokens * a.vocab_size  # the accuracy of a validation needs all logits
    passing = 3 * a.d_ff * tokens  # gradients on their way through a block
    head = a.vocab_size * (_LOGITS * _CHUNK + a.d_model)
    return PeakMemory(
        matrices * weights,
        _FLOAT * (_HOLES * (kept + passing) + head),
        _COPIES * (3 + averages) * weights,
        BYTES_PER_FROZEN * a.num_parameters if a.lora_rank else 0.0,
    )


def _tower(a: Architecture, tower: Tower, spec: TrialSpec) -> float:
    """Return the numbers that autograd keeps for each token of a tower."""
    h = spec.hyperparameters
    queries, keys = a.n_heads * a.d_head, a.n_kv_heads * a.d_head
    norm = (3 if a.norm == "layernorm" else 2) * a.d_model  # the unit vector, and the result
    is_gated = a.activation in GATED
    attention = norm + 3 * queries + 2 * keys  # queries, what they attend to, twice; keys, values
    if a.qk_norm:
        attention += 2 * (queries + keys)
    scores = 0
    if h.attention_dropout > 0:
        scores = _WITH_DROPOUT
    elif a.position == "relative":
        scores = _WITH_LEARNED_BIAS
    attention += scores * a.n_heads * tower.max_length
    layer = attention + norm + (4 if is_gated else 2) * a.d_ff
    if tower.reads_memory:
        layer += attention
    branches = 3 if tower.reads_memory else 2
    layer += branches * a.d_model * (h.residual_dropout > 0)
    return tower.n_layers * layer
