"""Specifications made from a corpus and a few values."""

from __future__ import annotations

from typing import Any

import pytest

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.engine.report import Status
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive, with_row_names
from model.spec.symbol import FractionOf
from model.spec.trial import TrialSpec

TOKENIZER = TokenizerConfig(vocab_size=280)
SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16, "d_ff": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text("§".join(f"Document {i} is number {i + 1}. " * (i + 5) for i in range(60)))
    return DataConfig(files=(str(file),), separator="§", validation_fraction=0.3)


@pytest.fixture(scope="module")
def corpus(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(data, TOKENIZER, tmp_path_factory.mktemp("cache"))


def test_of_equals_the_spelled_out_specification(corpus: Corpus, data: DataConfig) -> None:
    a = Architecture(vocab_size=corpus.tokenizer.vocab_size, **SMALL)
    sequences = corpus.num_sequences("train", 16)
    validation = corpus.num_sequences("validation", 16)
    assert 1 < validation < 8192 // 16
    spelled_out = TrialSpec(
        hyperparameters=derive(
            {"max_learning_rate": 0.01, "batch_size": 24},
            train_sequences=sequences,
            context_length=16,
            budget_tokens=5000,
        ),
        architecture=a,
        data=data,
        tokenizer=TOKENIZER,
        data_fingerprint=corpus.data_fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
        train_sequences=sequences,
        validation_sequences=validation,
        micro_batch=24,
        report_tokens=500,
        seed=0,
    )
    rows = {"α_max": 0.01, "B": 24}
    made = TrialSpec.of(corpus, rows, SMALL, budget_tokens=5000)
    assert made == spelled_out
    assert made.hash == spelled_out.hash
    assert TrialSpec.of(corpus, rows, a, budget_tokens=5000) == spelled_out
    assert TrialSpec.of(corpus, spelled_out.hyperparameters, a, report_tokens=500) == spelled_out


def test_of_takes_the_other_fields(corpus: Corpus) -> None:
    spec = TrialSpec.of(
        corpus, {"T_total": 12, "B": 4}, SMALL,
        validation_sequences=3, micro_batch=2, report_tokens=64, seed=9,
    )  # fmt: skip
    assert (spec.validation_sequences, spec.micro_batch, spec.seed) == (3, 2, 9)
    assert spec.report_steps == tuple(range(1, 13))
    large = TrialSpec.of(corpus, {"T_total": 12, "B": 70}, SMALL)
    assert large.micro_batch == 14, "the largest divisor up to 32"


@pytest.mark.slow
def test_of_makes_a_specification_that_trains(corpus: Corpus) -> None:
    rates = (1e-3, 1e-2)
    specs = [TrialSpec.of(corpus, {"lr_max": r, "B": 4, "T_total": 20}, SMALL) for r in rates]
    reports = list(Engine(*corpus.splits).run(specs))
    assert len(reports) == 20, "ten of each"
    ends = [report for report in reports if report.status is Status.FINISHED]
    assert {report.trial_id for report in ends} == {"0", "1"}
    firsts = {r.trial_id: r.val_loss for r in reversed(reports)}
    assert all(report.val_loss < firsts[report.trial_id] for report in ends)


@pytest.mark.parametrize(
    ("rows", "shape", "more", "message"),
    [
        ({"α_mux": 1}, SMALL, {"budget_tokens": 999}, "unknown hyperparameter 'α_mux'. Did you"),
        ({"lr": 1, "α": 1}, SMALL, {"budget_tokens": 999}, "learning_rate is given twice.* 'α'"),
        ({}, SMALL, {}, "exactly one of T_total, N_epoch and a budget"),
        (
            {"T_total": 9},
            {**SMALL, "context_length": 9999},
            {},
            "no sequence of 9999 tokens",
        ),
        ({"T_total": 9}, {**SMALL, "vocab_size": 270}, {}, "at least that of the corpus, 280, got"),
        ({"T_total": 9}, {**SMALL, "end_of_text": 3}, {}, "must be that of the corpus, 0, got 3"),
        ({"T_total": 9}, {**SMALL, "d_mode": 3}, {}, "d_mode"),
    ],
)
def test_of_refuses(
    corpus: Corpus, rows: dict[str, Any], shape: dict[str, Any], more: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrialSpec.of(corpus, rows, shape, **more)


def test_of_refuses_two_budgets(corpus: Corpus) -> None:
    spec = TrialSpec.of(corpus, {"T_total": 9}, SMALL)
    with pytest.raises(ValueError, match="leave out budget_tokens"):
        TrialSpec.of(corpus, spec.hyperparameters, SMALL, budget_tokens=999)


def test_with_row_names_resolves_fractions() -> None:
    fraction = FractionOf("α_max", 0.5)
    assert with_row_names({"α_min": fraction, "B": 4, "other": 1}) == {
        "min_learning_rate": FractionOf("max_learning_rate", 0.5), "batch_size": 4, "other": 1,
    }  # fmt: skip
