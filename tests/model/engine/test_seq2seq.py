"""Training on pairs: computation, reports, and the law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints import checkpoint
from model.corpus.order import data_order
from model.corpus.pairs import PairDataset
from model.engine.bleu import bleu
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.keys import derive_key
from model.network.encoder_decoder import EncoderDecoder
from model.network.transformer import initial_weight
from model.randomness import permute
from model.spec.architecture import parameter_shapes
from model.spec.trial import TrialSpec
from model.stack.stack import Stack
from tests.conftest import MakeSpec, last_state
from tests.model.architectures import PAIRED, paired_mixes
from tests.model.test_law import assert_same, train, trials

PairsOf = tuple[PairDataset, PairDataset]
PAIRED_MODEL = {"n_encoder_layers": 1, "n_layers": 1, "source_length": 7}


def written(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def run(pairs: PairsOf, *specs: TrialSpec, **options: Any) -> list[Report]:
    return list(Engine(*pairs, decode=written, **options).run(specs))


def fresh_weights(spec: TrialSpec) -> dict[str, torch.Tensor]:
    shapes = parameter_shapes(spec.architecture)
    return {name: initial_weight(spec.seed, name, s).unsqueeze(0) for name, s in shapes.items()}


def loss_of(pairs: PairDataset, numbers: np.ndarray, spec: TrialSpec) -> float:
    """Of the first update, by torch: a mean over all targets of the batch."""
    rows = pairs.batch(numbers, spec.architecture)
    x, y, sources = (torch.from_numpy(part) for part in rows.arrays)
    model = EncoderDecoder(spec.architecture)
    logits = model(fresh_weights(spec), x.unsqueeze(0), sources.unsqueeze(0))[0]
    return float(F.cross_entropy(logits.flatten(0, 1), y.flatten()))


@pytest.mark.parametrize("micro_batch", [1, 2, 6])
def test_loss_is_a_mean_over_targets(pairs: PairsOf, make_spec: MakeSpec, micro_batch: int) -> None:
    """Targets differ in length, so a mean over micro-batches would be another number."""
    spec = make_spec(
        model=PAIRED_MODEL, batch_size=6, micro_batch=micro_batch, steps=1, reports=1,
        max_learning_rate=1e-9, warmup_steps=0,
    )  # fmt: skip
    (report,) = run(pairs, spec)
    numbers = data_order(spec.seed, np.arange(6), spec.train_sequences)
    assert report.train_loss == pytest.approx(loss_of(pairs[0], numbers, spec), rel=1e-5)
    assert report.tokens == 6 * 8


@pytest.mark.slow
def test_micro_batch_changes_nothing_but_rounding(pairs: PairsOf, make_spec: MakeSpec) -> None:
    losses = [
        [r.val_loss for r in run(pairs, make_spec(
            model=PAIRED_MODEL, batch_size=8, micro_batch=b, steps=6, label_smoothing=0.1
        ))]
        for b in (1, 4, 8)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)


@pytest.mark.slow
def test_it_learns_to_write_backwards(pairs: PairsOf, make_spec: MakeSpec) -> None:
    model = {**PAIRED_MODEL, "d_model": 32, "source_length": 9, "context_length": 9, "d_ff": 64,
             "position": "learned"}  # fmt: skip
    spec = make_spec(model=model, batch_size=16, micro_batch=16, steps=500, reports=2)
    first, last = run(pairs, spec)
    assert first.bleu is None
    assert first.token_accuracy is not None
    assert last.token_accuracy is not None
    assert last.bleu is not None
    assert last.token_accuracy > max(0.7, first.token_accuracy)
    assert 20 < last.bleu <= 100
    assert last.status is Status.FINISHED


@pytest.mark.slow
def test_greedy_writes_the_most_probable_token_again_and_again(
    pairs: PairsOf, make_spec: MakeSpec
) -> None:
    spec = make_spec(model=PAIRED_MODEL, seed=1)
    stack = Stack(spec.architecture, 2, "cpu")
    stack.load(1, spec.seed)
    sources = pairs[1].batch(np.arange(100), spec.architecture).sources
    assert sources is not None
    model, weights = EncoderDecoder(spec.architecture), fresh_weights(spec)
    actual = stack.translate(1, sources, 8, batch=3)
    assert len({len(ids) for ids in actual}) > 1
    for source, ids in zip(sources, actual, strict=True):
        so_far = [0]
        while len(so_far) <= 8:
            x, given_source = torch.tensor([[so_far]]), torch.tensor(source).view(1, 1, -1)
            token = int(model(weights, x, given_source)[0, 0, -1].argmax())
            if token == 0:
                break
            so_far.append(token)
        assert ids == so_far[1:]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [{}, {"ema_decay": 0.9}])
def test_bleu_is_of_the_pairs_that_are_evaluated(
    tmp_path: Path, pairs: PairsOf, make_spec: MakeSpec, rows: dict[str, float]
) -> None:
    """Each translation against its target, made with the weights of the validation loss."""
    spec = make_spec(
        model=PAIRED_MODEL, batch_size=16, micro_batch=16, steps=120, reports=1, **rows
    )
    (report,) = run(pairs, spec, checkpoint_dir=tmp_path)
    assert report.checkpoint is not None
    state, _ = checkpoint.read(Path(report.checkpoint))
    stack = Stack(spec.architecture, 1, "cpu")
    stack.load(0, 0, state, averaged=bool(rows))
    numbers = permute(np.arange(9), len(pairs[1]), derive_key(0, "validation"))
    sources = pairs[1].batch(numbers, spec.architecture).sources
    assert sources is not None
    actual = [written(ids) for ids in stack.translate(0, sources, 8, batch=64)]
    expected = [written(pairs[1].target(number).tolist()) for number in numbers.tolist()]
    assert report.bleu == bleu(actual, expected) > 0
    assert bleu(expected, expected) == pytest.approx(100)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ({}, {}, "an encoder–decoder needs an engine with pairs, and only it does"),
        (PAIRED_MODEL, {"train_sequences": 301}, "301 training sequences, and .* have 300"),
        (PAIRED_MODEL, {"validation_sequences": 101}, "101 validation sequences, .* have 100"),
    ],
)
def test_engine_refuses_other_data(
    pairs: PairsOf, make_spec: MakeSpec, model: dict[str, int], change: Any, message: str
) -> None:
    spec = make_spec(model=model, steps=1, reports=1).model_copy(update=change)
    with pytest.raises(ValueError, match=message):
        run(pairs, spec)


# the law --------------------------------------------------------------------------------------


def assert_each_is_alone(pairs: PairsOf, folder: Path, specs: list[TrialSpec]) -> None:
    together = train(pairs, folder, specs, slots=len(specs), width=len(specs))
    alone = {spec: train(pairs, folder, [spec], slots=1, width=1)[0] for spec in {*specs}}
    for spec, outcome in zip(specs, together, strict=True):
        assert_same(alone[spec], outcome)


@pytest.mark.slow
@pytest.mark.parametrize("choice", PAIRED)
def test_slot_does_not_matter(
    tmp_path: Path, pairs: PairsOf, make_spec: MakeSpec, choice: str
) -> None:
    sizes = {"d_model": 24, "n_heads": 2, "n_layers": 1, "context_length": 7}
    spec = make_spec(model={**sizes, **PAIRED[choice]}, dropout=0.1, steps=4)
    assert_each_is_alone(pairs, tmp_path, [spec] * 3)


@pytest.mark.slow
@settings(max_examples=8)
@given(mix=paired_mixes(), data=st.lists(trials(), min_size=2, max_size=6))
def test_mix_ignores_its_neighbours(
    tmp_path: Path, pairs: PairsOf, make_spec: MakeSpec, mix: dict[str, Any], data: list[Any]
) -> None:
    assert_each_is_alone(pairs, tmp_path, [make_spec(model=mix, **trial) for trial in data])


@pytest.mark.slow
@pytest.mark.parametrize("reports", [1, 2])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, pairs: PairsOf, make_spec: MakeSpec, reports: int
) -> None:
    spec = make_spec(model=PAIRED_MODEL, dropout=0.1, token_noise=0.1, steps=9)
    (undisturbed,) = train(pairs, tmp_path / "whole", [spec], slots=1, width=1)
    folder = tmp_path / "part"
    train(pairs, folder, [spec], slots=1, width=1, stop={0: reports})
    (rest,) = train(
        pairs,
        tmp_path / "rest",
        [spec],
        slots=1,
        width=1,
        resume={0: last_state(folder)},
    )
    assert_same((undisturbed[0][reports:], undisturbed[1]), rest)
