"""Estimate how long a search trains, and if compiled ticks repay their compilation."""

from __future__ import annotations

import math

from model.stack.compiled_file import is_compiled
from model.stack.tick_kind import TickKind
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace

# Measured on two cores with models of 0.4 to 48 million parameters (`bench/fusion.py`).
_COMPILE_SECONDS = 25.0  # of a kind of ticks, while other workers wait for it
_LEAST_SECONDS = 5.0  # saved, before anything is compiled or loaded
_EAGER_FLOPS = 35e9  # per second and core
# dtype → share of the time of the ticks that is saved; most in small models
_SAVED = {"float32": 0.2, "mixed_bfloat16": 0.4}
_LEAST_GAIN = 1.25  # times the compilation: the user waits for it before the first report

# Rows that add code to a tick where they are not zero: trials with and without it differ.
_FEATURES = (
    "label_smoothing", "z_loss", "dropout",
    "embedding_dropout", "attention_dropout", "residual_dropout",
)  # fmt: skip


def repays_compilation(space: SearchSpace, facts: DataFacts, workers: int, dtype: str) -> bool:
    """Return whether compiled ticks are expected to save more time than their compilation takes.

    Args:
        space: space of the search.
        facts: facts of its data.
        workers: number of training processes.
        dtype: dtype of the computation.

    Raises:
        CompileError: if this machine has no compiler.
    """
    saved = _SAVED.get(dtype, 0.0) * expected_seconds(space, facts) / workers
    if saved < _LEAST_SECONDS:
        return False
    return saved > _LEAST_GAIN * _COMPILE_SECONDS * num_missing(space, facts, dtype)


def num_missing(space: SearchSpace, facts: DataFacts, dtype: str) -> float:
    """Return how many kinds of ticks a search has that no earlier search has compiled.

    It is infinite if the model has a range: nearly every trial would have a shape of its own.

    Kinds that differ from the defaults in what is not zero count as missing.

    Args:
        space: space of the search.
        facts: facts of its data.
        dtype: dtype of the computation.

    Raises:
        CompileError: if this machine has no compiler.
    """
    try:
        shapes = space.shapes(facts.vocab_size)
    except ValueError:  # a range
        return math.inf
    searched = {parameter.name for parameter in space.searched}
    number: int = len(shapes) * 2 ** len(searched.intersection(_FEATURES))
    spec = space.spec(space.defaults(), facts, space.search.seed)
    kind = TickKind.of(spec, dtype)
    return number - sum(is_compiled(kind._replace(architecture=shape)) for shape in shapes)


def expected_seconds(space: SearchSpace, facts: DataFacts) -> float:
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
