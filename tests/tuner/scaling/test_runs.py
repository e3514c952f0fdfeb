"""Which trials are compared, and which are refused."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.scaling.made_runs import MILLION, made_runs
from tuner.arguments.option_types import amount
from tuner.conductor.trial import Trial
from tuner.errors import TunerError
from tuner.scaling.runs import by_size, check_comparable, measure


def names(specs: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"s-1/{number}", spec) for number, spec in enumerate(specs)]


def with_rows(spec: Any, **rows: Any) -> Any:
    h = spec.hyperparameters.model_copy(update=rows)
    return spec.model_copy(update={"hyperparameters": h})


def with_entries(spec: Any, **entries: Any) -> Any:
    a = spec.architecture.model_copy(update=entries)
    return spec.model_copy(update={"architecture": a})


def test_size_tokens_rate_batch_and_seed_may_differ(make_spec: MakeSpec) -> None:
    spec = make_spec()
    h = spec.hyperparameters
    wide = with_entries(spec, d_model=2 * spec.architecture.d_model, d_ff=128, n_layers=7)
    rated = with_rows(
        spec, max_learning_rate=3 * h.max_learning_rate, min_learning_rate=3 * h.min_learning_rate,
        batch_size=2 * h.batch_size,
    )  # fmt: skip
    long = with_rows(
        spec, total_steps=10 * h.total_steps, warmup_steps=10 * h.warmup_steps,
        cycle_steps=10 * h.cycle_steps, epochs=9,
    )  # fmt: skip
    reseeded = spec.model_copy(update={"seed": 77})
    check_comparable(names([spec, wide, rated, long, reseeded]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_fingerprint": "x"}, "s-1/1 and s-1/0 cannot be compared: data differs"),
        ({"tokenizer_fingerprint": "x"}, "tokenizer differs"),
        ({"validation_sequences": 999}, "validation_tokens differs"),
        (
            {"data_fingerprint": "x", "tokenizer_fingerprint": "x"},
            "data and tokenizer differ;",
        ),
    ],
)
def test_other_data_are_refused(make_spec: MakeSpec, change: Any, reason: str) -> None:
    spec = make_spec()
    with pytest.raises(TunerError, match=reason):
        check_comparable(names([spec, spec.model_copy(update=change)]))


@pytest.mark.parametrize(
    "entries", [{"vocab_size": 300}, {"context_length": 999}, {"activation": "gelu"}]
)
def test_other_architectures_are_refused(make_spec: MakeSpec, entries: dict[str, Any]) -> None:
    spec = make_spec()
    with pytest.raises(TunerError, match=f"{next(iter(entries))}.* differ"):
        check_comparable(names([spec, with_entries(spec, **entries)]))


@pytest.mark.parametrize(
    ("rows", "symbol"),
    [
        ({"weight_decay": 0.77}, "λ"), ({"beta2": 0.77}, "β2"), ({"dropout": 0.3}, "p_drop"),
        ({"optimizer": "muon"}, "optimizer"), ({"min_learning_rate": 1e-9}, "α_min"),
    ],
)  # fmt: skip
def test_other_hyperparameters_are_refused(
    make_spec: MakeSpec, rows: dict[str, Any], symbol: str
) -> None:
    spec = make_spec()
    with pytest.raises(TunerError, match=f"{symbol} is not the same in all trials"):
        check_comparable(names([spec, with_rows(spec, **rows)]))


def test_row_without_an_effect_does_not_matter(make_spec: MakeSpec) -> None:
    spec = make_spec()
    check_comparable(names([spec, with_rows(spec, momentum=0.123)]))  # for SGD with momentum


def test_finished_trials_branches_and_retrainings_count(make_spec: MakeSpec) -> None:
    def trial(number: int, seed: int, loss: float = 3.0, *, is_finished: bool = True) -> Trial:
        spec = make_spec(seed=seed)
        status = Status.FINISHED if is_finished else Status.TRAINING
        made = Trial(number, spec)
        made.reports.append(Report("0", status, 1, spec.budget_tokens, loss, 3.0, 1.0, 0.01))
        return made

    result: Any = SimpleNamespace(
        name="s-1", trials=[trial(0, 0), trial(1, 1, is_finished=False), trial(2, 2, math.nan)],
        branches=[trial(3, 3)], confirming=[trial(4, 4)],
    )  # fmt: skip
    (size,) = measure([result])
    spec = result.trials[0].spec
    assert [run.trial for run in size.runs] == [0, 3, 4]
    assert size.parameters == spec.architecture.num_parameters
    assert size.flops == pytest.approx(spec.budget_tokens * spec.architecture.flops_per_token)


def test_searches_without_finished_trials_are_refused() -> None:
    result: Any = SimpleNamespace(name="s-1", trials=[], branches=[], confirming=[])
    with pytest.raises(TunerError, match="no trial of these searches has finished"):
        measure([result])


def test_budgets_of_a_size_are_apart() -> None:
    runs = [
        *made_runs([MILLION], tokens=lambda n: 1000), *made_runs([MILLION], tokens=lambda n: 1040),
        *made_runs([MILLION], tokens=lambda n: 2000), *made_runs([MILLION // 2]),
    ]  # fmt: skip
    assert [(s.parameters, len(s.runs)) for s in by_size(runs)] == [
        (MILLION // 2, 5), (MILLION, 10), (MILLION, 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [("1B", 1e9), ("400M", 4e8), ("1e9", 1e9), ("2.5b", 2.5e9), ("2P", 2e15), ("1_000", 1000),
     ("300 TFLOPs", 3e14)],
)  # fmt: skip
def test_amounts_are_read(text: str, value: float) -> None:
    assert amount(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "B", "1x", "-3", "0", "nan", "inf", "1e40"])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 1e9, 400M or 1B"):
        amount(text)
