"""Token noise: its share, the tokens it keeps, and its keys."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.corpus.token_noise import replace_tokens
from model.engine.engine import Engine
from model.stack.plan import QuantumPlan
from model.stack.stack import Stack
from tests.conftest import MakeSpec

Tokens = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_noise_replaces_the_requested_share(share: float) -> None:
    """Tokens of the document's end stay; the others become each id but that one, evenly."""
    vocab, count = 50, 200_000
    ids = np.tile([7, 0, 7, 7], (count // 4, 1))
    noisy = replace_tokens(ids, share, vocab, 0, key=5, positions=np.arange(count // 4))
    assert (noisy[:, 1] == 0).all()
    texts = noisy[:, [0, 2, 3]]
    n = texts.size
    differ = share * (vocab - 2) / (vocab - 1)  # a draw may be the token itself
    sigma = math.sqrt(max(differ * (1 - differ), 1e-12) / n)
    assert abs((texts != 7).mean() - differ) <= 5 * sigma
    counts = np.bincount(texts.ravel(), minlength=vocab)
    assert counts[0] == 0
    if share:
        others = np.delete(counts, [0, 7])
        assert np.abs(others - n * share / (vocab - 1)).max() < 5 * math.sqrt(others.mean())


@pytest.mark.parametrize("end", [0, 3, 9])
def test_noise_never_replaces_end_of_text(end: int) -> None:
    ids = np.tile(np.arange(10), (2000, 1))
    noisy = replace_tokens(ids, 0.5, 10, end, 5, np.arange(2000))
    assert ((noisy == end) == (ids == end)).all()
    assert set(noisy.ravel().tolist()) == set(range(10))


def test_noise_is_a_function_of_key_and_position() -> None:
    ids, positions = np.full((60, 8), 7), np.arange(60)
    whole = replace_tokens(ids, 0.5, 50, 0, 5, positions)
    parts = [replace_tokens(ids[i : i + 7], 0.5, 50, 0, 5, positions[i : i + 7])
             for i in range(0, 60, 7)]  # fmt: skip
    assert (np.concatenate(parts) == whole).all()
    shaped = replace_tokens(ids.reshape(6, 10, 8), 0.5, 50, 0, 5, positions.reshape(6, 10))
    assert (shaped.reshape(60, 8) == whole).all()
    assert (replace_tokens(ids, 0.5, 50, 0, 6, positions) != whole).any()
    assert (replace_tokens(ids, 0.5, 50, 0, 5, positions + 60) != whole).any()
    assert len({tuple(row) for row in whole.tolist()}) > 55


def test_noise_of_sequences_and_keys_is_uncorrelated() -> None:
    ids = np.full((1000, 40), 7)
    rows = [
        (replace_tokens(ids, 0.5, 1000, 0, key, np.arange(1000) + shift) != 7).ravel()
        for key, shift in ((1, 0), (2, 0), (3, 0), (1, 1000), (1, 2000))
    ]
    correlation = np.corrcoef(np.array(rows)) - np.eye(5)
    assert np.abs(correlation).max() < 5 / math.sqrt(ids.size)


def test_noise_reaches_training_inputs_only(
    tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same targets, same validation loss before the first update changes anything."""
    plans = []
    real = Stack.run

    def run(stack: Stack, plan: QuantumPlan) -> object:
        plans.append(plan)
        return real(stack, plan)

    monkeypatch.setattr(Stack, "run", run)
    still = {"steps": 1, "max_learning_rate": 1e-30, "min_learning_rate": 0.0, "warmup_steps": 0}
    specs = [make_spec(token_noise=share, **still) for share in (0.0, 0.5)]
    reports = [next(iter(Engine(*tokens).run([spec]))) for spec in specs]
    plain, noisy = (plan.host_batch for plan in plans)
    assert plain is not None
    assert noisy is not None
    assert (plain.targets == noisy.targets).all()
    assert 0.3 < (plain.inputs != noisy.inputs).mean() < 0.7
    assert reports[0].val_loss == reports[1].val_loss
    assert reports[0].train_loss != reports[1].train_loss


def test_noise_does_not_depend_on_the_micro_batch(tokens: Tokens, make_spec: MakeSpec) -> None:
    specs = [make_spec(batch_size=6, micro_batch=b, steps=6, token_noise=0.4) for b in (1, 3, 6)]
    losses = [[r.val_loss for r in Engine(*tokens).run([spec])] for spec in specs]
    np.testing.assert_allclose(losses[:2], [losses[2]] * 2, rtol=1e-4)
