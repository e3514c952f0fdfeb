"""Exports of trained trials: the README, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.exchange.registry import FORMATS
from model.exchange.torch_state import load_exported
from model.spec.data import TokenizerConfig
from model.spec.hyperparameters import SYMBOL_TABLE
from tests.conftest import MakeSpec
from tests.tuner.trained.trained_trials import make_trial
from tuner import cli
from tuner.arguments.trained import EXPORTS
from tuner.conductor.confirmation import compare_retrained
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.trained.export import check_export, export
from tuner.trained.load_trial import TrainedTrial
from tuner.trained.readme import card


def test_formats_are_those_of_the_command() -> None:
    assert tuple(FORMATS) == EXPORTS


@pytest.mark.parametrize("file_format", EXPORTS[:-1])  # peft writes LoRA trials only
def test_readme_says_what_the_model_is(
    file_format: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    trained = make_trial(make_spec, 7)
    files = export(trained, tmp_path / "out", file_format)
    assert {path.parent for path in files} == {tmp_path / "out"}
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    spec = trained.spec
    for part in (
        "# lm-1, trial 7\n",
        f"{spec.architecture.num_parameters:,} parameters",
        "| val_loss | 2.5000 |",
        "| perplexity | 12.18 |",
        "| tokens | 96 | read in training |" if spec.tokens_per_step == 8 else "| tokens |",
        f"tuner replay {trained.trial.run_id}",
        spec.hash,
        spec.data_fingerprint,
        spec.tokenizer_fingerprint,
        "torch 2",
        "| attend_across_documents | true |",
        "| position | rope |",
        *(f"| {SYMBOL_TABLE[name].symbol} | {name} |" for name in spec.rows),
    ):
        assert part in readme
    assert "confirmed" not in readme


def test_readme_has_the_confirmed_mean(make_spec: MakeSpec) -> None:
    """Of the trial itself, and of one that confirms it."""
    result: Any = SimpleNamespace(
        metric="val_loss", confirmation=compare_retrained({3: [2.0, 2.2, 2.4], 5: [2.5, 2.6, 2.7]})
    )
    trained = make_trial(make_spec, 5)
    wanted = "| confirmed val_loss | 2.6000 | mean of 3 retrainings with fresh seeds, 95 % interval"
    assert wanted in card(trained, result)
    assert "confirmed" not in card(make_trial(make_spec, 4), result)
    assert "confirmed" not in card(trained, None)


def test_exported_torch_is_the_trial(make_spec: MakeSpec, tmp_path: Path) -> None:
    trained = make_trial(make_spec, 1)
    export(trained, tmp_path / "out", "torch")
    model, tokenizer = load_exported(tmp_path / "out")
    ids = torch.tensor([[tokenizer.encode("any text")]])
    assert torch.equal(model(ids), trained.model()(ids))


def test_export_refuses(make_spec: MakeSpec, tmp_path: Path) -> None:
    trained = make_trial(make_spec, 7, status="diverged")
    with pytest.raises(
        TunerError, match="the format must be one of hf, gguf, torch, peft, got 'onnx'"
    ):
        export(trained, tmp_path / "out", "onnx")
    trained.weights["lm_head.weight"][0] = torch.inf
    with pytest.raises(RecordError, match=r"trial 7 of lm-1 \(diverged\) has weights"):
        export(trained, tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "message"),
    [("/proc/x", "cannot write /proc/x"), ("file/out", "because .*file is a file")],
)
def test_target_that_cannot_be_written_is_refused_early(
    tmp_path: Path, folder: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the store is opened, which does not exist."""
    (tmp_path / "file").touch()
    home = str(tmp_path / "home")
    assert cli.main(["export", "-o", str(tmp_path / folder), "--home", home]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path(home).exists()


def test_pattern_of_a_given_tokenizer_is_not_guessed(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The entry `pattern` says nothing where the tokenizer is a file."""
    spec = make_trial(make_spec).spec
    gpt4 = spec.model_copy(update={"tokenizer": TokenizerConfig(pattern="gpt4")})
    with pytest.raises(TunerError, match=r"tokenizer\.pattern: gpt4; use --format hf or torch"):
        check_export(gpt4, tmp_path / "out", "gguf", force=False)
    given = gpt4.tokenizer.model_copy(update={"file": "tokenizer.json"})
    check_export(
        spec.model_copy(update={"tokenizer": given}), tmp_path / "out", "gguf", force=False
    )


# the command --------------------------------------------------------------------------------------


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store that holds one trial, and the runs whose weights were asked for."""

    def make(trained: TrainedTrial) -> list[str]:
        asked: list[str] = []

        found = SimpleNamespace(record=trained.trial, spec=trained.spec)
        trials = SimpleNamespace(of=lambda home: SimpleNamespace(find=lambda run, search: found))

        def load(run: str, **_: Any) -> TrainedTrial:
            asked.append(run)
            return trained

        def unknown(name: str, **_: Any) -> Any:
            raise RecordError("its journal is not recorded")

        monkeypatch.setattr("tuner.commands.export.RecordedTrials", trials)
        for module in ("export", "output"):
            name = f"tuner.commands.{module}.recorded_home"
            monkeypatch.setattr(name, lambda options: Home.of())
        monkeypatch.setattr("tuner.trained.load_trial.load_trial", load)
        monkeypatch.setattr("tuner.commands.export.load_search", unknown)
        return asked

    return make


def test_command_refuses_before_anything_is_loaded(
    recorded: Any, make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = recorded(make_trial(make_spec, norm="layernorm", qk_norm=True))
    out = tmp_path / "out"
    assert cli.main(["export", "abcdefgh", "-o", str(out)]) == 2
    assert capsys.readouterr().err == (
        "tuner export: the format hf writes a model of Hugging Face transformers, which "
        "cannot have norm: layernorm; use --format torch\n"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    arguments = ["export", "abcdefgh", "--format", "torch", "-o", str(tmp_path / "full")]
    for force in ([], ["--force"]):
        assert cli.main([*arguments, *force]) == 2
        assert "holds file, which is not part of an export" in capsys.readouterr().err
    assert asked == []
    assert not out.exists()


def test_command_writes_a_folder(
    recorded: Any, make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = make_trial(make_spec, 3)
    asked = recorded(trained)
    out = tmp_path / "out"
    assert cli.main(["export", "abcdefgh", "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["trial"] == 3
    assert printed["files"] == sorted(path.name for path in out.iterdir())
    assert printed["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert asked == [trained.trial.run_id]
    assert cli.main(["export", "abcdefgh", "-o", str(out), "--force", "--format", "torch"]) == 0
    assert "trial 3 of lm-1 is in" in capsys.readouterr().out
    assert (out / "spec.json").exists()


def test_command_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export"])
    assert ended.value.code == 2
    assert "the following arguments are required: -o/--output" in capsys.readouterr().err
