"""`tuner suggest`: for a size, for a space, and the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tuner.simulated_search import SPACE
from tuner.cli import main
from tuner.space_file.load import load_space


def test_size_is_answered_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--parameters", "200k", "--tokens", "1M", "--data", "prose"]
    home = ["--home", str(tmp_path)]
    assert main(["suggest", *size, *home, "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert (
        value["settings"]["max_learning_rate"]["low"]
        < value["settings"]["max_learning_rate"]["high"]
    )
    assert value["sources"][0]["name"] == "atlas"
    assert Path(value["prediction"]).parent == tmp_path / "predictions"
    assert "Expected val_loss" in captured.err
    assert main(["suggest", "--record", *home]) == 0
    captured = capsys.readouterr()
    assert "200,000 weights, 1,000,000 tokens" in captured.out
    assert "No search of a predicted size and budget has begun since." in captured.out


def test_space_is_written_with_priors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.yaml", tmp_path / "b.yaml"
    path.write_text(SPACE.replace("%s", "trials: 4"), encoding="utf-8")
    command = ["suggest", "--space", str(path), "-o", str(out), "--home", str(tmp_path / "none")]
    command += ["--set", "search.trials=7", "--set", "engine.workers=1"]
    command += ["--set", "hyperparameters.weight_decay={log: [2e-3, 0.5]}"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert f"tuner search --space {out}" in captured.err
    assert not (tmp_path / "none").exists()
    space = load_space(out)
    assert (space.search.trials, space.engine.workers) == (7, 1)
    assert "On the command line" not in out.read_text(encoding="utf-8")
    (decay,) = (p for p in space.searched if p.name == "weight_decay")
    assert (decay.distribution.low, decay.distribution.high) == (2e-3, 0.5)
    priors = {p.name: p.prior for p in space.searched}
    assert set(priors) == {"max_learning_rate", "warmup_steps", "weight_decay", "batch_size"}
    assert all(prior is not None for prior in priors.values())
    assert main(command) == 2
    assert f"{out} exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parameters", "1M"], "--parameters and --tokens belong together; give both"),
        (
            ["--parameters", "1M", "--tokens", "1M", "-o", "a.yaml"],
            "needs the --space to begin with",
        ),
        (["--parameters", "1M", "--tokens", "1M", "--learn-from", "x-1"], "there is no search x-1"),
        (
            ["--parameters", "1M", "--tokens", "1M", "--data", "cod"],
            "no text cod; did you mean code",
        ),
        (["--space", "lm", "--data", "code"], "--data belongs to --parameters"),
        (["--record"], ""),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    status = main(["suggest", *options, "--home", str(tmp_path / "home")])
    captured = capsys.readouterr()
    assert status == (2 if message else 0)
    assert message in captured.err
    if not message:
        assert "No suggestion is recorded in" in captured.out
