"""Identities that records rest on: they must not change by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

SPACES = Path(__file__).parents[2] / "search_spaces"

# Hash of the first trial of each shipped space, as commit 61b80c3 made it.
HASHES = {
    "attention.yaml": "a844c3f24b6203707b28c729ee3ec124302a0fd557ab4ad07ee2e8983eaae0a2",
    "finetune.yaml": "14e3605b594defc89de6b8e962711ea82325b9e1528bdedd9b351acc15a6cc83",
    "lm.yaml": "06299b2970cdd7315fa3ac10925b60cc95ef5f958925dc0b51fb1867abe69f94",
    "lm_gpu.yaml": "9c557b65ede2ba787574149876cfc71f4ae149d8b69db5f6715428f5dde560ce",
    "optimizers.yaml": "754ec4ab528e38a013597763c9116a85e18c8493d3c2b9a140f79ee24e03b357",
    "regularisation.yaml": "dcc1969d1d8f2d78e5a6c844b3d5f702d3ff4b118b1da723a8595347e291cd40",
    "schedules.yaml": "9c7f578525c8db98d57b0201261a888a53a0c460dd870b5adfbcebab3d1a4543",
    "seq2seq.yaml": "03896de8e964abd9cbf1bacf6336fd758309151bdd79ddc7c426577e70faf589",
}


@pytest.mark.parametrize("name", HASHES)
def test_first_trial_of_a_shipped_space_keeps_its_hash(name: str) -> None:
    space = load_space(SPACES / name)
    size = 9_000 if space.data.pairs else 2_000_000
    facts = DataFacts(
        vocab_size=512,
        train_size=size,
        validation_size=size // 10,
        data_fingerprint="d" * 64,
        tokenizer_fingerprint="t" * 64,
        has_pairs=space.data.pairs,
    )
    assert space.spec(space.defaults(), facts, space.search.seed).hash == HASHES[name]
