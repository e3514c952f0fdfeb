from __future__ import annotations

import math
from typing import Any

import pytest

from model.spec.derive import with_row_names
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.schedules import learning_rate
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tests.tuner.summaries.trial_configurations import configuration_of_spec
from tuner.summaries.other_trainers import COUNTERPARTS, nanogpt_config, training_arguments

COMMON = {"T_warmup": 3, "B": 8, "β2": 0.98, "λ": 0.03, "τ": 0.5, "α_max": 0.01}
SIZES = {"context_length", "d_model", "n_layers", "n_heads"}
SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "cosine", "α_min": 1e-4},
    {"schedule": "linear", "α_min": 1e-4},
    {"schedule": "linear", "α_min": 0.0},
    {"schedule": "constant"},
    {"schedule": "inverse_sqrt"},
    {"schedule": "wsd", "α_min": 0.0},
    {"schedule": "wsd", "α_min": 0.0, "cooldown_shape": "sqrt"},
]


def spec_of(make_spec: MakeSpec, rows: dict[str, Any]) -> TrialSpec:
    return make_spec(**with_row_names(rows))


def rates_of(rows: Hyperparameters) -> list[float]:
    return [learning_rate(step, rows) for step in range(1, rows.total_steps + 1)]


def test_table_names_rows_and_entries_that_exist() -> None:
    assert COUNTERPARTS.keys() - SIZES <= SYMBOL_TABLE.keys()


@pytest.mark.slow
def test_training_arguments_have_the_values_and_the_rates(make_spec: MakeSpec) -> None:
    """transformers reads the text, and its scheduler gives our rates at every update."""
    pytest.importorskip("accelerate")
    import torch
    import transformers

    for rows in SCHEDULES:
        spec = spec_of(make_spec, COMMON | {"α": 0.02, "ε_ls": 0.1} | rows)
        text = training_arguments(configuration_of_spec(spec))
        names: dict[str, Any] = {}
        exec(text, names)
        arguments, h = names["arguments"], spec.hyperparameters
        batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        assert (batch, arguments.max_steps, arguments.adam_beta2, arguments.weight_decay) == (
            8, h.total_steps, 0.98, 0.03,
        )  # fmt: skip
        assert (arguments.max_grad_norm, arguments.label_smoothing_factor) == (0.5, 0.1)
        optimizer = torch.optim.AdamW([torch.zeros(1)], lr=arguments.learning_rate)
        scheduler = transformers.get_scheduler(
            arguments.lr_scheduler_type, optimizer, int(arguments.warmup_steps),
            arguments.max_steps, arguments.lr_scheduler_kwargs,
        )  # fmt: skip
        theirs = []
        for _ in range(h.total_steps):
            optimizer.step()
            scheduler.step()  # theirs counts from 0, which the text says
            theirs.append(optimizer.param_groups[0]["lr"])
        assert theirs == pytest.approx(rates_of(h), rel=1e-6, abs=1e-9), rows


def rate_of_nanogpt(it: int, c: dict[str, Any]) -> float:
    """`get_lr` of nanoGPT's train.py."""
    if not c["decay_lr"]:
        return float(c["learning_rate"])
    if it < c["warmup_iters"]:
        return float(c["learning_rate"] * (it + 1) / (c["warmup_iters"] + 1))
    if it > c["lr_decay_iters"]:
        return float(c["min_lr"])
    share = (it - c["warmup_iters"]) / (c["lr_decay_iters"] - c["warmup_iters"])
    return float(
        c["min_lr"] + 0.5 * (1.0 + math.cos(math.pi * share)) * (c["learning_rate"] - c["min_lr"])
    )


def test_configuration_of_nanogpt_is_read_and_has_the_values(make_spec: MakeSpec) -> None:
    rows = {"α_min": 1e-3, "p_drop": 0.1, "ε_ls": 0.1, "β_ema": 0.9}
    spec = spec_of(make_spec, COMMON | rows)
    text = nanogpt_config(configuration_of_spec(spec))
    config: dict[str, Any] = {"decay_lr": True}  # train.py has defaults, and runs the file
    exec(text, config)
    h, a = spec.hyperparameters, spec.architecture
    assert config["batch_size"] * config["gradient_accumulation_steps"] == 8
    assert (config["n_layer"], config["n_head"], config["n_embd"], config["block_size"]) == (
        a.n_layers, a.n_heads, a.d_model, a.context_length,
    )  # fmt: skip
    assert (config["beta2"], config["weight_decay"], config["grad_clip"]) == (0.98, 0.03, 0.5)
    assert (config["dropout"], config["max_iters"], config["bias"]) == (0.1, h.total_steps, False)
    theirs = [rate_of_nanogpt(it, config) for it in range(3, h.total_steps + 1)]
    assert theirs == pytest.approx(rates_of(h)[2:])
    assert "# - ε_ls = 0.1 (" in text
    assert "# - β_ema = 0.9 (" in text
    assert "# - position: rope, where nanoGPT has learned" in text


@pytest.mark.parametrize(
    ("rows", "trainers", "said"),
    [
        ({"optimizer": "muon", "γ": 0.9}, 2, "optimizer muon"),
        ({"schedule": "noam"}, 2, "schedule noam"),
        ({"schedule": "cosine_restarts"}, 2, "schedule cosine_restarts"),
        ({"schedule": "step", "f_decay": 0.1}, 2, "f_decay = 0.1"),
        ({"p_noise": 0.1}, 2, "p_noise = 0.1"),
        ({"λ_z": 1e-4}, 2, "λ_z = 0.0001"),
        ({"τ_value": 1.0}, 2, "τ_value = 1"),
        ({"schedule": "cosine", "T_cycle": 4}, 1, "T_cycle = 4"),
        ({"p_drop": 0.2, "p_attn": 0.0}, 2, "p_"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_said(
    make_spec: MakeSpec, rows: dict[str, Any], trainers: int, said: str
) -> None:
    trial = configuration_of_spec(spec_of(make_spec, rows))
    texts = [training_arguments(trial), nanogpt_config(trial)]
    notes = [
        "\n".join(line for line in text.splitlines() if line.startswith("# - ")) for text in texts
    ]
    assert sum(said in each for each in notes) == trainers, texts
