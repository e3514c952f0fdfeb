from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tuner.cli import main
from tuner.errors import TunerError
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.validation import explanation, sentences
from tuner.validation.sentences import search_lines

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1], prior: {centre: 2e-3}}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  λ: {log: [1e-3, 1]}
budget: {tokens: 9000, reports: 9}
"""
CASES = {
    "trials: 9": [
        "9 trials of at most 9,000 tokens and 9 reports: 2 given points, defaults first, then "
        "sampler tpe, which models good and bad configurations (TPE); early draws follow the "
        "priors of α_max.",
        "Scheduler asha: one in 3 trials is promoted at each rung (after 1 and 3 of 9 reports), "
        "the others are paused until they are among the best.",
        "Objective: minimize val_loss; then the best 3 are retrained to the end with 3 fresh seeds "
        "each, 9 trials in all.",
        "Expected total: 108,667 training tokens (162,000 without early stopping).",
    ],
    "trials: 10}\ncompare: {by: optimizer": [
        "Comparison by optimizer: 2 arms (adamw and momentum) of 5 trials each; an arm has its own "
        "sampler and scheduler, and one verdict compares the best arm with each other.",
        "Objective: minimize val_loss; then the best 1 of each arm are retrained to the end with 5 "
        "fresh seeds each, 10 trials in all.",
        "Expected total: 126,667 training tokens (180,000 without early stopping).",
    ],
    "trials: 4, scheduler: pbt, sampler: cmaes": [
        "Scheduler pbt: every 2 reports the worst trials copy the best ones and change α_max, "
        "γ and λ.",
        "Sampler cmaes models numbers that every trial has; it draws optimizer and γ at random.",
        "A trial keeps optimizer, which cannot change during training.",
    ],
    "asha: stop, max_tokens: 5000, max_seconds: 90m, patience: 8, stop_when_left_below: 0.2 %": [
        "(after 1 and 3 of 9 reports), the others are stopped.",
        "The search ends early after 5,000 training tokens or 1:30:00 of time or 8 trials without "
        "improvement or once less than 0.2 % is left to gain.",
        "Expected total: 86,000 training tokens (297,000 without early stopping).",
    ],
    "scheduler: none, sampler: gp}\nconfirm: off\nobjective: {metric: train_loss": [
        "Scheduler none: each trial trains to its end.",
        "Sampler gp models parameters that every trial has; it draws γ at random.",
        "Objective: minimize train_loss; the winner is not retrained (confirm: off).",
        "Expected total: 216,000 training tokens.",
    ],
    "scheduler: none, sampler: nsga2}\nobjective: [{metric: perplexity}, {metric: parameters}]\n"
    "engine: {slots: 2": [
        "then sampler nsga2, which recombines the best configurations (NSGA-II); early draws",
        "Objectives: minimize perplexity and minimize parameters; the result is the Pareto front: "
        "the trials that no other trial beats in every objective.",
    ],
}


@pytest.mark.parametrize("search", CASES)
def test_validate_describes_the_search(tmp_path: Path, search: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE + f"search: {{{search}}}", encoding="utf-8")
    lines = search_lines(load_space(file), FACTS)
    for sentence in CASES[search]:
        assert any(sentence in line for line in lines), lines


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (
            "{}",
            "Trains on a GPU if there is one, otherwise on the cores, in bfloat16 if a GPU compu",
        ),
        (
            "{slots: auto, device: cpu}",
            "Trains on the cores, in float32; weights and optimizer are",
        ),
        (
            "{}",
            "Trains on a GPU if there is one, otherwise on the cores, in bfloat16 if a GPU computes"
            " in it, mixed_bfloat16 if a CPU is faster with it, else float32; weights",
        ),
        (
            "{device: cpu}",
            "Trains on the cores, in mixed_bfloat16 if a CPU is faster with it, else float32; wei",
        ),
        ("{device: cuda, dtype: tf32}", "Trains on a GPU, in tf32; weights and optimizer are floa"),
        ("{device: mps}", "Trains on the GPU of a Mac, in float32; weights"),
        (
            "{device: cpu, compile: on}",
            "Trains on the cores, in float32; weights and optimizer are float32. Ticks are com",
        ),
        (
            "{device: cpu, compile: off}",
            "Trains on the cores, in float32; weights and optimizer are float32. Ticks are not com",
        ),
    ],
)
def test_search_lines_name_device_and_dtype(
    tmp_path: Path, engine: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_mixed = "mixed" in sentence
    monkeypatch.setattr(sentences, "multiplies_bfloat16", lambda: is_mixed)
    file = tmp_path / "lm.yaml"
    file.write_text(SPACE + f"engine: {engine}", encoding="utf-8")
    lines = search_lines(load_space(file), FACTS)
    assert any(line.startswith(sentence) for line in lines), lines


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("data:", "Data: the source code of Python's standard library."),
        ("data: {}", "Data: the source code of Python's standard library."),
        ("data: {files: [a.txt, b.txt, c.txt, d.txt, e.txt]}", "/c.txt and 2 more."),
    ],
)
def test_search_lines_name_the_data(tmp_path: Path, data: str, sentence: str) -> None:
    for letter in "abcde":
        (tmp_path / f"{letter}.txt").write_text("one two " * 99)
    file = tmp_path / "lm.yaml"
    file.write_text(SPACE + data, encoding="utf-8")
    line = search_lines(load_space(file), FACTS)[0]
    assert line.startswith("Data: ")
    assert line.endswith(sentence)


def test_validate_of_copies_describes_the_one_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lm.yaml"
    file.write_text("hyperparameters: {B: 8}\nbudget: {tokens: 512_000}\nengine: {device: cuda}")
    assert main(["validate", "--space", str(file), "--home", str(tmp_path), "--json"]) == 0
    output = capsys.readouterr()
    assert "0 searched of 1 given parameters: every trial is the same" in output.err
    assert "\n1 trials of at most" in output.err or "\n1 trial of at most" in output.err
    notes = json.loads(output.out)["notes"]
    assert notes[0].startswith("nothing is searched, so all 24 trials would be the same")
    assert output.err.count("Note: ") == len(notes)


def test_validate_counts_large_grids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = ", ".join(f"0.{i:03}" for i in range(1, 1000))
    rows = "".join(f"  {name}: {{grid: [{values}]}}\n" for name in ("α_max", "λ", "τ", "β1"))
    for sampler in ("grid", "tpe"):
        file = tmp_path / "lm.yaml"
        file.write_text(
            f"hyperparameters:\n{rows}budget: {{tokens: 512_000}}\n"
            f"search: {{trials: 4, sampler: {sampler}}}"
        )
        assert main(["validate", "--space", str(file), "--home", str(tmp_path)]) == 2
        assert "the grid has 996,005,996,001 points, but search.trials is 4" in (
            capsys.readouterr().err
        )


def test_search_of_copies_says_so_and_trains_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces: list[SearchSpace] = []

    def search(space: SearchSpace, **_: Any) -> None:
        spaces.append(space)
        raise TunerError("stopped by the test")

    monkeypatch.setattr("tuner.driver.search.search", search)
    file = tmp_path / "lm.yaml"
    file.write_text("hyperparameters: {B: 8}\nbudget: {tokens: 512_000}")
    assert main(["search", "--space", str(file), "--home", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tuner search: note: nothing is searched, so all 24 trials would be")
    assert [space.search.trials for space in spaces] == [1]


SIZES = "\nbudget: {tokens: 1_000}\nmodel: {context_length: 8}\ntokenizer: {vocab_size: 300}\n"


def validated(folder: Path, data: str, more: str = SIZES) -> list[str]:
    """Return the arguments that validate a space on some data."""
    (folder / "space.yaml").write_text(f"data: {data}{more}", encoding="utf-8")
    return ["validate", "--space", str(folder / "space.yaml"), "--home", str(folder / "home")]


@pytest.mark.parametrize(
    ("option", "name"), [("field", "a.jsonl"), ("column", "a.parquet"), ("column", "a.csv")]
)
def test_validate_refuses_a_wrong_field_of_unread_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    """It once called such spaces valid, and `data prepare` refused them."""
    texts = [f"some text of row {number} " * 20 for number in range(50)]
    rows = [json.dumps({"content": text}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "a.csv").write_text("\n".join(["content", *texts]))
    parquet.write_table(pyarrow.table({"content": texts}), tmp_path / "a.parquet")
    assert main(validated(tmp_path, f"{{files: {name}}}")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"'text', only 'content'; set data.{option}" in error
    assert main([*validated(tmp_path, f"{{files: {name}, {option}: content}}"), "--json"]) == 0
    output = capsys.readouterr()
    assert "numbers of sequences are estimated from its" in " ".join(output.err.split())
    (stack,) = json.loads(output.out)["stacks"].values()
    num_sequences = sum(map(len, texts)) / 3.1 / 8
    assert num_sequences / 2 < stack["train_sequences"] < num_sequences * 2
    assert not (tmp_path / "home").exists()


def test_validate_says_that_a_size_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compressed data counted as a gigabyte, and so as less than one epoch."""
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one|two|three")
    data = '{files: a.txt.gz, separator: "|"}'
    assert main([*validated(tmp_path, data), "--json"]) == 0
    output = capsys.readouterr()
    text = " ".join(output.err.split())
    assert "its size is unknown before it is read" in text
    assert "bytes of text" not in text
    (stack,) = json.loads(output.out)["stacks"].values()
    assert (stack["train_sequences"], stack["epochs"]) == (None, None)
    assert "unknown" in text.partition("epochs")[2].partition("Data:")[0]
    passes = SIZES.replace("budget: {tokens: 1_000}", "hyperparameters: {N_epoch: 2}")
    assert main(validated(tmp_path, data, passes)) == 0
    assert "numbers assume 1,000,000,000 bytes of text" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["validate", "search"])
def test_weights_beyond_the_memory_are_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """Training once ended after 82 s with an error of an allocator, called a compilation."""

    def search(space: SearchSpace, **_: Any) -> None:
        raise TunerError("stopped by the test")

    monkeypatch.setattr("tuner.driver.search.search", search)
    monkeypatch.setattr(explanation, "machine_memory", lambda: 10**9)
    (tmp_path / "a.txt").write_text("some words " * 9999)
    for width, is_said in ((65536, True), (64, False)):
        more = SIZES.replace("model: {", f"engine: {{device: cpu}}\nmodel: {{d_model: {width}, ")
        main([command, *validated(tmp_path, "{files: a.txt}", more)[1:]])
        captured = capsys.readouterr()
        text = " ".join((captured.out + captured.err).split())
        assert ("of memory to train, and this machine has 1.0 GB, so that" in text) == is_said
