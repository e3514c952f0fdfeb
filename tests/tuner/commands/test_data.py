"""What `tuner data` and `tuner validate` say about the split and about odd files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.cli import main

SPACE = """
name: small
data: {{files: input.txt, validation_fraction: {fraction}}}
tokenizer: {{vocab_size: 257}}
model: {{context_length: 32}}
hyperparameters: {{α_max: {{log: [1e-3, 1e-2]}}}}
budget: {{tokens: 1000}}
"""
DATA = ("data prepare", "data info")
COMMANDS = (*DATA, "data sample", "validate")
END = "<|endoftext|>"


def space_of(folder: Path, text: str, fraction: float) -> list[str]:
    """The options for a space on one text."""
    (folder / "input.txt").write_text(text, encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE.format(fraction=fraction), encoding="utf-8")
    return ["--space", str(folder / "space.yaml"), "--home", str(folder / "home")]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command has printed, without the ends of its lines."""
    return " ".join(capsys.readouterr().out.split())


def test_one_text_is_split_by_position_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = space_of(tmp_path, "A line of a play.\n\n" * 200, 0.1)
    for command in (*DATA, "validate"):
        assert main([*command.split(), *options]) == 0
        assert (
            "The text is one document, so it is split by position: the last 10 % of it is held "
            "out for validation."
        ) in said(capsys)
    assert main(["data", "info", *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["split_by"] == "position"
    assert facts["validation_share"] == pytest.approx(0.1, abs=0.01)


def test_the_longest_row_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = space_of(tmp_path, "", 0.5)
    rows = (json.dumps({"text": f"row {number} " * 9}) + "\n" for number in range(40))
    (tmp_path / "input.txt").with_suffix(".jsonl").write_text("".join(rows))
    space = (tmp_path / "space.yaml").read_text().replace(".txt", ".jsonl, max_row_characters: 50")
    (tmp_path / "space.yaml").write_text(space)
    assert main(["data", "prepare", *options]) == 2
    error = capsys.readouterr().err
    assert "line 1 has more than 50 characters; split the row, or raise data.max_row_cha" in error
    assert main(["data", "prepare", *options, "--max-row-characters", "500"]) == 0
    assert main(["data", "info", *options]) == 0, "the limit is no part of the fingerprint"
    train = ["tokenizer", "train", str(tmp_path / "input.jsonl"), "-o", str(tmp_path / "t")]
    assert main([*train, "--max-row-characters", "50", "--vocab-size", "260"]) == 2
    assert main([*train, "--max-row-characters", "500", "--vocab-size", "260"]) == 0


def test_a_split_far_from_the_fraction_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # of these two, the second is held out: its name has the lowest place in the split
    options = space_of(tmp_path, "short " * 20 + END + "a long text " * 200, 0.1)
    far = (
        "The split is by document, and 95.2 % of the text is held out instead of 10 % "
        "(data.validation_fraction); give more documents, or set data.split_by: position for the "
        "exact share."
    )
    for command in (*DATA, "validate"):
        assert main([*command.split(), *options]) == 0
        assert far in said(capsys)
    options += ["--set", "data.split_by=position"]
    assert main(["data", "prepare", *options]) == 0
    text = said(capsys)
    assert "The text is split by position: the last 10 % of it is held out" in text
    assert "instead of" not in text


def test_a_split_near_the_fraction_needs_no_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = space_of(tmp_path, END.join(f"{i} " + "a text " * 20 for i in range(60)), 0.2)
    for command in (*DATA, "validate"):
        assert main([*command.split(), *options]) == 0
        assert "held out" not in said(capsys)


def test_a_validation_part_below_a_context_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status of bad input, in every command that reads the data."""
    options = space_of(tmp_path, "a b c d " * 25, 0.1)
    for command in COMMANDS:
        assert main([*command.split(), *options]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == (
            f"tuner {command}: the space small does not fit its data: context_length 32 is longer "
            f"than the validation text of 22 tokens; use a shorter context or more text, or a "
            f"larger data.validation_fraction"
        )


def test_nul_bytes_in_a_text_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = space_of(tmp_path, "u\0t\0f\0001\0006\0" * 100, 0.4)
    assert main(["data", "prepare", *options]) == 0
    assert "NUL bytes, which no text has, are in input.txt; leave the file out" in said(capsys)


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        ("data: {files: bad.txt}", "7", "data: {folder}/bad.txt is not UTF-8 at byte 1 (0xff)"),
        (
            "data: {files: bad.txt, hub: null, errors: replace, separator: \\xff}",
            "7",
            "data: the split is by document, and there is only one",
        ),
    ],
)
def test_an_error_of_the_data_has_a_place_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, column: str, message: str
) -> None:
    """Also if it is found only when the data is read."""
    (tmp_path / "bad.txt").write_bytes(b"a\xff" * 99)
    space = tmp_path / "space.yaml"
    space.write_text(
        f"{change}\nhyperparameters: {{α_max: {{log: [1e-3, 1e-2]}}}}\nbudget: {{tokens: 999}}\n"
    )
    options = ["--space", str(space), "--home", str(tmp_path / "home")]
    assert main(["data", "prepare", *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"{space}:1:{column} {message.format(folder=tmp_path)}")
