"""The symbol table of Transformer training, as a validated model.

Every row is a field of `Hyperparameters` and carries its symbol, its accepted spellings, its
range, its default, its meaning and its formula. Everything else that needs to know about a
hyperparameter (search spaces, tables, MLflow names, error messages) reads it from here.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Value = float | int | str


@dataclass(frozen=True)
class FractionOf:
    """A value given as a share of another hyperparameter: α_min = 0.1·α_max."""

    name: str
    share: float


@dataclass(frozen=True)
class Row:
    """One row of the symbol table, as read from a field of `Hyperparameters`.

    Attributes:
        name: the Python, YAML and MLflow name.
        symbol: the letter of the literature; the name itself where there is none.
        spellings: further names that a search space may use.
        meaning: what it is, with its unit.
        formula: where it enters.
        default: a value, or a `FractionOf` another row; None for what the budget decides.
        kind: float, int, or str for a choice.
        low: smallest value, None for a choice.
        high: largest value, None where there is no limit.
        low_open: whether `low` itself is excluded.
        high_open: whether `high` itself is excluded.
        choices: the values of a choice, otherwise empty.
        used_when: row name → values for which this row has an effect; empty if always.
    """

    name: str
    symbol: str
    spellings: tuple[str, ...]
    meaning: str
    formula: str
    default: Value | FractionOf | None
    kind: type
    low: float | None
    high: float | None
    low_open: bool
    high_open: bool
    choices: tuple[str, ...]
    used_when: Mapping[str, tuple[str, ...]]

    @property
    def range(self) -> str:
        """The range as mathematicians write it: `(0, 1)`, `[0, ∞)`, `adamw | sgd`."""
        if self.choices:
            return " | ".join(self.choices)
        left = "(" if self.low_open else "["
        right = "∞)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}{self.low:g}, {right}"

    def accepts(self, value: object) -> bool:
        """Whether one value is of this row's kind and inside its range."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.kind is int and value != int(value)):
            return False
        low, high = cast(float, self.low), self.high
        above = value > low if self.low_open else value >= low
        below = high is None or (value < high if self.high_open else value <= high)
        return above and below


def _row(
    default: Value | FractionOf | None,
    meaning: str,
    formula: str,
    *,
    symbol: str = "",
    spellings: tuple[str, ...] = (),
    used_when: Mapping[str, tuple[str, ...]] | None = None,
    **limits: float,
) -> Any:
    """A required pydantic field that carries its row; the default is applied by `derive`."""
    extra = {
        "symbol": symbol,
        "spellings": spellings,
        "meaning": meaning,
        "formula": formula,
        "default": default,
        "used_when": used_when or {},
    }
    return Field(json_schema_extra=cast(Any, {"row": extra}), **cast(Any, limits))


_ADAM = {"optimizer": ("adamw", "adam")}
_COSINE = {"schedule": ("cosine",)}


class Hyperparameters(BaseModel):
    """The complete, concrete hyperparameters of one trial; every field has a number.

    Build it with `derive`, which fills in the defaults and what follows from the budget.

    Which learning rate counts: with `schedule: constant` the rate is α after the warm-up; with
    `schedule: cosine` it rises to α_max in T_warmup steps, falls along a cosine to α_min at step
    T_cycle, and stays there. α is ignored by the cosine, and α_max, α_min and T_cycle by the
    constant.

    Raises:
        ValidationError: if a value lies outside its range or the rows contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = _row(
        1e-3, "learning rate, constant schedule", "α_t = α·min(1, t/T_warmup)",
        symbol="α", spellings=("alpha", "lr"), used_when={"schedule": ("constant",)}, gt=0, le=100,
    )  # fmt: skip
    beta1: float = _row(
        0.9, "decay of the gradient's running mean", "m ← β1·m + (1−β1)·g",
        symbol="β1", spellings=("β₁", "beta_1"), used_when=_ADAM, ge=0, lt=1,
    )  # fmt: skip
    beta2: float = _row(
        0.95, "decay of the squared gradient's running mean", "v ← β2·v + (1−β2)·g²",
        symbol="β2", spellings=("β₂", "beta_2"), used_when=_ADAM, ge=0, lt=1,
    )  # fmt: skip
    eps: float = _row(
        1e-8, "keeps the denominator above zero", "m̂ / (√v̂ + ε)",
        symbol="ε", spellings=("epsilon",), used_when=_ADAM, gt=0, le=1,
    )  # fmt: skip
    weight_decay: float = _row(
        0.1, "weight decay of the matrices: decoupled for adamw, else added to the gradient",
        "adamw: θ ← θ − α_t·λ·θ; others: g ← g + λ·θ",
        symbol="λ", spellings=("lambda", "wd"), ge=0, le=10,
    )  # fmt: skip
    momentum: float = _row(
        0.9, "momentum, without dampening", "v ← γ·v + g",
        symbol="γ", spellings=("gamma", "γ_momentum"), used_when={"optimizer": ("momentum",)},
        ge=0, lt=1,
    )  # fmt: skip
    dropout: float = _row(
        0.0, "probability of dropping an activation, in the three places that follow",
        "x·mask/(1−p_drop)",
        symbol="p_drop", spellings=("p_dropout",), ge=0, lt=1,
    )  # fmt: skip
    embedding_dropout: float = _row(
        FractionOf("dropout", 1.0), "p_drop of the token embeddings", "x·mask/(1−p_emb)",
        symbol="p_emb", spellings=("embd_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    attention_dropout: float = _row(
        FractionOf("dropout", 1.0), "p_drop of the attention probabilities",
        "(softmax(q·kᵀ/√d)·mask/(1−p_attn))·v",
        symbol="p_attn", spellings=("attn_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    residual_dropout: float = _row(
        FractionOf("dropout", 1.0), "p_drop of what each branch adds to the residual stream",
        "x + branch·mask/(1−p_res)",
        symbol="p_res", spellings=("resid_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    token_noise: float = _row(
        0.0, "share of the input tokens that training replaces at random; targets are kept",
        "x_t ← uniform over the vocabulary, with probability p_noise",
        symbol="p_noise", ge=0, lt=1,
    )  # fmt: skip
    label_smoothing: float = _row(
        0.0, "probability spread evenly over the vocabulary in the training target",
        "−Σ_v ((1−ε_ls)·[v=y] + ε_ls/V)·log p_v",
        symbol="ε_ls", spellings=("eps_ls", "epsilon_ls"), ge=0, lt=1,
    )  # fmt: skip
    grad_clip: float = _row(
        1.0, "largest global gradient norm; 0 turns clipping off", "g ← g·min(1, τ/‖g‖)",
        symbol="τ", spellings=("tau", "max_grad_norm", "clip"), ge=0, le=1e6,
    )  # fmt: skip
    warmup_steps: int = _row(
        FractionOf("total_steps", 0.05), "updates of linear warm-up", "α_t = α·t/T_warmup",
        symbol="T_warmup", spellings=("t_warmup", "warmup"), ge=0,
    )  # fmt: skip
    max_learning_rate: float = _row(
        1e-3, "peak learning rate, cosine schedule", "α_t = α_max at t = T_warmup",
        symbol="α_max", spellings=("alpha_max", "max_lr", "lr_max"), used_when=_COSINE,
        gt=0, le=100,
    )  # fmt: skip
    min_learning_rate: float = _row(
        FractionOf("max_learning_rate", 0.1), "final learning rate, cosine schedule",
        "α_t = α_min + ½(1+cos(π(t−T_warmup)/(T_cycle−T_warmup)))·(α_max−α_min)",
        symbol="α_min", spellings=("alpha_min", "min_lr", "lr_min"), used_when=_COSINE,
        ge=0, le=100,
    )  # fmt: skip
    cycle_steps: int = _row(
        FractionOf("total_steps", 1.0), "update at which the cosine reaches α_min",
        "α_t = α_min for t > T_cycle",
        symbol="T_cycle", spellings=("t_cycle",), used_when=_COSINE, ge=1,
    )  # fmt: skip
    batch_size: int = _row(
        16, "sequences per update", "tokens per update = B·context_length",
        symbol="B", ge=1, le=1_000_000,
    )  # fmt: skip
    total_steps: int = _row(
        None, "updates of the full budget", "T_total = ⌈tokens / (B·context_length)⌉",
        symbol="T_total", spellings=("t_total", "max_steps"), ge=1,
    )  # fmt: skip
    epochs: int = _row(
        None, "passes over the training sequences, the last one perhaps partial",
        "N_epoch = ⌈T_total·B / |Data|⌉",
        symbol="N_epoch", spellings=("n_epoch", "num_epochs"), ge=1,
    )  # fmt: skip
    optimizer: Literal["adamw", "adam", "momentum", "sgd"] = _row(
        "adamw", "the row of coefficients in the update rule", "see model/optimizers.py",
    )  # fmt: skip
    schedule: Literal["cosine", "constant"] = _row(
        "cosine", "learning rate over updates", "see model/schedules.py",
    )  # fmt: skip

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        """The rules that span rows."""
        if self.schedule == "cosine" and self.min_learning_rate > self.max_learning_rate:
            raise ValueError(
                f"α_min must not exceed α_max, got {self.min_learning_rate:g} > "
                f"{self.max_learning_rate:g}"
            )
        if self.warmup_steps > self.total_steps:
            raise ValueError(
                f"T_warmup must not exceed T_total, got {self.warmup_steps} > {self.total_steps}"
            )
        if self.schedule == "cosine" and self.warmup_steps > self.cycle_steps:
            raise ValueError(
                f"T_warmup must not exceed T_cycle, got {self.warmup_steps} > {self.cycle_steps}"
            )
        return self


def _read_row(name: str, info: FieldInfo) -> Row:
    extra = cast(dict[str, Any], cast(dict[str, Any], info.json_schema_extra)["row"])
    limits = {
        limit: getattr(item, limit)
        for item in info.metadata
        for limit in ("gt", "ge", "lt", "le")
        if hasattr(item, limit)
    }
    is_choice = info.annotation not in (int, float)
    return Row(
        name=name,
        symbol=extra["symbol"] or name,
        spellings=extra["spellings"],
        meaning=extra["meaning"],
        formula=extra["formula"],
        default=extra["default"],
        kind=str if is_choice else cast(type, info.annotation),
        low=None if is_choice else limits.get("gt", limits.get("ge")),
        high=limits.get("lt", limits.get("le")),
        low_open="gt" in limits,
        high_open="lt" in limits,
        choices=cast(Any, info.annotation).__args__ if is_choice else (),
        used_when=extra["used_when"],
    )


SYMBOL_TABLE: Mapping[str, Row] = {
    name: _read_row(name, info) for name, info in Hyperparameters.model_fields.items()
}


def _plain(spelling: str) -> str:
    return unicodedata.normalize("NFKC", spelling).replace("-", "_")


_NAMES: Mapping[str, str] = {
    _plain(spelling): row.name
    for row in SYMBOL_TABLE.values()
    for spelling in (row.name, row.symbol, *row.spellings)
}


def find_row(spelling: str) -> Row | None:
    """The row that a name, a symbol or another accepted spelling means; None if there is none."""
    name = _NAMES.get(_plain(spelling))
    return SYMBOL_TABLE[name] if name else None


def nearest(spelling: str, known: Iterable[str] | None = None) -> str:
    """` Did you mean …?` with the closest known spelling, or an empty text."""
    candidates = list(_NAMES if known is None else known)
    matches = difflib.get_close_matches(_plain(spelling), candidates, n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""


def derive(
    values: Mapping[str, Value | FractionOf],
    *,
    train_sequences: int,
    context_length: int,
    budget_tokens: int | None = None,
) -> Hyperparameters:
    """Complete some given rows with the defaults and with what follows from the budget.

    Args:
        values: row name → value or `FractionOf` another row.
        train_sequences: |Data|, training sequences in one epoch.
        context_length: tokens per sequence.
        budget_tokens: training tokens of the full budget.

    Returns:
        The hyperparameters, with N_epoch = ⌈T_total·B/|Data|⌉.

    Raises:
        ValueError: if not exactly one of T_total, N_epoch and `budget_tokens` is given, a
            name is unknown, fractions refer to each other in a circle, or (as pydantic's
            ValidationError) a row is out of range.
    """
    given = dict(values)
    for name in given:
        if name not in SYMBOL_TABLE:
            raise ValueError(f"unknown hyperparameter {name!r}.{nearest(name)}")
    budgets = [name for name in ("total_steps", "epochs") if name in given]
    if len(budgets) + (budget_tokens is not None) != 1:
        raise ValueError("give exactly one of T_total, N_epoch and a budget in tokens")
    complete: dict[str, Value | FractionOf] = {
        row.name: row.default for row in SYMBOL_TABLE.values() if row.default is not None
    }
    complete.update(given)
    batch_size = _count("batch_size", complete)
    if "epochs" in given:
        complete["total_steps"] = _count("epochs", complete) * train_sequences // batch_size
    elif budget_tokens is not None:
        complete["total_steps"] = math.ceil(budget_tokens / (batch_size * context_length))
    total_steps = _count("total_steps", complete)
    complete["epochs"] = math.ceil(total_steps * batch_size / train_sequences)
    resolved = {name: _resolve(name, complete, ()) for name in complete}
    return Hyperparameters.model_validate(resolved)


def _count(name: str, values: Mapping[str, Value | FractionOf]) -> int:
    """A row that others are derived from."""
    row, value = SYMBOL_TABLE[name], values[name]
    if isinstance(value, FractionOf) or not row.accepts(value):
        raise ValueError(f"{row.symbol} must be a whole number in {row.range}, got {value}")
    return int(value)


def _resolve(name: str, values: Mapping[str, Value | FractionOf], path: tuple[str, ...]) -> Value:
    """Follow fractions to a number, rounded where the row counts something."""
    value = values[name]
    if not isinstance(value, FractionOf):
        return value
    if name in path:
        raise ValueError(f"{name} is a fraction of itself: {' of '.join((*path, name))}")
    whole = _resolve(value.name, values, (*path, name)) if value.name in values else None
    share = value.share * whole if isinstance(whole, int | float) else math.nan
    if not math.isfinite(share):
        raise ValueError(f"{name} cannot be {value.share:g} of {value.name}")
    return round(share) if SYMBOL_TABLE[name].kind is int else share
