"""Pictures of a search space: its curves, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.schedules import ScheduleContext, learning_rate
from tests.tuner.report.drawn import drawn
from tuner.cli import main
from tuner.report.learning_rates import rate_curves
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

FACTS = DataFacts(2048, 400_000, 40_000, "", "")
SPACE = """
name: rates
hyperparameters:
  schedule: {choice: [cosine, constant, noam, plateau]}
  α: {log: [1e-4, 1e-2], when: {schedule: constant}}
  α_max: {log: [1e-4, 1e-2]}
  T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}
  B: {choice: [8, 16]}
  β1: {uniform: [0.8, 0.95]}
model: {d_model: {choice: [32, 64]}}
budget: {tokens: 102_400}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rate_curves_are_the_defaults_and_the_ends(tmp_path: Path) -> None:
    space = load_space(str(write(tmp_path, SPACE)))
    panels = rate_curves(space, FACTS)
    assert list(panels) == ["cosine", "constant", "noam", "plateau"]
    labels = {name: [curve.label for curve in curves] for name, curves in panels.items()}
    warmup = ["T_warmup = 0·T_total", "T_warmup = 0.2·T_total"]
    peaks = ["α_max = 0.0001", "α_max = 0.01"]
    assert sorted(labels["cosine"]) == sorted(["defaults", *peaks, *warmup, "B = 8"])
    assert sorted(labels["plateau"]) == sorted(labels["cosine"])
    rates = ["α = 0.0001", "α = 0.01"]
    assert sorted(labels["constant"]) == sorted(["defaults", *rates, *warmup, "B = 8"])
    assert sorted(labels["noam"]) == sorted(["defaults", "d_model = 32", *warmup, "B = 8"])


def test_rate_curves_equal_those_of_trials(tmp_path: Path) -> None:
    space = load_space(str(write(tmp_path, SPACE)))
    curves = {curve.label: curve for curve in rate_curves(space, FACTS)["noam"]}
    drawn = {**space.defaults(), "schedule": "noam", "d_model": 32}
    spec = space.spec(drawn, FACTS, seed=0)
    h, facts = spec.hyperparameters, ScheduleContext(32)
    assert curves["d_model = 32"].steps.tolist() == list(range(1, 101))
    expected = [learning_rate(step, h, facts) for step in range(1, 101)]
    assert curves["d_model = 32"].rates.tolist() == expected
    assert len(curves["B = 8"].steps) == 200


def test_rate_curves_of_a_long_trial_are_sampled(tmp_path: Path) -> None:
    text = "name: long\nhyperparameters: {T_total: 1_000_000}\n"
    (curve,) = rate_curves(load_space(str(write(tmp_path, text))), FACTS)["cosine"]
    assert len(curve.steps) <= 2000
    assert (curve.steps[0], curve.steps[-1]) == (1, 1_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("schedules", [["cosine"], list(SYMBOL_TABLE["schedule"].choices)])
def test_validate_writes_picture(
    tmp_path: Path, schedules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"name: x\nhyperparameters: {{schedule: {{choice: [{', '.join(schedules)}]}}}}\n"
    page = tmp_path / "rates.html"
    arguments = ["--space", str(write(tmp_path, text + "budget: {tokens: 100_000}\n"))]
    assert main(["validate", *arguments, "--home", str(tmp_path), "--plot", str(page)]) == 0
    figures = drawn(page)
    assert list(figures) == schedules
    assert all(figure["data"][-1]["name"] == "defaults" for figure in figures.values())
    assert f"drawn in {page}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_validate_reports_path_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--space", str(write(tmp_path, SPACE)), "--home", str(tmp_path)]
    picture = tmp_path / "nowhere" / "rates.html"
    assert main(["validate", *arguments, "--plot", str(picture)]) == 2
    assert f"there is no folder {picture.parent}" in capsys.readouterr().err
