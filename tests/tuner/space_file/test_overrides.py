from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.cli import main
from tuner.errors import SpaceError
from tuner.space.parameter import Constant
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space, read_space
from tuner.space_file.overrides import Override, annotated

SPACE = """\
model: {d_model: 64, n_heads: 4}
hyperparameters:
  α_max: {log: [1e-4, 1e-2]}
  optimizer: {grid: [adamw, lion]}
budget: {tokens: 20000}
"""


def load(folder: Path, *settings: str) -> SearchSpace:
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return load_space(folder / "space.yaml", [Override.parse(text) for text in settings])


def test_override_takes_the_place_of_the_file(tmp_path: Path) -> None:
    space = load(
        tmp_path, "budget.tokens=1e4", "search.trials=2", "model.d_model={choice: [8, 16]}"
    )
    assert (space.budget.tokens, space.search.trials) == (10_000, 2)
    assert {shape.d_model for shape in space.shapes(300)} == {8, 16}
    assert load(tmp_path, "name=a", "name=b").name == "b"  # the last one counts


@pytest.mark.parametrize("name", ["α_max", "alpha_max", "max_learning_rate"])
def test_override_accepts_every_spelling(tmp_path: Path, name: str) -> None:
    space = load(tmp_path, f"hyperparameters.{name}=0.01")
    assert space.hyperparameters["max_learning_rate"].distribution == Constant(value=0.01)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.d_model=two", "--set model.d_model: d_model must be a whole number, got two"),
        ("model.d_modell=8", "--set model.d_modell: unknown entry of model: d_modell; did you"),
        ("budget.tokns=8", "--set budget.tokns: unknown key in budget: tokns; did you mean tokens"),
        ("bugdet.tokens=8", "--set bugdet.tokens: unknown key bugdet; did you mean budget?"),
        (
            "hyperparameters.α_max={log: [0, 1]}",
            "--set hyperparameters.α_max: α_max: the low end must",
        ),
        ("hyperparameters.alpha_max=-1", "--set hyperparameters.alpha_max: α_max must be a number"),
        ("search=4", "--set search: search must be a mapping"),
        (
            "search.trials.n=4",
            "--set search.trials.n: search.trials must be a whole number, got {n: 4}",
        ),
        ("lr=0.1", "--set lr: unknown key lr; did you mean hyperparameters.lr?"),
        ("search.trials=1", "--set search.trials: the grid has 2 points, but search.trials is 1"),
        ("model.n_heads=3", "d_model must be a multiple of n_heads, got 64 and 3 (with --set mod"),
        ("budget.tokens=null", "give exactly one of budget.tokens, budget.flops, T_total and N_"),
    ],
)
def test_override_mistakes_name_the_option(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load(tmp_path, setting)
    assert message in str(caught.value)
    assert setting.partition("=")[0] in str(caught.value)


def test_override_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path)
    space = ["--space", str(tmp_path / "space.yaml"), "--home", str(tmp_path / "home")]
    assert main(["validate", *space, "--set", "budget.tokens=512", "--trials", "7"]) == 0
    assert "7 trials of at most 512 tokens and" in capsys.readouterr().out
    assert main(["validate", *space, "--trials", "1"]) == 2
    assert capsys.readouterr().err.startswith(
        "--trials: the grid has 2 points, but search.trials is 1"
    )
    assert main(["data", "info", *space, "--set", "tokenizer.vocab_size=1"]) == 2
    assert capsys.readouterr().err.startswith("--set tokenizer.vocab_size: ")
    for wrong in ("budget.tokens", "=3", "a..b=3"):
        with pytest.raises(SystemExit):
            main(["search", *space, "--set", wrong])
        assert f"must be KEY=VALUE, for instance budget.tokens=20000, got '{wrong}'" in (
            capsys.readouterr().err
        )


def test_override_paths_are_those_of_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed is meant from where it is typed; what stands in the file, from the file."""
    typed, written = tmp_path / "typed", tmp_path / "written"
    for folder in (typed, written):
        folder.mkdir()
        (folder / "notes.txt").write_text("some text\n" * 100)
        (folder / "a.safetensors").write_text("")
    monkeypatch.chdir(typed)

    def files(*settings: str) -> tuple[str, ...] | None:
        return load(written, *settings).data.files

    here = (str(typed / "notes.txt"),)
    assert files("data={files: notes.txt}") == files("data.files=[notes.txt]") == here
    data = "data: {files: notes.txt}\ninit_from: {checkpoint: a.safetensors}\n"
    (written / "own.yaml").write_text(f"{data}budget: {{tokens: 20000}}\n")
    override = [Override.parse("data.validation_fraction=0.2")]
    space = load_space(written / "own.yaml", override)
    assert space.data.files == (str(written / "notes.txt"),)
    assert space.init_from is not None
    assert space.init_from.checkpoint == str(written / "a.safetensors")
    override = [Override.parse("init_from.checkpoint=a.safetensors")]
    space = load_space("../written/own.yaml", override)
    assert space.init_from is not None
    assert space.init_from.checkpoint == str(typed / "a.safetensors")
    assert space.data.files is not None
    assert Path(space.data.files[0]).samefile(written / "notes.txt")
    with pytest.raises(SpaceError, match=f"tokenizer.file: .*{typed}/none.json"):
        load(written, "tokenizer.file=none.json")


def test_space_is_read_once(tmp_path: Path) -> None:
    """The shell's `<(…)` can be read only once, and a file may change while a search runs."""
    reading, writing = os.pipe()
    os.write(writing, SPACE.encode())
    os.close(writing)
    space, text = read_space(f"/dev/fd/{reading}", [Override.parse("search.trials=4")])
    os.close(reading)
    assert space.search.trials == 4
    assert text == f"{SPACE}\n# On the command line:\n#   search.trials=4\n"


def test_relative_paths_in_a_stream_begin_at_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("text\n" * 99)
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, b"data: {files: notes.txt}\nbudget: {tokens: 999}")
    os.close(writing)
    space = read_space(f"/dev/fd/{reading}")[0]
    os.close(reading)
    assert space.data.files == (str(tmp_path / "notes.txt"),)
    assert space.name == "search"


def test_overrides_are_kept_with_the_text_of_the_space() -> None:
    overrides = [Override.parse("search.trials=4"), Override.parse("name=a\nb: c")]
    assert annotated("a: 1\n", overrides) == (
        "a: 1\n\n# On the command line:\n#   search.trials=4\n#   name=a b: c\n"
    )
    assert annotated("a: 1\n", []) == "a: 1\n"
