"""What trials are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from tuner.space.parameter import Frozen

Metric = Literal[
    "val_loss", "train_loss", "perplexity", "token_accuracy", "bleu", "sparsity", "parameters"
]
Mode = Literal["min", "max"]

MODES: Mapping[str, Mode] = {
    "val_loss": "min",
    "train_loss": "min",
    "perplexity": "min",
    "token_accuracy": "max",  # only with pairs
    "bleu": "max",  # only with pairs, and at the end
    "sparsity": "max",  # only with pruning
    "parameters": "min",  # number of weights of the model
}
# Those that say nothing about how well a trial is doing on its way.
ONLY_AT_THE_END = ("bleu", "parameters")


class Objective(Frozen):
    """`objective:`, or one of its list: a metric, and which end of it is good.

    Attributes:
        metric: what is compared.
        mode: each metric has one good end, so this may be left out.
    """

    metric: Metric = "val_loss"
    mode: Mode = "min"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_mode(cls, data: Any) -> Any:
        if isinstance(data, dict) and "mode" not in data:
            metric = data.get("metric", "val_loss")
            return data | {"mode": MODES.get(metric, "min") if isinstance(metric, str) else "min"}
        return data

    @field_validator("mode")
    @classmethod
    def _is_good_end(cls, mode: Mode, info: ValidationInfo) -> Mode:
        metric = info.data.get("metric", "")
        if MODES.get(metric, mode) != mode:
            good = "less" if MODES[metric] == "min" else "more"
            raise ValueError(
                f"objective.mode must be {MODES[metric]} for {metric}, of which {good} is better, "
                f"got {mode}; leave it out"
            )
        return mode
