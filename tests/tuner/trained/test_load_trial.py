"""Weights of recorded trials; how they are loaded is tested end to end in test_search_replay."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from model.engine.report import Status
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import Begin, report
from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.trained.load_trial import load_trial


def test_diverged_trial_is_refused_before_it_is_trained_again(
    begin_search: Begin, make_spec: MakeSpec, tmp_path: Path, store: str
) -> None:
    search = begin_search()
    search.trial(0, make_spec(), report(4, math.nan, Status.DIVERGED), outcome="diverged")
    search.finish()
    with pytest.raises(RecordError, match="trial 0 of lm-1 diverged: its weights are not finite"):
        load_trial("lm-1/0", home=Home(tmp_path, store))
