"""The registry: one version per model, the champion, and the model as MLflow loads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from model.engine.engine import Engine
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import VOCAB, MakeSpec
from tests.tuner.tracking.recorded import ENVIRONMENT, Begin
from tuner.conductor.confirmation import compare_retrained
from tuner.conductor.outcome import FINISHED
from tuner.conductor.trial import Trial
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.journal.events import Reported
from tuner.publish.model_card import MOST
from tuner.publish.registry import RegisteredVersion, register, takes_place
from tuner.results.result import SearchResult
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.tracking.record import Record
from tuner.trained.load_trial import load_trial

Tokens = tuple[np.ndarray, np.ndarray]
Searched = Callable[..., SearchResult]

FACTS = DataFacts(VOCAB, 5000, 1000, "data", "tokenizer")
SPACE = """\
name: lm
model: {d_model: 16, n_layers: 2, n_heads: 2, context_length: 8, d_ff: 32}
hyperparameters:
  α_max: {log: [1e-3, 1e-1]}
  optimizer: {choice: [adamw, lion]}
budget: {tokens: 999}
"""


@pytest.fixture
def home(tmp_path: Path, store: str) -> Home:
    return Home(tmp_path, store)


@pytest.fixture
def searched(
    home: Home, tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, tokenizer: Tokenizer,
    begin_search: Begin
) -> Searched:  # fmt: skip
    """Makes searches of one trial, trained and recorded."""
    (tmp_path / "lm.yaml").write_text(SPACE, encoding="utf-8")
    space = load_space(tmp_path / "lm.yaml")

    def make(name: str = "lm-1", *, keep: bool = True, **options: Any) -> SearchResult:
        made = make_spec(steps=6, **options)
        spec = made.model_copy(update={"tokenizer_fingerprint": tokenizer.fingerprint})
        folder = home.search(name) / "checkpoints"
        row = Trial(0, spec, {}, outcome=FINISHED)
        row.reports = list(Engine(*tokens, checkpoint_dir=folder).run([spec]))
        search = begin_search(name, space=space, facts=FACTS)
        search.trial(0, spec, *row.reports, outcome="finished")
        events = [entry.event for entry in search.journal.entries]
        row.times = [event.time_ms for event in events if isinstance(event, Reported)]
        runs = search.mlflow.runs
        runs.attach(tokenizer.save(tmp_path / name, "huggingface")[0], None)
        search.finish(best=0, kept=[0] if keep else [])
        return SearchResult(
            name, space, "val_loss", [row], row, search.mlflow.run_ids, runs.experiment_id, 1.0,
            0.5, run_id=runs.run_id, environment=ENVIRONMENT,
        )  # fmt: skip

    return make


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return Record(home.tracking_uri).client


def counts(client: MlflowClient) -> tuple[int, int]:
    """Versions and logged models."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    versions = client.search_model_versions("name = 'lm'")
    return len(versions), len(client.search_logged_models(experiments))


@pytest.mark.slow
def test_best_trial_is_registered_once(
    home: Home, searched: Searched, client: MlflowClient
) -> None:
    result = searched()
    first = register(home, result)
    assert first == RegisteredVersion("lm", 1, is_new=True, is_champion=True)
    assert first.description == "version 1 of lm, its champion"
    again = register(home, result)
    assert again == replace(first, is_new=False)
    same_weights = searched("lm-2")  # another search with the same best trial
    assert register(home, same_weights) == again
    assert counts(client) == (1, 1)
    version = client.get_model_version_by_alias("lm", "champion")
    spec, best = result.best.spec, result.best
    assert best.last is not None
    assert version.run_id == version.tags["run"] == result.run_ids[0]
    assert version.tags["search"] == "lm-1"
    assert float(version.tags["value"]) == best.last.val_loss
    assert version.tags["tokenizer_fingerprint"] == spec.tokenizer_fingerprint
    assert version.tags["spec_hash"] == spec.hash
    assert client.get_run(result.run_id).data.tags["mlflow.note.content"] == version.description
    outputs = client.get_run(result.run_ids[0]).outputs.model_outputs
    assert [output.step for output in outputs] == [6]
    (measured,) = client.get_logged_model(outputs[0].model_id).metrics
    assert (measured.key, measured.value, measured.step) == ("val_loss", best.last.val_loss, 6)
    assert (measured.dataset_name, measured.run_id) == ("python-stdlib", result.run_ids[0])
    assert len(client.get_metric_history(result.run_ids[0], "val_loss")) == len(best.reports)


@pytest.mark.slow
def test_resumed_search_brings_its_version_up_to_date(
    home: Home, searched: Searched, client: MlflowClient
) -> None:
    result = searched()
    register(home, result)
    before = client.get_model_version("lm", "1")
    assert "confirmed" not in before.tags
    more = replace(result, confirmation=compare_retrained({0: [2.0, 4.0]}))
    assert register(home, more) == RegisteredVersion("lm", 1, is_new=False, is_champion=True)
    after = client.get_model_version("lm", "1")
    assert after.tags["confirmed"] == "3.0"
    assert "Mean of 2 fresh seeds: **3.0000**; 95 % interval" in after.description
    assert counts(client) == (1, 1)


@pytest.mark.slow
def test_interrupted_registration_continues(
    home: Home, searched: Searched, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = searched()
    for call in ("log_model_artifacts", "finalize_logged_model", "create_model_version"):
        with monkeypatch.context() as patch:

            def refuse(*_: Any, **__: Any) -> None:
                raise OSError("No space left on device")

            patch.setattr(MlflowClient, call, refuse)
            with pytest.raises(StoreError, match=r"lm-1 is not registered: No space .*tuner sync"):
                register(home, result)
    assert counts(client) == (0, 1)
    registered = register(home, result)
    assert registered is not None
    assert registered.is_new
    assert counts(client) == (1, 1)


@pytest.mark.slow
def test_weights_that_were_not_kept_are_not_registered(home: Home, searched: Searched) -> None:
    assert register(home, searched(keep=False)) is None


@pytest.mark.slow
def test_champion_moves_to_better_version(
    home: Home, searched: Searched, client: MlflowClient
) -> None:
    """Seeds differ in their losses; another context length is another measure."""
    results = [searched(f"lm-{seed}", seed=seed) for seed in range(3)]
    best, good, bad = sorted(results, key=lambda result: result.best.objective("val_loss"))
    for version, (result, champion) in enumerate([(good, 1), (best, 2), (bad, 2)], 1):
        is_champion = version == champion
        assert register(home, result) == RegisteredVersion("lm", version, True, is_champion)
        assert int(client.get_model_version_by_alias("lm", "champion").version) == champion
    other = searched("other", model={"context_length": 4})
    assert register(home, other) == RegisteredVersion("lm", 4, is_new=True, is_champion=True)
    assert counts(client) == (4, 4)
    # sent again, an older one that was measured otherwise stays what it was
    assert register(home, best) == RegisteredVersion("lm", 2, is_new=False, is_champion=False)


@pytest.mark.slow
def test_name_may_have_dots(home: Home, searched: Searched, client: MlflowClient) -> None:
    """MLflow takes them in the name of a registered model, and not in that of a logged one."""
    result = searched()
    space = result.space.model_copy(update={"name": "lm-0.5b"})
    assert register(home, replace(result, space=space)) == RegisteredVersion(
        "lm-0.5b", 1, True, True
    )
    assert client.get_model_version_by_alias("lm-0.5b", "champion").run_id == result.run_ids[0]


@pytest.mark.slow
def test_older_state_is_not_taken_for_the_newest(
    home: Home, searched: Searched, client: MlflowClient, begin_search: Begin
) -> None:
    """A search that ended at a limit was registered; its best went on, and was kept only then."""
    result = searched()
    assert result.best.last is not None
    row, last = result.best, result.best.last
    assert register(home, result) == RegisteredVersion("lm", 1, True, True)
    later = replace(last, step=last.step + 1, tokens=last.tokens + 32)
    search = begin_search("lm-1")
    search.resume(0)
    search.report(0, later, outcome="finished")
    search.flush()
    trial = Record(home.tracking_uri).trial(result.run_ids[0])
    assert trial.checkpoint_tokens == last.tokens < trial.metrics["tokens"] == later.tokens
    assert not trial.keeps_checkpoint
    gone_on = replace(row, reports=[*row.reports, later], times=[*row.times, 9000])
    assert register(home, replace(result, trials=[gone_on], best=gone_on)) is None
    assert counts(client) == (1, 1)


ALIKE = {
    "metric": "val_loss", "value": "2.0", "data_fingerprint": "d", "tokenizer_fingerprint": "t",
    "context_length": "8", "validation_sequences": "9",
}  # fmt: skip


@pytest.mark.parametrize(
    ("new", "present", "moves"),
    [
        ({"value": "1.9"}, {}, True),
        ({"value": "2.0"}, {}, False),
        ({"value": "2.1"}, {}, False),
        ({"value": "2.1"}, {"tokenizer_fingerprint": "u"}, True),
        ({"value": "2.1"}, {"data_fingerprint": "e"}, True),
        ({"value": "2.1"}, {"validation_sequences": "10"}, True),
        ({"value": "2.1"}, {"metric": "perplexity"}, True),
        ({"value": "1.9", "confirmed": "2.2"}, {"confirmed": "2.1"}, False),
        ({"value": "2.1", "confirmed": "2.1"}, {"confirmed": "2.2"}, True),
        ({"value": "2.1", "confirmed": "1.0"}, {}, False),
        ({"metric": "bleu", "value": "0.3"}, {"metric": "bleu", "value": "0.2"}, True),
        ({"metric": "bleu", "value": "0.1"}, {"metric": "bleu", "value": "0.2"}, False),
        ({"value": "2.1"}, {"value": "good"}, True),
    ],
)
def test_champion_rule(new: dict[str, str], present: dict[str, str], moves: bool) -> None:
    found = takes_place(ALIKE | new, ALIKE | present, is_newer=True, is_own=False)
    assert found is moves


def test_champion_does_not_move_back_but_for_its_own_search() -> None:
    other = {"data_fingerprint": "e"}
    assert not takes_place(ALIKE, ALIKE | other, is_newer=False, is_own=False)
    worse = {"value": "2.1", "confirmed": "2.1"}  # the search itself says so, with fresh seeds
    assert takes_place(ALIKE | worse, ALIKE, is_newer=False, is_own=True)


@pytest.mark.slow
def test_card_has_result_and_usage(home: Home, searched: Searched, client: MlflowClient) -> None:
    result = searched()
    register(home, result)
    card = client.get_model_version("lm", "1").description
    h = result.best.spec.hyperparameters
    for expected in (
        f"Trial 0 of lm-1: val_loss {result.best.objective('val_loss'):.4f}, by which",
        f"| α_max | max_learning_rate | log-uniform 0.001 … 0.1 | {h.max_learning_rate} |",
        "| optimizer | one of adamw, lion | adamw |", f"tuner replay {result.run_ids[0][:8]}",
        'load_model("models:/lm@champion")', "torch 2", "moves to a new version unless",
    ):  # fmt: skip
        assert expected in card, expected
    assert len(card) < MOST / 2


# as MLflow loads it -------------------------------------------------------------------------------


def greedy(home: Home, run: str, prompt: str, count: int) -> str:
    """The most probable tokens, each from a whole reading of what stands before it."""
    trained = load_trial(run, home=home)
    model, length = trained.model(), trained.spec.architecture.context_length
    ids = trained.tokenizer.encode(prompt)
    begun = len(ids)
    for _ in range(count):
        assert len(ids) <= length
        with torch.no_grad():
            ids.append(int(model(torch.tensor([[ids]]))[0, 0, -1].argmax()))
    return trained.tokenizer.decode(ids[begun:])


@pytest.mark.slow
def test_champion_generates_text_of_its_weights(
    home: Home, searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = searched()
    register(home, result)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/lm@champion")
    params = {"max_tokens": 5, "temperature": 0.0}
    prompts = ["abc", "", "xy"]
    texts = model.predict(prompts, params=params)
    assert texts[0] == greedy(home, result.run_ids[0], "abc", 5)
    assert texts[2] == greedy(home, result.run_ids[0], "xy", 5)
    for same in (pd.DataFrame({"prompt": prompts}), pd.DataFrame({"any": prompts})):
        assert model.predict(same, params=params) == texts
    assert model.predict("abc", params=params) == texts[:1]
    assert model.predict(["abc"], params=params) == texts[:1], "whatever stands beside it"
    drawn = [model.predict(["abc"], params={"seed": seed})[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(Exception, match="temperature"):
        model.predict(["abc"], params={"temperature": -1.0})


@pytest.mark.slow
def test_champion_loads_without_warnings_where_the_package_is(
    home: Home, searched: Searched
) -> None:
    register(home, searched())
    code = (
        "import mlflow, sys\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/lm@champion')\n"
        "print(len(model.predict(['def '], params={'max_tokens': 3, 'temperature': 0.0})))\n"
    )
    command = [sys.executable, "-c", code, home.tracking_uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    assert "requirement" not in done.stderr
