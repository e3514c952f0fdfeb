"""Weights of recorded trials; how they are loaded is tested end to end in test_search_replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import ENVIRONMENT
from tuner.errors import RecordError
from tuner.home import Home
from tuner.trained.load_trial import load_trial


def test_diverged_trial_is_refused_before_it_is_trained_again(
    open_tracker: Any, make_spec: MakeSpec, tmp_path: Path, store: str
) -> None:
    tracker = open_tracker()
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.end_trial(0, "diverged")
    tracker.finish("finished", {}, None)
    with pytest.raises(RecordError, match="trial 0 of lm-1 diverged: its weights are not finite"):
        load_trial("lm-1/0", home=Home(tmp_path, store))
