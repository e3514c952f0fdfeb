"""Estimate how long a search trains, and if compiled ticks repay their compilation."""

from __future__ import annotations

from tuner.space.data_facts import DataFacts
from tuner.space.estimate import expected_tokens
from tuner.space.space import SearchSpace

# Measured on two cores with models of 0.4 to 48 million parameters (`bench/fusion.py`).
_COMPILE_SECONDS = 40.0  # of a kind of ticks, while other workers wait for it
_EAGER_FLOPS = 25e9  # per second and core
_SAVED = 0.25  # of the time of the ticks; most in small models
_LEAST_GAIN = 2.0  # times the compilation: early stopping may end a search sooner than expected

# Rows that add code to a tick where they are not zero: trials with and without it differ.
_FEATURES = (
    "label_smoothing", "z_loss", "dropout",
    "embedding_dropout", "attention_dropout", "residual_dropout",
)  # fmt: skip


def repays_compilation(space: SearchSpace, facts: DataFacts, workers: int) -> bool:
    """Return whether compiled ticks are expected to save clearly more time than they cost.

    Args:
        space: space of the search.
        facts: facts of its data.
        workers: number of training processes.
    """
    try:
        shapes = space.shapes(facts.vocab_size)
    except ValueError:  # a range: nearly every trial would have a shape of its own
        return False
    searched = {parameter.name for parameter in space.searched}
    kinds = len(shapes) * 2 ** len(searched.intersection(_FEATURES))
    seconds = training_seconds(space, facts)
    cost: float = _COMPILE_SECONDS * kinds
    return _SAVED * seconds / workers > _LEAST_GAIN * cost


def training_seconds(space: SearchSpace, facts: DataFacts) -> float:
    """Return the expected seconds that one core of a CPU would train, without compilation.

    Args:
        space: space of the search.
        facts: facts of its data.
    """
    try:
        shapes = space.shapes(facts.vocab_size)
    except ValueError:  # a range
        shapes = [space.spec(space.defaults(), facts, 0).architecture]
    flops = sum(shape.flops_per_token for shape in shapes) / len(shapes)
    return expected_tokens(space, facts)[1] * flops / _EAGER_FLOPS
