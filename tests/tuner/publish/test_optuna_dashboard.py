from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tuner.publish.optuna_dashboard import StudyStore, study_url
from tuner.results.optuna_export import study_trial
from tuner.samplers.observation import Observation
from tuner.samplers.sampler import Sampler
from tuner.space.objective import Objective
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
budget: {tokens: 20000, reports: 4}
"""
LOSS = (Objective(),)


def write(
    url: str, name: str, objectives: Sequence[Objective], trials: Mapping[int, FrozenTrial]
) -> str | None:
    """Write some trials into a study and wait; return the message if this failed."""
    store = StudyStore(url, name, objectives)
    for number, trial in trials.items():
        store.add(number, trial)
    return store.close(timeout=600.0)


def load(tmp_path: Path, text: str = SPACE) -> SearchSpace:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(tmp_path / "space.yaml")


def make_trials(tmp_path: Path, text: str = SPACE) -> dict[int, FrozenTrial]:
    """Return one trial for each state of an observation."""
    space = load(tmp_path, text)
    sampler = Sampler(space, 5_000, 20_000)
    observations = [
        Observation("finished", {5_000: 4.0, 20_000: 3.0}),
        Observation("stopped", {5_000: 4.5, 10_000: 4.25}),
        Observation("diverged", {5_000: 5.0}),
        Observation("failed", {}),
    ]
    return {n: study_trial(space, sampler.suggest(n), o, 1.5) for n, o in enumerate(observations)}


def read(url: str, name: str = "lm-1") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).trials


def test_study_store_writes_what_the_dashboard_shows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    trials = make_trials(tmp_path)
    assert write(url, "lm-1", LOSS, trials) is None
    study = optuna.load_study(study_name="lm-1", storage=url)
    assert study.metric_names == ["val_loss"]
    a, b, c, d = study.trials
    assert (a.state, a.values) == (TrialState.COMPLETE, [3.0])
    assert a.intermediate_values == {5_000: 4.0, 20_000: 3.0}
    assert a.params == {"max_learning_rate": 1e-3, "optimizer": "adamw"}
    assert a.duration is not None
    assert a.duration.total_seconds() == 1.5
    assert (b.state, b.intermediate_values) == (TrialState.PRUNED, {5_000: 4.5, 10_000: 4.25})
    assert (c.state, c.intermediate_values) == (TrialState.FAIL, {5_000: 5.0})
    assert c.user_attrs == {"outcome": "diverged", "trial": 2}
    assert (d.state, d.user_attrs["outcome"]) == (TrialState.FAIL, "failed")
    assert study.best_trial.number == 0


@pytest.mark.slow
def test_study_store_writes_no_trial_twice_after_a_resume(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    trials = make_trials(tmp_path)
    write(url, "lm-1", LOSS, {n: trials[n] for n in (0, 1)})
    assert write(url, "lm-1", LOSS, make_trials(tmp_path)) is None
    assert [t.user_attrs["trial"] for t in read(url)] == [0, 1, 2, 3]
    write(url, "lm-2", LOSS, {0: make_trials(tmp_path)[0]})
    assert (len(read(url)), len(read(url, "lm-2"))) == (4, 1)


@pytest.mark.slow
def test_study_store_replaces_a_trial_that_continued(tmp_path: Path) -> None:
    """The trial was paused when the search was interrupted."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    write(url, "lm-1", LOSS, make_trials(tmp_path))
    space = load(tmp_path)
    draw = Sampler(space, 5_000, 20_000).suggest(0)
    further = Observation("finished", {5_000: 4.5, 10_000: 4.25, 20_000: 2.5})
    assert write(url, "lm-1", LOSS, {1: study_trial(space, draw, further)}) is None
    trials = read(url)
    assert [t.user_attrs["trial"] for t in trials] == [0, 1, 2, 3]
    assert trials[1].values == [2.5]
    assert trials[2].intermediate_values == {5_000: 5.0}


def test_study_store_keeps_the_sign_of_metrics(tmp_path: Path) -> None:
    text = "data: {source: python-docstrings, pairs: true}\nmodel: {n_encoder_layers: 1}\n" + SPACE
    one = load(tmp_path, text + "objective: {metric: token_accuracy}")
    trial = study_trial(one, {"max_learning_rate": 1e-3}, Observation("finished", {9: -0.25}))
    assert (trial.values, trial.intermediate_values) == ([0.25], {9: 0.25})
    several = load(
        tmp_path,
        text + "objective: [{metric: val_loss}, {metric: bleu}]\nsearch: {scheduler: none}",
    )
    observation = Observation("finished", {9: 3.0}, (3.0, 21.5))
    url = f"sqlite:///{tmp_path}/optuna.db"
    trial = study_trial(several, {"max_learning_rate": 1e-3, "optimizer": "adamw"}, observation)
    assert write(url, "both", several.objectives, {0: trial}) is None
    study = optuna.load_study(study_name="both", storage=url)
    assert study.trials[0].values == [3.0, 21.5]
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["val_loss", "bleu"]


@pytest.mark.slow
def test_study_store_retries_without_blocking(tmp_path: Path) -> None:
    """Another process locks the database: `add` returns at once, a retry writes the trials."""
    url = f"sqlite:///{tmp_path}/optuna.db?timeout=1"
    trials = make_trials(tmp_path)
    write(url, "lm-1", LOSS, {0: trials[0]})
    lock = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    store = StudyStore(url, "lm-1", LOSS)
    started = time.perf_counter()
    for number in (1, 2, 3):
        store.add(number, trials[number])
    assert time.perf_counter() - started < 0.5
    time.sleep(0.5)
    lock.execute("ROLLBACK")
    lock.close()
    assert store.close(timeout=30) is None
    assert len(read(url)) == 4


def test_study_store_reports_missing_trials(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/optuna.db"
    trials = make_trials(tmp_path)
    message = write(url, "lm-1", LOSS, trials)
    assert message is not None
    assert message.startswith(f"Optuna's study lm-1 in sqlite:///{tmp_path}")
    assert "lacks 4 trials: unable to open database file; resuming the search writes" in message
    assert "\n" not in message


@pytest.mark.slow
def test_study_store_hides_password(tmp_path: Path) -> None:
    message = write("nosuchdb://me:secret@host/db", "lm-1", LOSS, {0: make_trials(tmp_path)[0]})
    assert message is not None
    assert "secret" not in message
    assert "in nosuchdb://me:***@host/db lacks 1 trial" in message


def test_study_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_OPTUNA_STORAGE", raising=False)
    assert study_url(tmp_path) == f"sqlite:///{tmp_path}/optuna.db"
    monkeypatch.setenv("TUNER_OPTUNA_STORAGE", "postgresql://host/db")
    assert study_url(tmp_path) == "postgresql://host/db"
    monkeypatch.setenv("TUNER_OPTUNA_STORAGE", "off")
    assert study_url(tmp_path) is None
