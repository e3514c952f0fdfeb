"""Objectives, by whose metrics trials are compared, and `compare:`, whose arms are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from tuner.space.parameter import Frozen
from tuner.space.settings import Confirm

Metric = Literal[
    "val_loss",
    "train_loss",
    "perplexity",
    "token_accuracy",
    "bleu",
    "exact_match",
    "acc",
    "acc_norm",
    "sparsity",
    "parameters",
    "flops",
]
Mode = Literal["min", "max"]

MODES: Mapping[str, Mode] = {
    "val_loss": "min",
    "train_loss": "min",
    "perplexity": "min",
    "token_accuracy": "max",  # only with pairs or examples
    "bleu": "max",  # only with pairs, and at the end
    "exact_match": "max",  # only with examples whose answers are learned
    "acc": "max",  # only with data.multiple_choice, and so is acc_norm
    "acc_norm": "max",
    "sparsity": "max",  # only with pruning
    "parameters": "min",  # number of weights of the model
    "flops": "min",  # operations of the training
}
# Factor that makes smaller values better.
SIGNS: Mapping[Mode, int] = {"min": 1, "max": -1}
# Metrics that do not change, or are not measured, before the last report of a trial.
ONLY_AT_THE_END = ("bleu", "parameters", "flops")

# At p < 0.01, five seeds show a difference of 2.6 of its standard deviations between seeds with a
# probability of 80 %. With three it would have to be 7.3, with ten 1.3.
_CONFIRM_ARMS = {"top": 1, "seeds": 5}


class Objective(Frozen):
    """`objective:`, or one item of its list: a metric and its better end.

    Attributes:
        metric: name of the metric.
        mode: better end of the metric; optional, because each metric has only one.
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

    @property
    def sign(self) -> int:
        """Factor that makes smaller values better: -1 if large values are good, else 1."""
        return SIGNS[self.mode]

    @property
    def lowest(self) -> str:
        """The word for the best of several values: `lowest` or `highest`."""
        return "lowest" if self.sign > 0 else "highest"

    def rank(self, value: float) -> float:
        """Return a value for comparisons: smaller is better, infinity if it is not finite."""
        return self.sign * value if math.isfinite(value) else math.inf


def sign_of(metric: str) -> int:
    """Return the sign of a metric by name; 1 for an unknown metric."""
    return SIGNS[MODES.get(metric, "min")]


class Compare(Frozen):
    """`compare:`, the search has an arm for each value of a parameter.

    Attributes:
        by: name of the parameter.
    """

    by: str


def with_seeds_of_arms(data: Any) -> Any:
    """Return the entries of a space; with `compare:`, `confirm:` has the defaults of arms."""
    if not isinstance(data, dict) or not data.get("compare"):
        return data
    confirm = data.get("confirm") or {}
    if isinstance(confirm, Confirm):
        confirm = {key: getattr(confirm, key) for key in confirm.model_fields_set}
    return {**data, "confirm": {**_CONFIRM_ARMS, **confirm}}
