"""The hyperparameters of a trial in the words of other trainers: TrainingArguments and nanoGPT.

`COUNTERPARTS` is the only table of names. What a trainer cannot express is said in comments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.trial import TrialSpec
from tuner.summaries.configuration import TrialConfiguration
from tuner.texts.formatting import shown

_RATES_BEFORE = "its first update has the rate of t = 0; here updates count from 1"


class Counterpart(NamedTuple):
    """Names of one row of the symbol table in other trainers; None where it has no counterpart."""

    transformers: str | None = None
    nanogpt: str | None = None


# Row of the symbol table, or entry of `model:` → its names elsewhere. Optimizer and schedule are
# translated by `_transformers` and `_nanogpt`, B into micro-batch and accumulation.
COUNTERPARTS: Mapping[str, Counterpart] = {
    "max_learning_rate": Counterpart("learning_rate", "learning_rate"),
    "learning_rate": Counterpart("learning_rate", "learning_rate"),
    "min_learning_rate": Counterpart(None, "min_lr"),  # transformers: in lr_scheduler_kwargs
    "beta1": Counterpart("adam_beta1", "beta1"),
    "beta2": Counterpart("adam_beta2", "beta2"),
    "eps": Counterpart("adam_epsilon", None),
    "weight_decay": Counterpart("weight_decay", "weight_decay"),
    "dropout": Counterpart(None, "dropout"),
    "label_smoothing": Counterpart("label_smoothing_factor", None),
    "grad_clip": Counterpart("max_grad_norm", "grad_clip"),
    "warmup_steps": Counterpart("warmup_steps", "warmup_iters"),
    "total_steps": Counterpart("max_steps", "max_iters"),
    "cycle_steps": Counterpart(None, "lr_decay_iters"),
    "context_length": Counterpart(None, "block_size"),
    "d_model": Counterpart(None, "n_embd"),
    "n_layers": Counterpart(None, "n_layer"),
    "n_heads": Counterpart(None, "n_head"),
}
# Rows that say how others are meant, and are translated together with those.
_WITH_OTHERS = {
    "optimizer", "schedule", "batch_size", "epochs", "embedding_decay", "cooldown_steps",
    "cooldown_shape", "embedding_dropout", "attention_dropout", "residual_dropout",
}  # fmt: skip
_DROPOUTS = ("dropout", "embedding_dropout", "attention_dropout", "residual_dropout")
_OPTIM = {"adamw": "adamw_torch", "sgd": "sgd", "adagrad": "adagrad", "lion": "lion_32bit"}


@dataclass
class _Translation:
    """Settings of another trainer in their order, and what could not be said in it."""

    settings: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def training_arguments(trial: TrialConfiguration) -> str:
    """Return Python text that makes the `TrainingArguments` of Hugging Face transformers."""
    found = _translated(trial.spec, "transformers", _transformers)
    lines = [f"    {name}={value!r}," for name, value in found.settings.items()]
    head = ["from transformers import TrainingArguments", "", "arguments = TrainingArguments(",
            f"    output_dir={trial.name!r},"]  # fmt: skip
    missing = ["the model itself: tuner export --format hf writes it", *found.missing]
    return _file(trial, [*head, *lines, ")"], missing)


def nanogpt_config(trial: TrialConfiguration) -> str:
    """Return the text of a configuration file for nanoGPT's train.py."""
    found = _translated(trial.spec, "nanogpt", _nanogpt)
    lines = [f"{name} = {value!r}" for name, value in found.settings.items()]
    name = trial.spec.data.files or trial.spec.data.hub or trial.spec.data.source
    missing = [f"the data, {shown(name)}: set dataset", *found.missing]
    return _file(trial, [f"out_dir = {f'out-{trial.name}'!r}", *lines], missing)


def _file(trial: TrialConfiguration, lines: Sequence[str], missing: Sequence[str]) -> str:
    notes = ["# What is not in it, or differs there:", *(f"# - {note}" for note in missing)]
    return "\n".join([f"# {trial.title}", *notes, *lines]) + "\n"


def _translated(
    spec: TrialSpec, trainer: str, others: Callable[[TrialSpec, _Translation], None]
) -> _Translation:
    """Translate all rows of a trial that have an effect, then what depends on several rows."""
    found, h = _Translation(), spec.hyperparameters
    for name, row in SYMBOL_TABLE.items():
        value = getattr(h, name)
        if name in _WITH_OTHERS or not _has_effect(name, h):
            continue
        other = getattr(COUNTERPARTS.get(name, Counterpart()), trainer)
        if other is not None:
            found.settings[other] = value
        elif name in _SAID_ELSEWHERE[trainer]:
            continue
        elif value != row.default or "schedule" in row.used_when:
            found.missing.append(f"{row.symbol} = {shown(value)} ({row.meaning})")
    others(spec, found)
    if spec.architecture.target is not None:
        found.missing.append("the trial is a proxy: these are the values of its target")
    return found


# rows without a name that `_schedule` and `_transformers` translate
_SAID_ELSEWHERE: Mapping[str, frozenset[str]] = {
    "transformers": frozenset({"min_learning_rate", "cycle_steps", "dropout"}),
    "nanogpt": frozenset(),
}


def _has_effect(name: str, h: Hyperparameters) -> bool:
    if name.startswith("prune_"):
        return h.target_sparsity > 0
    used_when = SYMBOL_TABLE[name].used_when
    return all(getattr(h, other) in values for other, values in used_when.items())


def _batches(spec: TrialSpec) -> tuple[int, int]:
    """Return the sequences of a micro-batch, and the micro-batches of an update."""
    batch = int(spec.value_of("batch_size"))
    micro = spec.micro_batch if batch % spec.micro_batch == 0 else batch
    return micro, batch // micro


def _decay_of_embeddings(h: Hyperparameters, trainer: str) -> list[str]:
    if h.embedding_decay == h.weight_decay:
        return []
    return [f"λ_emb = {shown(h.embedding_decay)}: {trainer} decays embeddings by weight_decay, too"]


# Hugging Face transformers -----------------------------------------------------------------------


def _transformers(spec: TrialSpec, found: _Translation) -> None:
    h, settings = spec.hyperparameters, found.settings
    micro, accumulated = _batches(spec)
    settings |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulated}
    settings["seed"] = spec.seed
    if h.optimizer in _OPTIM:
        settings["optim"] = _OPTIM[h.optimizer]
    else:
        found.missing.append(f"optimizer {h.optimizer}: give Trainer an optimizer of your own")
    if h.optimizer in ("sgd", "adagrad") and h.weight_decay:
        found.missing.append(
            "λ is coupled here and there: torch's optimizer adds it to the gradient"
        )
    found.missing += _decay_of_embeddings(h, "Trainer")
    dropouts = {name: getattr(h, name) for name in _DROPOUTS if getattr(h, name)}
    if dropouts:
        values = ", ".join(f"{SYMBOL_TABLE[n].symbol} = {shown(v)}" for n, v in dropouts.items())
        found.missing.append(f"{values}: set the dropout in the configuration of the model")
    name, kwargs, note = _schedule(h)
    if name is None:
        found.missing.append(f"schedule {h.schedule}: give Trainer a scheduler of your own; {note}")
    else:
        settings["lr_scheduler_type"] = name
        settings |= {"lr_scheduler_kwargs": kwargs} if kwargs else {}
        found.missing += [note] if note else []
    found.missing.append(_RATES_BEFORE)


def _schedule(h: Hyperparameters) -> tuple[str | None, dict[str, Any], str]:
    """Return name and arguments of a scheduler of transformers, and what differs.

    The name is None if none has these rates.
    """
    low = h.min_learning_rate
    name: str | None = None
    kwargs: dict[str, Any] = {}
    note = SYMBOL_TABLE["schedule"].choice_meanings[h.schedule]
    if h.schedule in ("cosine", "linear") and h.cycle_steps != h.total_steps:
        note = f"α_min is reached at T_cycle = {h.cycle_steps}, not at T_total"
    elif h.schedule == "constant":
        name, note = "constant_with_warmup", ""
    elif h.schedule == "inverse_sqrt" and h.warmup_steps:
        name, note = "inverse_sqrt", ""
    elif h.schedule == "wsd":
        shape = {"linear": "linear", "sqrt": "1-sqrt"}[h.cooldown_shape]
        name, kwargs = (
            "warmup_stable_decay",
            {"num_decay_steps": h.cooldown_steps, "decay_type": shape},
        )
        kwargs["min_lr_ratio"] = low / h.max_learning_rate
        is_other = low and h.warmup_steps
        note = "the warm-up of warmup_stable_decay begins at α_min, not at 0" if is_other else ""
    elif h.schedule == "cosine":
        name, kwargs, note = "cosine_with_min_lr", {"min_lr": low}, ""
    elif h.schedule == "linear":
        name, kwargs, note = "polynomial", {"lr_end": low, "power": 1.0}, ""
    return name, kwargs, note


# nanoGPT -----------------------------------------------------------------------------------------

_SIZES = ("context_length", "d_model", "n_layers", "n_heads")
# What nanoGPT's model is; entries of `model:` that differ are said.
_GPT: Mapping[str, Any] = {
    "position": "learned", "norm": "layernorm", "norm_placement": "pre", "activation": "gelu",
    "tied_embeddings": True, "qk_norm": False, "n_encoder_layers": 0, "logit_soft_cap": 0.0,
}  # fmt: skip


def _nanogpt(spec: TrialSpec, found: _Translation) -> None:
    h, a, settings = spec.hyperparameters, spec.architecture, found.settings
    micro, accumulated = _batches(spec)
    settings |= {"batch_size": micro, "gradient_accumulation_steps": accumulated}
    settings |= {str(COUNTERPARTS[name].nanogpt): spec.value_of(name) for name in _SIZES}
    settings |= {"bias": a.biases == "all", "eval_interval": spec.report_steps[0]}
    if h.optimizer != "adamw":
        found.missing.append(f"optimizer {h.optimizer}: nanoGPT has AdamW alone")
    found.missing += _decay_of_embeddings(h, "nanoGPT")
    if h.schedule == "constant":
        settings["decay_lr"] = False
        found.missing += (
            ["the warm-up: nanoGPT has none without decay_lr"] if h.warmup_steps else []
        )
    elif h.schedule != "cosine":
        found.missing.append(f"schedule {h.schedule}: nanoGPT has the cosine alone")
    for name in _DROPOUTS:
        if getattr(h, name) != h.dropout:
            symbol = SYMBOL_TABLE[name].symbol
            found.missing.append(f"{symbol} = {shown(getattr(h, name))}: nanoGPT has one dropout")
    found.missing += _differences(a)


def _differences(a: Architecture) -> list[str]:
    """Return what of an architecture nanoGPT's model is not."""
    sizes: dict[str, Any] = {"n_kv_heads": a.n_heads, "d_ff": 4 * a.d_model}
    sizes |= {"biases": "all"} if a.biases == "qkv" else {}
    return [
        f"{name}: {shown(getattr(a, name))}, where nanoGPT has {shown(value)}"
        for name, value in {**_GPT, **sizes}.items()
        if getattr(a, name) != value
    ]


# Option of `tuner show` → function that makes the text.
TAKE_AWAY: Mapping[str, Callable[[TrialConfiguration], str]] = {
    "yaml": TrialConfiguration.yaml,
    "transformers": training_arguments,
    "nanogpt": nanogpt_config,
}
