from __future__ import annotations

import json
import math
import sys

from tuner.tracking.metrics import as_stored, with_counts


def test_infinity_is_stored_as_the_largest_double() -> None:
    assert as_stored(-math.inf) == -sys.float_info.max
    assert math.isnan(as_stored(math.nan))
    assert [as_stored(value) for value in (0.0, -1.5, 1e300)] == [0.0, -1.5, 1e300]


def test_counts_are_whole_numbers_in_json() -> None:
    stored = {"trials": 4.0, "tokens": 2e6, "best_val_loss": 3.0, "diverged": math.nan}
    text = json.dumps(with_counts({k: v for k, v in stored.items() if k != "diverged"}))
    assert text == '{"trials": 4, "tokens": 2000000, "best_val_loss": 3.0}'
    assert math.isnan(with_counts(stored)["diverged"])
