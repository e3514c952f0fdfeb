from __future__ import annotations

import math
import sys

import pytest

from tuner.tracking.metrics import as_reported, as_stored


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.0, -1.5, 1e300])
def test_stored_metric_returns_as_reported(value: float) -> None:
    assert math.isfinite(as_stored(value))
    assert as_reported(as_stored(value)) == value


def test_infinity_is_stored_as_the_largest_double() -> None:
    assert as_stored(-math.inf) == -sys.float_info.max
    assert math.isnan(as_stored(math.nan))
    assert math.isnan(as_reported(math.nan))
