"""The settings of a search space: `budget:`, `engine:`, `search:` and `confirm:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuner.formatting import in_seconds, listed, shown
from tuner.space.parameter import Frozen, Value


class Budget(Frozen):
    """`budget:`, what one trial may use if it is not stopped."""

    tokens: int | None = Field(default=None, ge=1)
    reports: int = Field(default=10, ge=1, le=10_000)
    validation_tokens: int = Field(default=8_192, ge=1)


class EngineConfig(Frozen):
    """`engine:`, how the trials are packed onto devices.

    Attributes:
        workers: processes that train; one per core, or per GPU, if it is left out.
        slots: trials that each of them trains at one time; None, or `auto`: as many as gain.
        micro_batch: sequences per tick; the largest that divides every B if it is left out.
        device: where they train.
        dtype: in which they compute; `auto` is bfloat16 on a GPU that does, otherwise float32.
        timeout_seconds: silence after which a worker is taken for frozen and started anew.
    """

    workers: int | None = Field(default=None, ge=1, le=4096)
    slots: int | None = Field(default=None, ge=1, le=4096)
    micro_batch: int | None = Field(default=None, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    timeout_seconds: float = Field(default=60.0, gt=0)

    @field_validator("slots", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value == "auto":
                return None
            raise ValueError(f"engine.slots must be a number, or auto, got {shown(value)}")
        return value


Sampler = Literal["tpe", "gp", "cmaes", "qmc", "random", "grid", "nsga2"]
SchedulerName = Literal["asha", "hyperband", "bohb", "median", "pbt", "pb2", "none"]


class SearchConfig(Frozen):
    """`search:`, which trials run and how long.

    Attributes:
        trials: how many configurations are tried; with pbt and pb2 the size of the population.
        sampler: which suggests them.
        scheduler: which decides how far each trains.
        asha: whether asha stops a trial for ever or parks it until it is promoted.
        reduction_factor: η, of a rung one in so many goes on.
        perturb_reports: reports between two exchanges of pbt and pb2.
        seed: of the sampler and of the trials.
        try_first: points to try after the defaults; each names some parameters as the file may.
        order: how reports are taken: `tokens`, as if all slots were equally fast, which makes the
            search reproducible; `arrival`, as they come; `auto`, tokens with one worker.
        max_tokens: training tokens after which no trial goes on.
        max_seconds: likewise, wall time; also written 90s, 10m or 2h.
        patience: trials that may end without a better one before the search does.
        keep: finished trials, the best ones, whose trained weights are recorded.
    """

    trials: int = Field(default=24, ge=1, le=1_000_000)
    sampler: Sampler = "tpe"
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
    """`confirm:`, how the best configurations are retrained; `off` is top 0."""

    top: int = Field(default=3, ge=0, le=100)
    seeds: int = Field(default=3, ge=2, le=100)


class InitFromConfig(Frozen):
    """Where all trials start, instead of random weights.

    Attributes:
        search: name of a search, or of a space whose newest search is meant: its best trial.
        run: MLflow run of a trial, or its first eight or more letters.
        checkpoint: file that a search wrote.
        optimizer_state: whether the optimizer's moments are taken over with the weights.

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
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            got = listed(given, "and") if given else "none"
            raise ValueError(f"init_from needs exactly one of {listed(kinds)}, got {got}")
        return self
