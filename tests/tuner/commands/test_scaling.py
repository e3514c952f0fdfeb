"""`tuner scaling`, on searches made by hand: predict, train, compare."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tuner.cli import main
from tuner.commands.transfer import scaling
from tuner.conductor.trial import Trial

LATE = 4e12  # milliseconds since the epoch, in 2096


class Searches(dict[str, Any]):
    """Searches over widths whose best rate falls with the root of their weights."""

    def __init__(self, make_spec: MakeSpec) -> None:
        self.make = make_spec
        self.rng = np.random.default_rng(1)  # of ten seeds, one misses a 90 % interval: 0 does
        for number, width in enumerate((16, 32, 64)):
            self.add(f"s-{number}", width)

    def add(
        self, name: str, width: int, *, worse: float = 0.0, noise: float = 0.003,
        started: float = LATE,
    ) -> int:  # fmt: skip
        """Add a search, and return the weights of its model."""
        trials = []
        spec = self.make()
        a = spec.architecture.model_copy(update={"d_model": width, "d_ff": 4 * width})
        n = a.num_parameters
        for number in range(5):
            u = number - 2.2
            rate = 3e-3 * (n / 1e5) ** -0.5 * 2**u
            h = spec.hyperparameters.model_copy(
                update={"max_learning_rate": rate, "min_learning_rate": rate / 10}
            )
            own = spec.model_copy(update={"architecture": a, "hyperparameters": h, "seed": number})
            loss = 2 + (n / 1e5) ** -0.3 + 0.05 * u**2 + worse + self.rng.normal(0, noise)
            trials.append(Trial(number, own))
            trials[-1].reports.append(
                Report("0", Status.FINISHED, 1, own.budget_tokens, loss, loss, 1.0, 0.01)
            )
        self[name] = SimpleNamespace(
            name=name, trials=trials, branches=[], confirming=[], started=started
        )
        return n

    def load(self, name: str, home: Any) -> Any:
        return self[name]


@pytest.fixture
def searches(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Searches:
    (tmp_path / "searches").mkdir()
    monkeypatch.setenv("TUNER_HOME", str(tmp_path))
    made = Searches(make_spec)
    monkeypatch.setattr(scaling, "load_search", made.load)
    return made


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured: dict[str, Any] = json.loads(capsys.readouterr().out)
    return captured


def test_prediction_is_compared_with_what_was_trained_after_it(
    searches: Searches, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = ["s-0", "s-1", "s-2"]
    n = searches.add("large-1", 128, noise=0)  # an interval of 90 % may miss noise
    picture = tmp_path / "p.html"
    predict = ["scaling", *names, "--parameters", str(n), "-o", str(picture), "--json"]
    assert main(predict) == 0
    said = told(capsys)
    (law, loss) = said["laws"]
    assert law["exponents"]["parameters"]["value"] == pytest.approx(-0.5, abs=0.05)
    assert loss["constant"]["low"] < 2 < loss["constant"]["high"]
    assert Path(said["prediction_file"]).parent == tmp_path / "predictions"
    assert picture.stat().st_size > 1000
    compare = ["scaling", *names, "--compare", "large-1", "--json"]
    assert main(compare) == 0
    said = told(capsys)
    assert (said["written_before"], said["holds"]) == (True, {"α_max": True, "loss": True})
    searches.add("large-1", 128, worse=3.0, started=0)
    assert main(compare) == 1
    said = told(capsys)
    assert (said["written_before"], said["holds"]) == (False, {"α_max": True, "loss": False})
    assert math.isfinite(said["measured"]["loss"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tokens", "1M"], "--tokens says how long"),
        (["--compare", "s-2", "--parameters", "1M"], "reads the prediction that was written"),
        (["--compare", "s-2"], "no prediction from s-0, s-1 and s-2"),
        (["-o", "missing/p.html"], "there is no folder missing"),
        (["--of", "B"], "B has one value in these trials"),
        (["--flops", "1P"], "give --parameters and --tokens"),
    ],
)
def test_bad_input_is_one_sentence(
    searches: Searches, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    if "--flops" in options:
        for trial in searches["s-1"].trials:  # the middle size trains longest
            h = trial.spec.hyperparameters
            longer = h.model_copy(update={"total_steps": 3 * h.total_steps,
                                          "warmup_steps": 3 * h.warmup_steps,
                                          "cycle_steps": 3 * h.cycle_steps})  # fmt: skip
            trial.spec = trial.spec.model_copy(update={"hyperparameters": longer})
    assert main(["scaling", "s-0", "s-1", "s-2", *options]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1
