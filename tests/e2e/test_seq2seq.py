"""A search over encoder–decoders on pairs from a file; its best trial is replayed and served.

The trials are proxies of a larger model, so that these go through a complete search as well.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import mlflow.pyfunc
import pytest

from model.generation.settings import GenerationSettings
from tests.e2e.conftest import Workplace
from tuner.home.home import Home
from tuner.trained.generate import sample
from tuner.trained.load_trial import load_trial

pytestmark = pytest.mark.slow

SPACE = """\
name: reversed
data: {files: pairs.jsonl, pairs: true, source_field: text, target_field: backwards}
tokenizer: {vocab_size: 270}
model: {d_model: 64, n_layers: 2, n_encoder_layers: 2, n_heads: 4, source_length: 12,
        context_length: 12, d_ff: 128, position: {choice: [learned, relative]}}
proxy: {width: 1/2, depth: 1/2}
hyperparameters: {α_max: {log: [3e-3, 1e-2]}, B: 16}
budget: {tokens: 30000, reports: 3, validation_tokens: 300}
search: {trials: 2, scheduler: none}
confirm: off
"""


def test_encoder_decoder_is_searched_replayed_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdef", k=draw.randint(1, 8))) for _ in range(600)]
    rows = [json.dumps({"text": text, "backwards": text[::-1]}) for text in texts]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    workplace = Workplace(tmp_path)
    search = ("search", "--space", "space.yaml", "--workers", "1", "--home", "runs", "--json")
    run = workplace.tuner(*search)
    assert run.status == 0, run.err
    assert "of the target's tokens right; BLEU " in run.err
    shown = workplace.tuner("show", run.json["best_run"], "--home", "runs", "--json")
    assert "proxy of 2 layers of 64, 4 heads, an encoder of 2" in shown.err
    sizes = ("d_model", "n_layers", "n_encoder_layers", "n_heads", "d_ff")
    for model, expected in (("target", [64, 2, 2, 4, 128]), ("spec", [32, 1, 1, 2, 64])):
        entries = shown.json[model] if model == "target" else shown.json[model]["architecture"]
        assert [entries[name] for name in sizes] == expected
    listed = workplace.tuner("show", "--home", "runs")
    assert "Proxy: trials train 1/2 of the width and 1/2 of the depth of the target" in listed.out
    *earlier, last = shown.json["reports"].values()
    assert last["token_accuracy"] > max(0.5, earlier[0]["token_accuracy"])
    assert 0 < last["bleu"] <= 100
    assert all("bleu" not in report for report in earlier)
    replayed = workplace.tuner("replay", "--home", "runs")
    assert replayed.status == 0, replayed.err
    assert "bit-exact" in replayed.out + replayed.err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/reversed@champion")
    trained = load_trial(run.json["best_run"], home=Home.at(tmp_path / "runs"))
    expected = sample([trained], "a b c", settings=GenerationSettings(temperature=0))
    assert model.predict(["a b c"], params={"temperature": 0.0}) == expected != [""]
