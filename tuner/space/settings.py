"""The settings of a search space: `budget:`, `engine:`, `search:` and `confirm:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuner.formatting import in_seconds, listed, shown
from tuner.space.parameter import Frozen, Value


class Budget(Frozen):
    """`budget:`, training and evaluation of one complete trial."""

    tokens: int | None = Field(default=None, ge=1)
    reports: int = Field(default=10, ge=1, le=10_000)
    validation_tokens: int = Field(default=8_192, ge=1)


class EngineConfig(Frozen):
    """`engine:`, workers, devices and stacks.

    Attributes:
        workers: number of training processes; default one per core or per GPU.
        slots: trials that a worker trains at once; None (`auto`) for as many as increase speed.
        micro_batch: sequences per tick; default the largest number that divides every B.
        device: device of the workers.
        dtype: dtype of the computation; `auto` is bfloat16 on a GPU that supports it, on a CPU
            mixed_bfloat16 if a measurement says that it is faster, otherwise float32.
        compile: whether ticks on a CPU are compiled; `auto` compiles if the search is long enough.
        timeout_seconds: silence after which a worker counts as frozen and is restarted.
    """

    workers: int | None = Field(default=None, ge=1, le=4096)
    slots: int | None = Field(default=None, ge=1, le=4096)
    micro_batch: int | None = Field(default=None, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "mixed_bfloat16"] = "auto"
    # the default is left out of journals, so that those of earlier versions keep their bytes
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", exclude_if=lambda value: value == "auto"
    )
    timeout_seconds: float = Field(default=60.0, gt=0)

    @field_validator("compile", mode="before")
    @classmethod
    def _as_word(cls, value: Any) -> Any:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("slots", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value == "auto":
                return None
            raise ValueError(f"engine.slots must be a number, or auto, got {shown(value)}")
        return value


SamplerName = Literal["tpe", "gp", "cmaes", "qmc", "random", "grid", "nsga2"]
SchedulerName = Literal["asha", "hyperband", "bohb", "median", "pbt", "pb2", "none"]


class SearchConfig(Frozen):
    """`search:`, number of trials, sampler, scheduler and limits.

    Attributes:
        trials: number of configurations; with pbt and pb2, size of the population.
        sampler: suggests configurations.
        scheduler: decides how far each trial trains.
        asha: form of asha: stop a trial, or pause it until it is promoted.
        reduction_factor: η, one in η trials is promoted at each rung.
        perturb_reports: reports between two exchange points of pbt and pb2.
        seed: seed of the sampler and of the trials.
        try_first: points to try after the defaults; each names some parameters by name or symbol.
        order: order in which reports are taken. `tokens`: as if all slots trained equally many
            tokens a second, so that the search does not depend on timing. `arrival`: as they come.
            `auto`: by expected time, which does not depend on timing either, where all workers are
            alike; in the order of arrival on a cluster.
        max_tokens: training tokens of the search after which no trial continues.
        max_seconds: wall time after which no trial continues; also written 90s, 10m or 2h.
        patience: number of trials that may end without improvement before the search ends.
        keep: number of the best finished trials whose trained weights are recorded.
    """

    trials: int = Field(default=24, ge=1, le=1_000_000)
    sampler: SamplerName = "tpe"
    scheduler: SchedulerName = "asha"
    asha: Literal["stop", "promote"] = "promote"
    reduction_factor: int = Field(default=3, ge=2, le=100)
    perturb_reports: int = Field(default=2, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**32)
    try_first: tuple[Mapping[str, Value], ...] = ()
    order: Literal["auto", "tokens", "arrival"] = "auto"
    max_tokens: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    keep: int = Field(default=3, ge=1, le=10_000)

    @field_validator("max_seconds", mode="before")
    @classmethod
    def _as_seconds(cls, value: Any) -> Any:
        seconds = in_seconds(value)
        if isinstance(seconds, str):
            rule = "must be seconds, or a time such as 90s, 10m or 2h"
            raise ValueError(f"search.max_seconds {rule}, got {shown(value)}")
        return seconds


class Confirm(Frozen):
    """`confirm:`, retraining of the best configurations with fresh seeds; `off` is top 0."""

    top: int = Field(default=3, ge=0, le=100)
    seeds: int = Field(default=3, ge=2, le=100)


class InitFromConfig(Frozen):
    """`init_from:`, checkpoint that all trials start from, instead of random weights.

    Attributes:
        search: start from the best trial of this search, or of this space's newest search.
        run: MLflow run id of a trial, or its first eight or more letters.
        checkpoint: path of a checkpoint that a search wrote.
        optimizer_state: True to load the optimizer's moments with the weights.

    Raises:
        ValidationError: if not exactly one of `search`, `run` and `checkpoint` is given.
    """

    search: str | None = Field(default=None, min_length=1)
    run: str | None = Field(default=None, min_length=1)
    checkpoint: str | None = Field(default=None, min_length=1)
    optimizer_state: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        kinds = ("search", "run", "checkpoint")
        used = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(used) != 1:
            got = listed(used, "and") if used else "none"
            raise ValueError(f"init_from needs exactly one of {listed(kinds)}, got {got}")
        return self
