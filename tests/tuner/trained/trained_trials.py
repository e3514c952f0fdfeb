"""Trained trials without a search, for what takes them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from model.network.transformer import initial_weight
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import END_OF_TEXT
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import MakeSpec
from tuner.tracking.records import TrialRecord
from tuner.trained.load_trial import TrainedTrial

SIZES: dict[str, Any] = {
    "vocab_size": 260, "d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16, "d_ff": 32,
}  # fmt: skip


def byte_tokenizer() -> Tokenizer:
    """The end of text, and every byte: id = byte + 1."""
    vocab = {0: END_OF_TEXT.encode(), **{byte + 1: bytes([byte]) for byte in range(256)}}
    return Tokenizer(vocab, [], [END_OF_TEXT])


def make_trial(
    make_spec: MakeSpec,
    number: int = 0,
    weights: dict[str, Tensor] | None = None,
    status: str = "finished",
    **entries: Any,
) -> TrainedTrial:
    """A trial with random weights, or given ones."""
    a = Architecture(**{**SIZES, **entries})
    pairs = {"n_encoder_layers": 1, "source_length": 6} if a.n_encoder_layers else {}
    spec: TrialSpec = make_spec(model=pairs).model_copy(update={"architecture": a})
    record = TrialRecord(
        run_id=f"{number:032x}", number=number, search="lm-1", status=status, parameters={},
        metrics={"val_loss": 2.5, "tokens": 96.0}, environment={"torch": "2"},
    )  # fmt: skip
    made = {n: initial_weight(number, n, shape) for n, shape in parameter_shapes(a).items()}
    return TrainedTrial(record, spec, 12, weights or made, byte_tokenizer(), "kept")


def speller(make_spec: MakeSpec, text: str) -> TrainedTrial:
    """A model that writes a text byte by byte and ends it; no byte may occur twice."""
    ids = [0, *(byte + 1 for byte in text.encode()), 0]
    assert len(set(ids)) == len(ids) - 1
    a = Architecture(**{**SIZES, "position": "none", "context_length": 64})
    weights = {
        name: torch.zeros(shape) if len(shape) > 1 else torch.ones(shape)
        for name, shape in parameter_shapes(a).items()
    }
    for direction, (token, following) in enumerate(pairwise(ids)):
        weights["token_embeddings.weight"][token, direction] = 1
        weights["lm_head.weight"][following, direction] = 1
    return make_trial(make_spec, 0, weights, position="none", context_length=64)
