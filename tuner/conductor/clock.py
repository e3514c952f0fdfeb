"""Virtual clocks, by which reports are ordered: what the training of a trial costs.

A clock is a function of specifications only. Measured times would differ from run to run, and so
would the order of reports. The constants of a clock are part of a search's decisions: a journal
names its clock, and other constants need another name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model.spec.trial import TrialSpec

# Picoseconds on a core of an AMD EPYC with AVX-512, in float32 without compilation, fitted to an
# experiment (commit e46d9ad, bench/order.py --measure). Only ratios matter: how much longer one
# trial takes than another.
# Between 0.4 and 10 million parameters they are right to a quarter with compiled ticks and in
# mixed_bfloat16 too (`bench/fusion.py`).
_PER_FLOP = 15
_PER_WIDTH = 90_000  # of a value of the residual stream in a layer: norms, activations, copies
_PER_LOGIT = 7_500
_PER_LAYER_TICK = 1_700_000_000
_PER_PARAMETER_UPDATED = 1_800
_PER_PARAMETER_SAVED = 10_000  # packed, checksummed and written by a thread of the same core
_PER_JOB = 60_000_000_000  # a decision, its way to the worker, and loading the trial
_FORWARD = 1 / 3  # of the cost of a training token


@dataclass(frozen=True)
class Clock:
    """Cost of training, in the units of the clock.

    Attributes:
        per_job: cost of a job before its first token.
        per_token: function that returns the cost of a training token of a specification, with its
            share of updates and reports.
    """

    per_job: int
    per_token: Callable[[TrialSpec], int]


def _one(spec: TrialSpec) -> int:
    return 1


def _picoseconds(spec: TrialSpec) -> int:
    """Return the expected time of a training token on a core that trains one trial."""
    a = spec.architecture
    layers = a.n_layers + a.n_encoder_layers
    computed = (
        _PER_FLOP * a.flops_per_token
        + _PER_WIDTH * layers * a.d_model
        + _PER_LOGIT * a.vocab_size
        + _PER_LAYER_TICK * layers / (spec.micro_batch * a.context_length)
    )
    validated = spec.validation_sequences * a.context_length / spec.report_tokens
    updated = _PER_PARAMETER_UPDATED * a.num_trained / spec.tokens_per_step
    saved = _PER_PARAMETER_SAVED * a.num_trained / spec.report_tokens
    return round(computed * (1 + _FORWARD * validated) + updated + saved)


TOKENS = "tokens"  # as if all lanes trained equally many tokens a second
SECONDS = "cpu-seconds-1"

CLOCKS = {TOKENS: Clock(0, _one), SECONDS: Clock(_PER_JOB, _picoseconds)}
