"""A pretrained folder as the start of a search: model and tokenizer follow from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoints.warm_start import read_start
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import VOCAB
from tests.model.exchange.test_pretrained import edit, write
from tuner.cli import main
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.trained.find_start import WarmStart
from tuner.trained.warm_start import warm_started
from tuner.validation.explanation import explain

Load = Callable[..., SearchSpace]
IDS = VOCAB + 5  # as Qwen's: more ids than its tokenizer has


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    path = tmp_path / "qwen"
    write(path, "qwen2", vocab_size=IDS)
    tokenizer.save(path, "huggingface")
    (path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return path


@pytest.fixture
def load(tmp_path: Path, folder: Path) -> Load:
    (tmp_path / "text.txt").write_text("some text of words\n" * 400, encoding="utf-8")

    def make(rest: str = "", start: str = "huggingface: qwen") -> SearchSpace:
        text = f"init_from: {{{start}}}\ndata: {{files: [text.txt]}}\nbudget: {{tokens: 999}}\n"
        (tmp_path / "space.yaml").write_text(text + rest, encoding="utf-8")
        return load_space(tmp_path / "space.yaml")

    return make


def started(space: SearchSpace, tmp_path: Path) -> tuple[SearchSpace, WarmStart]:
    space, start = warm_started(space, Home.at(tmp_path / "home"))
    assert start is not None
    return space, start


def test_model_and_tokenizer_follow_from_the_folder(
    load: Load, folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    space, start = started(load("model: {context_length: 4}\n"), tmp_path)
    (a,) = space.shapes(IDS)
    assert (a.context_length, a.biases, a.norm_eps, a.vocab_size) == (4, "qkv", 1e-6, IDS)
    assert a.model_copy(update={"context_length": 8}) == start.architecture
    assert space.tokenizer.file == str(folder / "tokenizer.json")
    start.check_tokenizer(tokenizer.fingerprint)
    path = start.keep(Home.at(tmp_path / "home"))
    kept = read_start(path.parent, start.init_from)
    expected = write(tmp_path / "again", "qwen2", vocab_size=IDS)
    assert {n.removeprefix("weights.") for n in kept} == {*expected}
    assert all(torch.equal(kept[f"weights.{n}"], w) for n, w in expected.items())


def test_validation_reads_no_tensor(
    load: Load, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.exchange.pretrained.Pretrained.weights", None)
    explanation = explain(load(), Home.at(tmp_path / "home"))
    assert explanation.facts.vocab_size == IDS
    assert explanation.start_lines[0].startswith(
        f"Every trial starts from {folder}, with a qwen2 of "
    )
    assert f"a context of 8, {IDS} ids, licence mit; training takes" in explanation.start_lines[0]
    assert explanation.stacks[0].context == 8


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("model: {d_model: 32}\n", "model.d_model is 16 in .*qwen; leave it out"),
        ("model: {biases: {choice: [qkv, all]}}\n", "model.biases is qkv in .*; leave it out"),
        ("model: {context_length: 9}\n", "model.context_length is 9, and .* at most 8 tokens"),
        ("tokenizer: {vocab_size: 300}\n", ""),
    ],
)
def test_space_that_says_otherwise_is_refused(
    rest: str, message: str, load: Load, tmp_path: Path
) -> None:
    space = load(rest)
    if not message:  # a tokenizer to be trained: it is compared when it is there
        _, start = started(space, tmp_path)
        with pytest.raises(TunerError, match=r"trained with another tokenizer .* leave tokenizer:"):
            start.check_tokenizer("0" * 64)
        return
    with pytest.raises(TunerError, match=message):
        started(space, tmp_path)
    started(load("model: {d_model: 16, context_length: {choice: [4, 8]}}\n"), tmp_path)


def test_vocabulary_that_does_not_fit_is_refused(load: Load, folder: Path, tmp_path: Path) -> None:
    write(folder, "qwen2", vocab_size=60)
    with pytest.raises(TunerError, match=f"the model has 60 ids, and its tokenizer {VOCAB};"):
        started(load(), tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TunerError, match=r"the model has 60 ids, and tokenizer: 2,048; give the"):
        started(load(), tmp_path)
    write(folder, "qwen2", vocab_size=3000)
    with pytest.raises(TunerError, match="does not hold its tokenizer; give tokenizer"):
        started(load(), tmp_path)


def test_command_says_it_in_one_sentence(
    load: Load, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load()
    edit(folder, auto_map={"AutoModel": "code.Model"})
    space, home = str(tmp_path / "space.yaml"), str(tmp_path / "home")
    assert main(["validate", "--space", space, "--home", home]) == 2
    error = capsys.readouterr().err
    assert "needs code of its own (auto_map), which is never run" in error
    assert len(error.splitlines()) == 1
    load(start="huggingface: meta-llama/Llama-3.2-1B")
    assert main(["validate", "--space", space, "--home", home]) == 2
    assert "'hf download meta-llama/Llama-3.2-1B --local-dir FOLDER'" in capsys.readouterr().err


def test_moments_of_a_pretrained_model_are_refused(load: Load) -> None:
    with pytest.raises(TunerError, match="has no moments; leave optimizer_state out"):
        load(start="huggingface: qwen, optimizer_state: true")
