"""Estimates of data that has not been read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.space.estimate import estimated_facts
from tuner.space_file.load import load_space

TEXT = "data: {files: text.txt, validation_fraction: 0.2}\nmodel: {context_length: 64}\n"
REST = "tokenizer: {vocab_size: 300}\nhyperparameters: {B: 8}\nbudget: {tokens: 4096}\n"
PAIRS = (
    "data: {files: text.tsv, pairs: true, source_field: a, target_field: b, "
    "validation_fraction: 0.1}\n"
    "model: {n_encoder_layers: 1, source_length: 8, context_length: 8}\n"
)


@pytest.mark.parametrize(
    ("data", "num_bytes", "train_size", "validation_size"),
    [
        (TEXT, 31_000, 8_000, 2_000),
        (TEXT, 310, 80, 65),  # a sequence at least, and the token after it
        (PAIRS, 200_000, 90, 10),
        (TEXT.replace("text.txt", "text.txt.gz"), 1, 258_064_516, 64_516_129),
    ],
    ids=["text", "few", "pairs", "compressed"],
)
def test_sizes_are_estimated_from_bytes(
    tmp_path: Path, data: str, num_bytes: int, train_size: int, validation_size: int
) -> None:
    (tmp_path / data.split("files: ")[1].split(",")[0]).write_bytes(b"x" * num_bytes)
    (tmp_path / "space.yaml").write_text(data + REST)
    facts = estimated_facts(load_space(tmp_path / "space.yaml"))
    assert (facts.train_size, facts.validation_size) == (train_size, validation_size)
    assert (facts.vocab_size, facts.has_pairs) == (300, data == PAIRS)
