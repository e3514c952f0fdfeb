"""The symbol table, and the derivation of complete hyperparameters."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.spec.derive import derive
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters, find_symbol, nearest
from model.spec.symbol import FractionOf, Symbol

ROWS = pytest.mark.parametrize("row", SYMBOL_TABLE.values(), ids=list(SYMBOL_TABLE))

# The table of the issue, written down independently: symbol → Python name.
SYMBOLS = {
    "α": "learning_rate",
    "β1": "beta1",
    "β2": "beta2",
    "ε": "eps",
    "λ": "weight_decay",
    "λ_emb": "embedding_decay",
    "λ_gain": "gain_decay",
    "λ₁": "l1_penalty",
    "γ": "momentum",
    "d": "dampening",
    "η": "trust_coefficient",
    "p_drop": "dropout",
    "p_emb": "embedding_dropout",
    "p_attn": "attention_dropout",
    "p_res": "residual_dropout",
    "p_noise": "token_noise",
    "ε_ls": "label_smoothing",
    "τ": "grad_clip",
    "τ_value": "grad_clip_value",
    "λ_z": "z_loss",
    "β_ema": "ema_decay",
    "s_final": "target_sparsity",
    "T_prune_start": "prune_start_steps",
    "T_prune_end": "prune_end_steps",
    "ΔT_prune": "prune_interval_steps",
    "T_warmup": "warmup_steps",
    "α_max": "max_learning_rate",
    "α_min": "min_learning_rate",
    "T_cycle": "cycle_steps",
    "T_mult": "cycle_multiplier",
    "T_decay": "decay_steps",
    "f_decay": "decay_factor",
    "T_cooldown": "cooldown_steps",
    "plateau_patience": "plateau_patience",
    "plateau_cooldown": "plateau_cooldown",
    "s_noam": "noam_factor",
    "B": "batch_size",
    "T_total": "total_steps",
    "N_epoch": "epochs",
    "α_lora": "lora_alpha",
    "p_lora": "lora_dropout",
    "f_B": "lora_b_rate_factor",
}


def complete(**values: Any) -> Hyperparameters:
    if not {"total_steps", "epochs", "budget_tokens"} & set(values):
        values["total_steps"] = 100
    sizes = {"train_sequences": 100, "context_length": 8, "budget_tokens": None}
    sizes |= {name: values.pop(name) for name in sizes if name in values}
    return derive(values, **sizes)  # type: ignore[arg-type]


@ROWS
def test_row_is_complete(row: Symbol) -> None:
    assert row.symbol and row.meaning and row.formula
    assert row.range[0] in "[(a"[:2] or " | " in row.range
    assert row.choices or row.kind in (int, float)
    assert not row.choice_meanings or tuple(row.choice_meanings) == row.choices
    for name, values in row.used_when.items():
        assert set(values) < set(SYMBOL_TABLE[name].choices)


def test_table_describes_each_optimizer_and_schedule() -> None:
    """And where a formula has several forms, which one."""
    optimizer, schedule = SYMBOL_TABLE["optimizer"], SYMBOL_TABLE["schedule"]
    assert optimizer.choice_meanings and schedule.choice_meanings
    for name, meaning in optimizer.choice_meanings.items():
        is_as_adamw = name in {"nadamw", "lamb"}
        assert is_as_adamw or ("λ coupled" in meaning) != ("λ decoupled" in meaning), name
        assert "outside the root" in meaning or name not in {"adagrad", "rmsprop"}


def test_table_has_every_required_symbol() -> None:
    numbers = {row.symbol: row.name for row in SYMBOL_TABLE.values() if not row.choices}
    assert numbers == SYMBOLS
    assert list(SYMBOL_TABLE) == list(Hyperparameters.model_fields)


@ROWS
def test_row_default_is_inside_its_range(row: Symbol) -> None:
    if isinstance(row.default, FractionOf):
        assert row.default.name in SYMBOL_TABLE
        assert 0 <= row.default.share <= 1
    elif row.default is None:
        assert row.name in {"total_steps", "epochs"}
    else:
        assert row.accepts(row.default)


@ROWS
def test_row_is_found_by_each_spelling(row: Symbol) -> None:
    for spelling in (row.name, row.symbol, *row.spellings):
        assert find_symbol(spelling) is row
        assert find_symbol(spelling.replace("_", "-")) is row


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("alpha_max", "max_learning_rate"),
        ("β₂", "beta2"),
        ("γ_momentum", "momentum"),
        ("ϵ", "eps"),  # the other epsilon of Unicode
        ("lr", "learning_rate"),
        ("T-warmup", "warmup_steps"),
    ],
)
def test_find_symbol_accepts_other_spellings(spelling: str, name: str) -> None:
    row = find_symbol(spelling)
    assert row is not None
    assert row.name == name


@pytest.mark.parametrize("spelling", ["", "α_mx", "Adam", "learning rate"])
def test_find_symbol_refuses_unknown_names(spelling: str) -> None:
    assert find_symbol(spelling) is None


@pytest.mark.parametrize(
    ("spelling", "suggestion"),
    [
        ("learning_rat", " Did you mean learning_rate?"),
        ("α_mx", " Did you mean α_max?"),
        ("warmup_step", " Did you mean warmup_steps?"),
        ("zzzzzz", ""),
    ],
)
def test_nearest_suggests(spelling: str, suggestion: str) -> None:
    assert nearest(spelling) == suggestion


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("beta1", [0, 0.5, 0.999], [1, -0.1, 1.5]),
        ("eps", [1e-12, 1], [0, -1e-8, 1.1]),
        ("learning_rate", [1e-9, 100, 1], [0, 101]),
        ("grad_clip", [0, 1.5, 1e6], [-1, 1e7]),
        ("warmup_steps", [0, 5, 7.0, 10**9], [-1, 1.5]),
        ("batch_size", [1, 64.0], [0, 0.5, 10**7]),
        ("optimizer", ["adamw", "sgd"], ["Adam", "", 1, None, ["sgd"]]),
    ],
)
def test_row_accepts_its_range(name: str, inside: list[Any], outside: list[Any]) -> None:
    """Pydantic draws the same line."""
    row = SYMBOL_TABLE[name]
    valid = complete(optimizer="momentum", schedule="constant", warmup_steps=0).model_dump()
    for value in inside:
        assert row.accepts(value)
        if name not in {"warmup_steps", "batch_size"}:
            assert getattr(Hyperparameters(**{**valid, name: value}), name) == value
    for value in outside:
        assert not row.accepts(value)
        with pytest.raises(ValidationError):
            Hyperparameters(**{**valid, name: value})


@ROWS
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, [1], {}])
def test_row_refuses_other_types(row: Symbol, value: Any) -> None:
    assert not row.accepts(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beta1", "[0, 1)"),
        ("eps", "(0, 1]"),
        ("warmup_steps", "[0, ∞)"),
        ("batch_size", "[1, 1e+06]"),
        ("cooldown_shape", "linear | sqrt"),
    ],
)
def test_row_range_is_mathematical_notation(name: str, text: str) -> None:
    assert SYMBOL_TABLE[name].range == text


def test_hyperparameters_are_frozen_and_strict() -> None:
    h = complete()
    with pytest.raises(ValidationError, match="frozen"):
        h.beta1 = 0.5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Hyperparameters(**{**h.model_dump(), "unknown": 1})
    with pytest.raises(ValidationError, match="Field required"):
        Hyperparameters()  # type: ignore[call-arg]


# derive -----------------------------------------------------------------------------------------


def test_derive_fills_in_the_defaults() -> None:
    h = complete(max_learning_rate=0.02, total_steps=200)
    assert (h.beta1, h.beta2, h.optimizer, h.batch_size) == (0.9, 0.95, "adamw", 16)
    assert h.min_learning_rate == pytest.approx(0.002)
    assert (h.warmup_steps, h.cycle_steps, h.epochs) == (10, 200, 32)


def test_derive_follows_fractions_of_fractions() -> None:
    h = complete(
        total_steps=1000,
        cycle_steps=FractionOf("total_steps", 0.5),
        warmup_steps=FractionOf("cycle_steps", 0.1),
        beta1=FractionOf("beta2", 0.5),
        beta2=0.9,
    )
    assert (h.cycle_steps, h.warmup_steps, h.beta1) == (500, 50, 0.45)


@given(share=st.floats(0, 1), total=st.integers(1, 10**6))
def test_derive_rounds_fractions_of_counts(share: float, total: int) -> None:
    h = complete(total_steps=total, warmup_steps=FractionOf("total_steps", share))
    assert abs(h.warmup_steps - share * total) <= 0.5 + 1e-9 * total


@pytest.mark.parametrize(
    "budgets",
    [
        {},
        {"total_steps": 10, "epochs": 1},
        {"total_steps": 10, "budget_tokens": 1000},
        {"epochs": 1, "budget_tokens": 1000},
        {"total_steps": 10, "epochs": 1, "budget_tokens": 1000},
    ],
)
def test_derive_requires_exactly_one_budget(budgets: dict[str, int]) -> None:
    values: dict[str, Any] = dict(budgets)
    tokens = values.pop("budget_tokens", None)
    with pytest.raises(ValueError, match="exactly one of T_total, N_epoch and a budget"):
        derive(values, train_sequences=9, context_length=8, budget_tokens=tokens)


@given(total=st.integers(1, 10**6), batch=st.integers(1, 10**4), sequences=st.integers(1, 10**6))
def test_derive_counts_epochs(total: int, batch: int, sequences: int) -> None:
    """N_epoch = ⌈T_total·B/|Data|⌉, in exact arithmetic."""
    h = complete(total_steps=total, batch_size=batch, train_sequences=sequences)
    assert h.epochs == math.ceil(Fraction(total * batch, sequences))


@given(
    tokens=st.integers(1, 10**10),
    batch=st.integers(1, 512),
    sequences=st.integers(1, 10**6),
    context=st.integers(1, 2048),
)
def test_derive_spends_a_token_budget(
    tokens: int, batch: int, sequences: int, context: int
) -> None:
    """The fewest updates that read all of the budget."""
    h = complete(
        budget_tokens=tokens, batch_size=batch, train_sequences=sequences, context_length=context
    )
    assert h.total_steps * batch * context >= tokens
    assert (h.total_steps - 1) * batch * context < tokens
    assert h.epochs == math.ceil(Fraction(h.total_steps * batch, sequences))


@given(epochs=st.integers(1, 50), batch=st.integers(1, 64), sequences=st.integers(64, 10**6))
def test_derive_spends_epochs(epochs: int, batch: int, sequences: int) -> None:
    """As many whole updates as fit; the row then says the epochs that were asked for."""
    h = complete(epochs=epochs, batch_size=batch, train_sequences=sequences)
    assert h.total_steps * batch <= epochs * sequences < (h.total_steps + 1) * batch
    assert h.epochs == epochs


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1}, r"unknown hyperparameter 'lerning_rate'\. Did you mean learning_"),
        ({"α": 1}, "unknown hyperparameter 'α'"),  # names only; `find_symbol` reads the spellings
        ({"warmup_steps": FractionOf("warmup_steps", 0.5)}, "is a fraction of itself"),
        (
            {
                "warmup_steps": FractionOf("cycle_steps", 0.5),
                "cycle_steps": FractionOf("warmup_steps", 2),
            },
            "warmup_steps is a fraction of itself: warmup_steps of cycle_steps of warmup_steps",
        ),
        ({"warmup_steps": FractionOf("nothing", 0.5)}, "warmup_steps cannot be 0.5 of nothing"),
        ({"warmup_steps": FractionOf("optimizer", 0.5)}, "cannot be 0.5 of optimizer"),
        ({"warmup_steps": FractionOf("total_steps", math.inf)}, "cannot be inf of total_steps"),
        ({"batch_size": FractionOf("total_steps", 0.5)}, "B must be a whole number"),
        ({"total_steps": FractionOf("epochs", 0.5)}, "T_total must be a whole number"),
        ({"batch_size": 0}, r"B must be a whole number in \[1, 1e\+06\], got 0"),
        ({"batch_size": 2.5}, "B must be a whole number"),
        ({"batch_size": math.inf}, "B must be a whole number"),
        ({"total_steps": 0}, "T_total must be a whole number in .*, got 0"),
        ({"total_steps": 2.5}, "T_total must be a whole number"),
        ({"total_steps": "many"}, "T_total must be a whole number"),
        ({"epochs": 1.5}, "N_epoch must be a whole number"),
        ({"epochs": 1, "batch_size": 999}, "T_total must be a whole number"),
        ({"warmup_steps": 2.5}, "warmup_steps"),
        ({"warmup_steps": math.inf}, "warmup_steps"),
        ({"warmup_steps": "some"}, "warmup_steps"),
        ({"beta1": 1.0}, "beta1"),
        ({"beta1": math.nan}, "beta1"),
        ({"optimizer": "adamax"}, "optimizer"),
        ({"min_learning_rate": 0.1, "max_learning_rate": 0.01}, "α_min must not exceed α_max"),
        ({"warmup_steps": 101}, "T_warmup must not exceed T_total, got 101 > 100"),
        ({"warmup_steps": 60, "cycle_steps": 50}, "T_warmup must not exceed T_cycle, got 60 > 50"),
        (
            {"warmup_steps": 60, "cycle_steps": 50, "schedule": "linear"},
            "T_warmup must not exceed T_cycle, got 60 > 50",
        ),
        (
            {"warmup_steps": 60, "cooldown_steps": 41, "schedule": "wsd"},
            r"T_warmup \+ T_cooldown must not exceed T_total, got 60 \+ 41 > 100",
        ),
        (
            {"min_learning_rate": 0.1, "max_learning_rate": 0.01, "schedule": "wsd"},
            "α_min must not exceed α_max",
        ),
        (
            {"target_sparsity": 0.5, "prune_start_steps": 50, "prune_end_steps": 40},
            "T_prune_start must not exceed T_prune_end, got 50 > 40",
        ),
        (
            {"target_sparsity": 0.5, "prune_end_steps": 101},
            "T_prune_end must not exceed T_total, got 101 > 100",
        ),
        (
            {"warmup_steps": 101, "schedule": "constant"},
            "T_warmup must not exceed T_total, got 101 > 100",
        ),
    ],
)
def test_derive_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complete(**values)


@pytest.mark.parametrize("schedule", SYMBOL_TABLE["schedule"].choices)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_derive_gives_short_trials_defaults_too(schedule: str, total: int) -> None:
    h = complete(total_steps=total, schedule=schedule)
    assert h.decay_steps >= 1


def test_derive_ignores_the_cosine_rules_for_a_constant() -> None:
    """What the schedule does not read cannot contradict it."""
    h = complete(
        schedule="constant",
        min_learning_rate=0.1,
        max_learning_rate=0.01,
        warmup_steps=60,
        cycle_steps=50,
    )
    assert h.warmup_steps == 60


def test_derive_does_not_change_its_argument() -> None:
    values: dict[str, Any] = {"total_steps": 7, "cycle_steps": FractionOf("total_steps", 1.0)}
    derive(values, train_sequences=9, context_length=8)
    assert values == {"total_steps": 7, "cycle_steps": FractionOf("total_steps", 1.0)}
