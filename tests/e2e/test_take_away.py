"""What a search found leaves it: as text, and for tools that have nothing of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import GenerationSettings, load_exported
from tests.e2e.conftest import Run, Workplace
from tests.model.exchange.test_export import SCRIPT, library_text
from tuner import cli, load_search, load_trial, sample
from tuner.home.home import Home
from tuner.trained.load_trial import TrainedTrial


@pytest.fixture(scope="module")
def home(workplace: Workplace, searched: Run) -> Home:
    return Home.at(workplace.home)


@pytest.fixture(scope="module")
def best(home: Home) -> TrainedTrial:
    return load_trial(home=home)


@pytest.mark.slow
def test_best_trial_leaves_for_transformers(
    workplace: Workplace, home: Home, best: TrainedTrial, tmp_path: Path
) -> None:
    """A process without our packages gives its logits, and the ids of a megabyte."""
    run = workplace.tuner("export", "-o", str(tmp_path / "hf default"), "--json")
    assert run.status == 0, run.err
    assert run.json["run"] == load_search(home=home).run_ids[best.trial.number]
    a = best.spec.architecture
    ids = np.random.default_rng(0).integers(a.vocab_size, size=(2, a.context_length))
    np.save(tmp_path / "ids.npy", ids)
    text = library_text(1_000_000)
    (tmp_path / "text.txt").write_bytes(text.encode())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-P", str(SCRIPT), str(tmp_path)],
        check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    with torch.inference_mode():
        ours = best.model()(torch.from_numpy(ids).unsqueeze(0))[0]
    theirs = torch.from_numpy(np.load(tmp_path / "hf default.logits.npy"))
    assert (ours - theirs).abs().max() < 1e-5
    assert np.load(tmp_path / "hf default.ids.npy").tolist() == best.tokenizer.encode(text)
    readme = (tmp_path / "hf default" / "README.md").read_text(encoding="utf-8")
    assert f"| val_loss | {best.trial.metrics['val_loss']:.4f} |" in readme
    assert "| confirmed val_loss |" in readme


@pytest.mark.slow
def test_best_trial_leaves_as_a_space(
    workplace: Workplace, best: TrainedTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    """The written space is valid where it is, with its paths, and begins with this trial."""
    home = ["--home", str(workplace.home)]
    assert cli.main(["show", "--yaml", "--json", *home]) == 0
    text = json.loads(capsys.readouterr().out)["yaml"]
    assert "# A search of this file trains this trial again" in text
    path = workplace.folder / "elsewhere" / "best.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert cli.main(["validate", "--space", str(path), "--json", *home]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["full_tokens"] == explained["budget_tokens"]  # of one trial
    assert cli.main(["show", "--yaml", "--csv", *home]) == 2
    assert "--yaml prints one trial; leave --by and --csv out" in capsys.readouterr().err


@pytest.mark.slow
def test_trials_write_side_by_side_what_they_write_alone(
    home: Home, best: TrainedTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    result = load_search(home=home)
    numbers = [row.number for row in result.ranked[:3]]
    names = [f"{result.name}/{number}" for number in numbers]
    common = ["generate", "--home", str(home.root), "--prompt", "the quick", "--seed", "5"]
    assert cli.main([*common, "--json", "--runs", *names]) == 0
    generated: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["texts"]
    assert [text["trial"] for text in generated] == numbers
    assert len({text["text"] for text in generated}) == len(numbers)
    for name, text in zip(names, generated, strict=True):
        assert cli.main([*common, name]) == 0
        assert capsys.readouterr().out == f"the quick{text['text']}\n"


@pytest.mark.slow
def test_command_streams_same_text_as_python(workplace: Workplace, best: TrainedTrial) -> None:
    command = [sys.executable, "-m", "tuner", "generate", "--prompt", "-", "--max-tokens", "30"]
    done = subprocess.run(
        command, cwd=workplace.folder, input="by night", capture_output=True, text=True, check=True
    )
    settings = GenerationSettings(max_tokens=30)
    assert done.stdout == "by night" + sample([best], "by night", settings=settings)[0] + "\n"


@pytest.mark.slow
def test_model_leaves_as_plain_torch(home: Home, best: TrainedTrial, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert cli.main(["export", "--home", str(home.root), "--format", "torch", "-o", out]) == 0
    model, tokenizer = load_exported(out)
    assert tokenizer.fingerprint == best.tokenizer.fingerprint
    for name, weight in model.state_dict().items():
        assert torch.equal(weight[0], best.weights[name])
