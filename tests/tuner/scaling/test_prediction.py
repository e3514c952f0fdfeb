"""Predictions in files: written once, found by the size of what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tuner.report.drawn import drawn
from tests.tuner.scaling.made_runs import MILLION, best_loss, best_rate, made_runs
from tests.tuner.scaling.test_laws import isoflop
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.scaling.laws import ScalingLaws, fit_laws
from tuner.scaling.optima import optimum_of, smooth
from tuner.scaling.picture import draw_scaling
from tuner.scaling.prediction import (
    PredictedValue,
    Prediction,
    find_prediction,
    read_predictions,
    write_prediction,
)
from tuner.scaling.runs import by_size

SIZES = [MILLION, 2 * MILLION, 4 * MILLION]
TARGET = {"parameters": 16e6}


@pytest.fixture(scope="module")
def laws() -> ScalingLaws:
    return fit_laws(smooth(by_size(made_runs(SIZES)), resamples=100))


def test_prediction_is_written_once_and_found_by_its_size(
    tmp_path: Path, laws: ScalingLaws
) -> None:
    home = Home.of(tmp_path)
    prediction = Prediction.of(laws, ["b-1", "a-1"], TARGET)
    path, _ = write_prediction(prediction, home)
    later = prediction.model_copy(update={"date": prediction.date.replace(year=2999)})
    assert write_prediction(later, home) == (path, prediction)
    other, _ = write_prediction(Prediction.of(laws, ["a-1", "b-1"], {"parameters": 32e6}), home)
    assert [path.name, other.name] == ["a-1-1.json", "a-1-2.json"]
    (trained,) = by_size(made_runs([16 * MILLION]))
    assert find_prediction(home, ["a-1", "b-1"], [trained]) == (path, prediction, trained)
    assert prediction.values["α_max"].low < best_rate(16e6) < prediction.values["α_max"].high
    assert prediction.values["loss"].low < best_loss(16e6) < prediction.values["loss"].high
    with pytest.raises(RecordError, match=r"there are those of .*1.6e\+07 parameters"):
        find_prediction(home, ["a-1", "b-1"], by_size(made_runs([MILLION])))
    with pytest.raises(RecordError, match="before the target is trained"):
        find_prediction(home, ["a-1"], [trained])


def test_the_oldest_prediction_counts(tmp_path: Path, laws: ScalingLaws) -> None:
    home = Home.of(tmp_path)
    first = Prediction.of(laws, ["a-1"], TARGET)
    worse = first.model_copy(update={"trials": 7, "date": first.date.replace(year=2999)})
    write_prediction(worse, home)
    write_prediction(first, home)
    assert [p for _, p in read_predictions(home, ["a-1"])] == [first, worse]
    assert find_prediction(home, ["a-1"], by_size(made_runs([16 * MILLION])))[1] == first


def test_wrong_prediction_of_a_rate_is_noticed() -> None:
    """A parabola through bowls that are steep above predicts a rate that is 22 % too low."""
    best = best_rate(16e6)
    wrong = PredictedValue(value=0.78 * best, low=0.74 * best, high=0.82 * best)
    right = PredictedValue(value=1.02 * best, low=0.97 * best, high=1.07 * best)
    holds = {"wrong": 0, "right": 0}
    for seed in range(40):
        (size,) = by_size(
            made_runs([16 * MILLION], seed=seed, noise=0.003, rates=5, above=2.5)
            + made_runs([16 * MILLION], seed=seed + 99, noise=0.003, rates=5, above=2.5)
        )
        optimum = optimum_of(size)
        assert optimum is not None
        measured = (optimum.values["α_max"], *optimum.intervals["α_max"])
        holds["wrong"] += wrong.holds(*measured)
        holds["right"] += right.holds(*measured)
    assert holds["wrong"] <= 8
    assert holds["right"] >= 34


def test_value_without_an_interval_must_lie_in_that_of_the_prediction() -> None:
    predicted = PredictedValue(value=2.0, low=1.9, high=2.2)
    assert [predicted.holds(v, v, v) for v in (1.89, 1.9, 2.0, 2.2, 2.21)] == [
        False, True, True, True, False
    ]  # fmt: skip
    assert PredictedValue(value=2.0, low=0, high=2.2).holds(0.1, 0.1, 0.1)


@pytest.mark.parametrize("text", ["{", "[]", '{"date": 3}'])
def test_damaged_prediction_is_named(tmp_path: Path, laws: ScalingLaws, text: str) -> None:
    home = Home.of(tmp_path)
    path, _ = write_prediction(Prediction.of(laws, ["a-1"], TARGET), home)
    assert json.loads(path.read_text())["target"] == TARGET
    path.write_text(text)
    with pytest.raises(RecordError, match=r"a-1-1.json is no prediction of tuner"):
        read_predictions(home, ["a-1"])


def test_prediction_that_cannot_be_written_is_refused(tmp_path: Path, laws: ScalingLaws) -> None:
    (tmp_path / "predictions").write_text("a file")
    with pytest.raises(TunerError, match="cannot write the prediction"):
        write_prediction(Prediction.of(laws, ["a-1"], TARGET), Home.of(tmp_path))


def test_laws_in_size_and_tokens_need_the_tokens_of_the_target() -> None:
    runs = []
    for times in (10, 20):
        tokens = times * MILLION

        def budget(n: int, tokens: int = tokens) -> float:
            return tokens

        runs += made_runs(SIZES, tokens=budget)
    found = fit_laws(smooth(by_size(runs), resamples=50))
    with pytest.raises(TunerError, match="--tokens"):
        Prediction.of(found, ["a-1"], TARGET)
    at = Prediction.of(found, ["a-1"], {**TARGET, "tokens": 1e8})
    assert set(at.values) == {"α_max", "loss"}


def test_pictures_show_laws_and_prediction(tmp_path: Path, laws: ScalingLaws) -> None:
    draw_scaling(laws, tmp_path / "p.html", "title", TARGET)
    figures = drawn(tmp_path / "p.html")
    assert list(figures) == ["optima", "law-α_max", "law-loss"]
    assert sum(len(trace["x"]) == 5 for trace in figures["optima"]["data"]) == len(SIZES)
    for law in laws.laws:
        traces = {t["name"]: t for t in figures[f"law-{law.quantity}"]["data"]}
        at, star = law.predict(TARGET), traces["prediction"]
        assert (star["x"], star["y"]) == ([TARGET["parameters"]], [at.value])
        assert star["error_y"]["array"] == [at.high - at.value]
        assert traces["optimum of a size"]["x"] == SIZES
    with pytest.raises(TunerError, match="there is no folder"):
        draw_scaling(laws, tmp_path / "missing" / "p.html", "title")


def test_picture_of_one_budget_of_compute_shows_the_best_size(tmp_path: Path) -> None:
    laws = fit_laws(smooth(by_size(isoflop(1.2e14)), resamples=50))
    draw_scaling(laws, tmp_path / "p.html", "title")
    figures = drawn(tmp_path / "p.html")
    assert list(figures) == ["optima", "law-α_max", "best-size"]
    _, line = figures["best-size"]["layout"]["shapes"]
    assert line["x0"] == laws.best_sizes[0].parameters.value
