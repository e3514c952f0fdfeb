"""The symbol table of Transformer training, as a validated model.

Every row is a field of `Hyperparameters` and carries its symbol, its accepted spellings, its
range, its default, its meaning and its formula. Search spaces, tables, MLflow names and error
messages read all facts about a hyperparameter from this table.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from model.spec.symbol import FractionOf, Symbol, symbol_field, symbol_of

_MEANS = ("adamw", "adam", "nadamw", "lamb", "muon")
_BETA1 = {"optimizer": (*_MEANS, "lion")}
_BETA2 = {"optimizer": (*_MEANS, "lion", "rmsprop")}
_EPS = {"optimizer": (*_MEANS, "rmsprop", "adagrad")}
_MOMENTUM = {"optimizer": ("momentum", "nesterov", "lars", "muon")}
_TO_FLOOR = ("cosine", "linear", "cosine_restarts")  # at T_cycle
_PEAKED = (*_TO_FLOOR, "wsd", "step", "exponential", "inverse_sqrt", "plateau")
_OPTIMIZERS = {
    "adamw": "Adam with bias correction: m̂/(√v̂ + ε); λ decoupled (Loshchilov and Hutter 2017)",
    "adam": "m̂/(√v̂ + ε); λ coupled, L2 in the loss (Kingma and Ba 2014)",
    "momentum": "heavy ball, v ← γ·v + (1−d)·g from v = 0, step v; λ coupled (Polyak 1964)",
    "sgd": "step g; λ coupled",
    "nesterov": "v ← γ·v + g, step g + γ·v; λ coupled (Sutskever et al. 2013, as in torch)",
    "adagrad": "v ← v + g², step g/(√v + ε), ε outside the root; λ coupled (Duchi et al. 2011)",
    "rmsprop": "v ← β2·v + (1−β2)·g², step g/(√v + ε), ε outside the root, no momentum, not "
    "centred; λ coupled (Tieleman and Hinton 2012)",
    "nadamw": "adamw with m̂ = β1·m/(1−β1^(t+1)) + (1−β1)·g/(1−β1^t), β1 constant (Dozat 2016)",
    "lars": "v ← γ·v + α_t·r·(g + λ·θ), step v, with r of η per tensor, gains included; λ coupled "
    "(You et al. 2017: rate and ratio inside the mean); its α is large, 1 to 30",
    "lamb": "the step u of adamw, λ included, times ‖θ‖/‖u‖ per tensor (You et al. 2019, φ(x) = x)",
    "lion": "step sign(β1·m + (1−β1)·g), then m ← β2·m + (1−β2)·g; λ decoupled "
    "(Chen et al. 2023); its α is 3 to 10 times smaller than that of adamw",
    "muon": "matrices in the blocks: 0.2·√max(o, i)·orthogonal(Nesterov momentum), λ decoupled; "
    "all others: adamw (Jordan et al. 2024, scaled as by Liu et al. 2025)",
}
_SCHEDULES = {
    "cosine": "from α_max to α_min at T_cycle along a cosine, then α_min",
    "constant": "α",
    "linear": "from α_max to α_min at T_cycle in a line, then α_min",
    "step": "α_max·f_decay^⌊(t−T_warmup)/T_decay⌋",
    "exponential": "α_max·f_decay^((t−T_warmup)/T_decay)",
    "inverse_sqrt": "α_max·√(T_warmup/t): noam by its peak",
    "noam": "s_noam·d_model^(−½)·min(t^(−½), t·T_warmup^(−3/2)) (Vaswani et al. 2017: s_noam = 1)",
    "cosine_restarts": "cosines from α_max to α_min; the first ends at T_cycle, each next one is "
    "T_mult times as long (Loshchilov and Hutter 2016)",
    "wsd": "α_max, then over the last T_cooldown updates to α_min (Hägele et al. 2024)",
    "plateau": "α_max, times f_decay after each plateau of the trial's own val_loss",
}


class Hyperparameters(BaseModel):
    """Complete hyperparameters of one trial; every field has a value.

    Build them with `derive`, which fills in the defaults and the rows that the budget determines.

    Learning rates: with `schedule: constant` the rate is α after the warm-up; with
    `schedule: noam` it follows from d_model and s_noam; all other schedules rise to α_max in
    T_warmup steps. `cosine` then falls along a cosine to α_min at step T_cycle and stays there; the
    others are described in model/spec/schedules.py. Rows that a schedule does not use are ignored.

    Raises:
        ValidationError: if a value lies outside its range or the rows contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = symbol_field(
        1e-3, "learning rate, constant schedule", "α_t = α·min(1, t/T_warmup)",
        symbol="α", spellings=("alpha", "lr"), used_when={"schedule": ("constant",)}, gt=0, le=100,
    )  # fmt: skip
    beta1: float = symbol_field(
        0.9, "decay of the gradient's running mean; lion: weight of the mean in the step's sign",
        "m ← β1·m + (1−β1)·g; lion: sign(β1·m + (1−β1)·g)",
        symbol="β1", spellings=("β₁", "beta_1"), used_when=_BETA1, ge=0, lt=1,
    )  # fmt: skip
    beta2: float = symbol_field(
        0.95, "decay of the squared gradient's running mean; lion: of the gradient's",
        "v ← β2·v + (1−β2)·g²; lion: m ← β2·m + (1−β2)·g",
        symbol="β2", spellings=("β₂", "beta_2"), used_when=_BETA2, ge=0, lt=1,
    )  # fmt: skip
    eps: float = symbol_field(
        1e-8, "keeps the denominator above zero; outside the root for every optimizer",
        "m̂/(√v̂ + ε); rmsprop, adagrad: g/(√v + ε)",
        symbol="ε", spellings=("epsilon",), used_when=_EPS, gt=0, le=1,
    )  # fmt: skip
    weight_decay: float = symbol_field(
        0.1,
        "weight decay of the matrices: decoupled (in the step) for adamw, nadamw, lamb, lion and "
        "muon, coupled (in the gradient, L2) for the others",
        "decoupled: θ ← θ − α_t·λ·θ; coupled: g ← g + λ·θ",
        symbol="λ", spellings=("lambda", "wd"), ge=0, le=10,
    )  # fmt: skip
    embedding_decay: float = symbol_field(
        0.0,
        "weight decay of the embeddings, of positions and distances too; coupled or decoupled as "
        "λ is",
        "as λ; {fraction_of: λ, value: 1} treats them like matrices",
        symbol="λ_emb", spellings=("lambda_emb",), ge=0, le=10,
    )  # fmt: skip
    gain_decay: float = symbol_field(
        0.0, "weight decay of the norms' gains and biases, coupled or decoupled as λ is", "as λ",
        symbol="λ_gain", spellings=("lambda_gain",), ge=0, le=10,
    )  # fmt: skip
    l1_penalty: float = symbol_field(
        0.0, "L1 penalty of the matrices, in the gradient for every optimizer",
        "g ← g + λ₁·sign(θ)",
        symbol="λ₁", spellings=("lambda_1", "l1"), ge=0, le=1,
    )  # fmt: skip
    momentum: float = symbol_field(
        0.9, "momentum; nesterov and muon look ahead with it (muon: often 0.95)",
        "momentum: v ← γ·v + (1−d)·g; nesterov: v ← γ·v + g; lars: v ← γ·v + α_t·r·g; "
        "muon: v ← γ·v + (1−γ)·g",
        symbol="γ", spellings=("gamma", "γ_momentum"), used_when=_MOMENTUM, ge=0, lt=1,
    )  # fmt: skip
    dampening: float = symbol_field(
        0.0, "dampening of the momentum; {fraction_of: γ, value: 1} gives the running mean",
        "v ← γ·v + (1−d)·g: d = 0 is γ·v + g, d = γ is γ·v + (1−γ)·g",
        symbol="d", used_when={"optimizer": ("momentum",)}, ge=0, lt=1,
    )  # fmt: skip
    trust_coefficient: float = symbol_field(
        1e-3, "trust of LARS in a tensor's step: its largest relative change, times α",
        "r = η·‖θ‖/(‖g‖ + λ·‖θ‖) per tensor",
        symbol="η", spellings=("eta",), used_when={"optimizer": ("lars",)}, gt=0, le=100,
    )  # fmt: skip
    dropout: float = symbol_field(
        0.0, "probability of dropping an activation, in the three places that follow",
        "x·mask/(1−p_drop)",
        symbol="p_drop", spellings=("p_dropout",), ge=0, lt=1,
    )  # fmt: skip
    embedding_dropout: float = symbol_field(
        FractionOf("dropout", 1.0), "p_drop of the token embeddings", "x·mask/(1−p_emb)",
        symbol="p_emb", spellings=("embd_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    attention_dropout: float = symbol_field(
        FractionOf("dropout", 1.0), "p_drop of the attention probabilities",
        "(softmax(q·kᵀ/√d)·mask/(1−p_attn))·v",
        symbol="p_attn", spellings=("attn_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    residual_dropout: float = symbol_field(
        FractionOf("dropout", 1.0), "p_drop of the output of each branch, before the residual sum",
        "x + branch·mask/(1−p_res)",
        symbol="p_res", spellings=("resid_pdrop",), ge=0, lt=1,
    )  # fmt: skip
    token_noise: float = symbol_field(
        0.0, "share of the input tokens that training replaces at random; targets are kept",
        "x_t ← uniform over the vocabulary, with probability p_noise",
        symbol="p_noise", ge=0, lt=1,
    )  # fmt: skip
    label_smoothing: float = symbol_field(
        0.0, "probability spread evenly over the vocabulary in the training target",
        "−Σ_v ((1−ε_ls)·[v=y] + ε_ls/V)·log p_v",
        symbol="ε_ls", spellings=("eps_ls", "epsilon_ls"), ge=0, lt=1,
    )  # fmt: skip
    grad_clip: float = symbol_field(
        1.0, "largest global gradient norm; 0 turns clipping off", "g ← g·min(1, τ/‖g‖)",
        symbol="τ", spellings=("tau", "max_grad_norm", "clip"), ge=0, le=1e6,
    )  # fmt: skip
    grad_clip_value: float = symbol_field(
        0.0, "largest size of each number of the gradient, after τ; 0 turns it off",
        "g ← max(−τ_value, min(τ_value, g))",
        symbol="τ_value", spellings=("tau_value", "clip_value"), ge=0, le=1e6,
    )  # fmt: skip
    z_loss: float = symbol_field(
        0.0, "weight of the z-loss, which keeps the logits' normaliser Z near 1; 1e-4 in PaLM",
        "loss + λ_z·log²Z, Z = Σ_v exp(logit_v)",
        symbol="λ_z", spellings=("lambda_z",), ge=0, le=1,
    )  # fmt: skip
    ema_decay: float = symbol_field(
        0.0, "decay of the running mean of the weights that validation uses; 0 turns it off",
        "θ̄ ← β_t·θ̄ + (1−β_t)·θ, β_t = min(β_ema, (1+t)/(10+t))",
        symbol="β_ema", spellings=("beta_ema",), ge=0, lt=1,
    )  # fmt: skip
    target_sparsity: float = symbol_field(
        0.0, "share of each matrix that gradual magnitude pruning ends at; 0 turns it off",
        "s_t = s_final·(1 − (1 − u)³), u = (t − T_prune_start) / (T_prune_end − T_prune_start)",
        symbol="s_final", ge=0, lt=1,
    )  # fmt: skip
    prune_start_steps: int = symbol_field(
        FractionOf("total_steps", 0.2), "update at which pruning begins", "see s_final",
        symbol="T_prune_start", ge=0,
    )  # fmt: skip
    prune_end_steps: int = symbol_field(
        FractionOf("total_steps", 0.8), "update at which pruning has reached s_final",
        "see s_final", symbol="T_prune_end", ge=0,
    )  # fmt: skip
    prune_interval_steps: int = symbol_field(
        10, "updates from one pruning to the next", "t = T_prune_start + i·ΔT_prune",
        symbol="ΔT_prune", spellings=("prune_every",), ge=1,
    )  # fmt: skip
    warmup_steps: int = symbol_field(
        FractionOf("total_steps", 0.05), "updates of linear warm-up", "α_t = α·t/T_warmup",
        symbol="T_warmup", spellings=("t_warmup", "warmup"), ge=0,
    )  # fmt: skip
    max_learning_rate: float = symbol_field(
        1e-3, "peak learning rate, of every schedule but constant and noam",
        "α_t = α_max at t = T_warmup",
        symbol="α_max", spellings=("alpha_max", "max_lr", "lr_max"),
        used_when={"schedule": _PEAKED}, gt=0, le=100,
    )  # fmt: skip
    min_learning_rate: float = symbol_field(
        FractionOf("max_learning_rate", 0.1),
        "final learning rate of cosine, linear, wsd and each cosine of cosine_restarts",
        "α_t = α_min + ½(1 + cos(π·s))·(α_max − α_min), s = (t − T_warmup) / "
        "(T_cycle − T_warmup); linear: 1 − s instead of ½(1 + cos(π·s))",
        symbol="α_min", spellings=("alpha_min", "min_lr", "lr_min"),
        used_when={"schedule": (*_TO_FLOOR, "wsd")}, ge=0, le=100,
    )  # fmt: skip
    cycle_steps: int = symbol_field(
        FractionOf("total_steps", 1.0),
        "update at which cosine and linear, and the first cosine of cosine_restarts, reach α_min",
        "cosine, linear: α_t = α_min for t > T_cycle",
        symbol="T_cycle", spellings=("t_cycle",), used_when={"schedule": _TO_FLOOR}, ge=1,
    )  # fmt: skip
    cycle_multiplier: float = symbol_field(
        1.0, "length of each cosine of cosine_restarts, as a multiple of the one before",
        "T_i = (T_cycle−T_warmup)·T_mult^i",
        symbol="T_mult", spellings=("t_mult",), used_when={"schedule": ("cosine_restarts",)},
        ge=1, le=100,
    )  # fmt: skip
    decay_steps: int = symbol_field(
        FractionOf("total_steps", 0.3), "updates in which step and exponential fall by f_decay",
        "step: f_decay^⌊(t − T_warmup)/T_decay⌋; exponential: without ⌊ ⌋",
        symbol="T_decay", spellings=("t_decay",),
        used_when={"schedule": ("step", "exponential")}, ge=1,
    )  # fmt: skip
    decay_factor: float = symbol_field(
        0.1, "factor of the rate, applied every T_decay updates or at each plateau",
        "plateau: α_t = α_max·f_decay^(reductions so far)",
        symbol="f_decay", spellings=("lr_gamma",),
        used_when={"schedule": ("step", "exponential", "plateau")}, gt=0, le=1,
    )  # fmt: skip
    cooldown_steps: int = symbol_field(
        FractionOf("total_steps", 0.2), "updates of the cool-down of wsd, which ends at T_total",
        "α_t = α_min + (1 − s)·(α_max − α_min), s = (t − T_total + T_cooldown) / T_cooldown",
        symbol="T_cooldown", spellings=("t_cooldown",), used_when={"schedule": ("wsd",)}, ge=0,
    )  # fmt: skip
    cooldown_shape: Literal["linear", "sqrt"] = symbol_field(
        "linear", "shape of the cool-down of wsd", "linear: 1−s; sqrt: 1−√s",
        used_when={"schedule": ("wsd",)},
    )  # fmt: skip
    plateau_patience: int = symbol_field(
        1, "reports without a better val_loss that plateau tolerates; the next one reduces α_t",
        "better: val_loss < best·(1−1e-4)",
        used_when={"schedule": ("plateau",)}, ge=0,
    )  # fmt: skip
    plateau_cooldown: int = symbol_field(
        0, "reports after a reduction that plateau does not count",
        "as cooldown of torch's ReduceLROnPlateau",
        used_when={"schedule": ("plateau",)}, ge=0,
    )  # fmt: skip
    noam_factor: float = symbol_field(
        1.0, "factor of the original Transformer's schedule; α and α_max do not enter it",
        "α_t = s_noam · d_model^(−½) · min(t^(−½), t·T_warmup^(−3/2))",
        symbol="s_noam", used_when={"schedule": ("noam",)}, gt=0, le=1000,
    )  # fmt: skip
    batch_size: int = symbol_field(
        16, "sequences per update", "tokens per update = B·context_length",
        symbol="B", ge=1, le=1_000_000,
    )  # fmt: skip
    total_steps: int = symbol_field(
        None, "updates of the full budget", "T_total = ⌈tokens / (B·context_length)⌉",
        symbol="T_total", spellings=("t_total", "max_steps"), ge=1,
    )  # fmt: skip
    epochs: int = symbol_field(
        None, "passes over the training sequences, the last one perhaps partial",
        "N_epoch = ⌈T_total·B / |Data|⌉",
        symbol="N_epoch", spellings=("n_epoch", "num_epochs"), ge=1,
    )  # fmt: skip
    optimizer: Literal[
        "adamw", "adam", "momentum", "sgd", "nesterov", "adagrad", "rmsprop", "nadamw", "lars",
        "lamb", "lion", "muon",
    ] = symbol_field(
        "adamw", "the row of coefficients in the update rule", "see below",
        choice_meanings=_OPTIMIZERS,
    )  # fmt: skip
    schedule: Literal[
        "cosine", "constant", "linear", "step", "exponential", "inverse_sqrt", "noam",
        "cosine_restarts", "wsd", "plateau",
    ] = symbol_field(
        "cosine", "learning rate over updates, after T_warmup updates of linear warm-up",
        "see below", choice_meanings=_SCHEDULES,
    )  # fmt: skip

    lora_alpha: float = symbol_field(
        16.0, "scale of LoRA's change of a matrix (Hu et al. 2021, arXiv:2106.09685)",
        "W·x + s·B·A·x, s = α_lora/rank or α_lora/√rank",
        symbol="α_lora", spellings=("alpha_lora",), is_late=True, gt=0, le=1e5,
    )  # fmt: skip
    lora_scaling: Literal["alpha/rank", "alpha/sqrt(rank)"] = symbol_field(
        "alpha/rank", "how LoRA's scale s follows from α_lora and the rank", "see below",
        choice_meanings={
            "alpha/rank": "s = α_lora/rank (Hu et al. 2021)",
            "alpha/sqrt(rank)": "s = α_lora/√rank, rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)",
        }, is_late=True,
    )  # fmt: skip
    lora_dropout: float = symbol_field(
        0.0, "p_drop of the input of LoRA's matrices, not of the frozen ones",
        "W·x + s·B·A·(x·mask/(1−p_lora))",
        symbol="p_lora", is_late=True, ge=0, lt=1,
    )  # fmt: skip
    lora_b_rate_factor: float = symbol_field(
        1.0, "LoRA+: rate of B as a multiple of A's (Hayou et al. 2024, arXiv:2402.12354)",
        "θ_B ← θ_B − f_B·α_t·(…)",
        symbol="f_B", is_late=True, gt=0, le=1e4,
    )  # fmt: skip

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        """Check the rules that span several rows."""
        has_floor = self.schedule in (*_TO_FLOOR, "wsd")
        if has_floor and self.min_learning_rate > self.max_learning_rate:
            raise ValueError(
                f"α_min must not exceed α_max, got {self.min_learning_rate:g} > "
                f"{self.max_learning_rate:g}"
            )
        if self.warmup_steps > self.total_steps:
            raise ValueError(
                f"T_warmup must not exceed T_total, got {self.warmup_steps} > {self.total_steps}"
            )
        if self.schedule in _TO_FLOOR and self.warmup_steps > self.cycle_steps:
            raise ValueError(
                f"T_warmup must not exceed T_cycle, got {self.warmup_steps} > {self.cycle_steps}"
            )
        phases = self.warmup_steps + self.cooldown_steps
        if self.schedule == "wsd" and phases > self.total_steps:
            raise ValueError(
                f"T_warmup + T_cooldown must not exceed T_total, got {self.warmup_steps} + "
                f"{self.cooldown_steps} > {self.total_steps}"
            )
        if self.target_sparsity and self.prune_start_steps > self.prune_end_steps:
            raise ValueError(
                f"T_prune_start must not exceed T_prune_end, got {self.prune_start_steps} > "
                f"{self.prune_end_steps}"
            )
        if self.target_sparsity and self.prune_end_steps > self.total_steps:
            raise ValueError(
                f"T_prune_end must not exceed T_total, got {self.prune_end_steps} > "
                f"{self.total_steps}"
            )
        return self


SYMBOL_TABLE: Mapping[str, Symbol] = {
    name: symbol_of(name, info) for name, info in Hyperparameters.model_fields.items()
}


def _plain(spelling: str) -> str:
    return unicodedata.normalize("NFKC", spelling).replace("-", "_")


_NAMES: Mapping[str, str] = {
    _plain(spelling): row.name
    for row in SYMBOL_TABLE.values()
    for spelling in (row.name, row.symbol, *row.spellings)
}


# rows that count in trials with LoRA only
LORA_ROWS = ("lora_alpha", "lora_scaling", "lora_dropout", "lora_b_rate_factor")


def find_symbol(spelling: str) -> Symbol | None:
    """Return the row of a name, a symbol or another accepted spelling; None if there is none."""
    name = _NAMES.get(_plain(spelling))
    return SYMBOL_TABLE[name] if name else None


def nearest(spelling: str) -> str:
    """Return ` Did you mean …?` with the closest known spelling, or an empty text."""
    matches = difflib.get_close_matches(_plain(spelling), _NAMES, n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""
