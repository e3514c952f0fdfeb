"""Metrics as MLflow stores them: values that its databases change, and the load of workers."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_COUNTS = frozenset({
    "trials", "diverged", "tokens", "tokens_spent", "tokens_spared", "confirmation_tokens",
})  # fmt: skip
SYSTEM = "system/"  # prefix of the metrics that MLflow shows as system metrics
PROGRESS = "progress/"  # prefix of the metrics that say how far a running search is


class SystemMetrics(NamedTuple):
    """Load of the workers at one time, and how far the search is.

    Attributes:
        values: metric → value.
        time_ms: time at which the driver received the values, in milliseconds since the epoch.
        tags: tags of the search's run at this time.
    """

    values: Mapping[str, float]
    time_ms: int
    tags: Mapping[str, str] = MappingProxyType({})


def as_stored(value: float) -> float:
    """Return a metric as MLflow stores it: an infinity as the largest double of its sign."""
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def with_counts(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics with counts as whole numbers: MLflow stores all numbers as floats."""
    return {k: int(v) if k in _COUNTS and math.isfinite(v) else v for k, v in metrics.items()}
