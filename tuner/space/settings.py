"""The settings of a search space: `budget:`, `proxy:`, `engine:`, `search:` and `confirm:`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model.spec.architecture import Architecture
from model.spec.target import SIZES_OF_TARGET, BatchRule, Target, TokensRule
from tuner.space.parameter import Frozen, Value
from tuner.space.proposals import LEARN_FROM, DefaultsMode, LearnFrom
from tuner.texts.formatting import (
    broken_rule,
    counted,
    in_flops,
    in_seconds,
    in_share,
    listed,
    shown,
)
from tuner.texts.secrets import has_secret

_SHARES = ("width", "depth", "tokens", "batch")
_D_FF = 32  # d_ff is a multiple of it
_LARGEST_DENOMINATOR = 4096


_URL = re.compile(r"(?!file://[^/])[a-z][a-z0-9+.-]*://[^\s?#*\[\]]*[^\s?#*\[\]/]/*")


# true and false where a setting has the words on and off
_ON = BeforeValidator(lambda value: "on" if value is True else value)
_OFF = BeforeValidator(lambda value: "off" if value is False else value)


def _quantity(setting: str, value: Any, read: Callable[[object], object], rule: str) -> Any:
    """Return what a function reads from a setting with a unit.

    Raises:
        ValueError: if the function leaves a text as it is.
    """
    found = read(value)
    if isinstance(found, str):
        raise ValueError(f"{setting} {rule}, got {shown(value)}")
    return found


class Budget(Frozen):
    """`budget:`, training and evaluation of one complete trial.

    Attributes:
        tokens: training tokens of a trial; with `shorter`, of the longest.
        shorter: further budgets, for which a trial is cooled down earlier too, in ascending order;
            in a file they are a list with `tokens`.
        flops: training operations of a trial (`Architecture.flops_per_token`), instead of tokens:
            each architecture gets the tokens that it can afford.
        reports: number of reports of a trial, at equal shares of the budget.
        validation_tokens: tokens of the evaluation at each report.
    """

    tokens: int | None = Field(default=None, ge=1)
    shorter: tuple[int, ...] = ()
    flops: int | None = Field(default=None, ge=1, le=10**26)
    reports: int = Field(default=10, ge=1, le=10_000)
    validation_tokens: int = Field(default=8_192, ge=1)

    @property
    def shorter_text(self) -> str:
        """The shorter budgets as the end of a sentence; empty without any."""
        budgets = [f"{tokens:,}" for tokens in self.shorter]
        return f", and is cooled down after {listed(budgets, 'and')} tokens too" if budgets else ""

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.shorter and not ascend((*self.shorter, self.tokens)):
            raise ValueError("budget.shorter must ascend to budget.tokens, and begin at 1 or above")
        return self

    @field_validator("flops", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        rule = "must be a number of operations, such as 2e15, 2P or 300T"
        flops = _quantity("budget.flops", value, in_flops, rule)
        return round(flops) if isinstance(flops, float) and math.isfinite(flops) else flops


def ascend(budgets: Sequence[Any]) -> bool:
    """Return True if all budgets are whole numbers from 1 on, each larger than the one before."""
    are_whole = all(type(each) is int and each >= 1 for each in budgets)
    return are_whole and all(a < b for a, b in pairwise(budgets))


class Proxy(Frozen):
    """Sizes of the trained model, as shares of the model of `model:`, the target.

    All values of the space are those of the target; `model.spec.multipliers` says what a proxy is
    trained with.

    Attributes:
        width: share of d_model; of the heads too if they can be divided, otherwise of d_head.
        depth: share of n_layers, and of n_encoder_layers.
        tokens: share of budget.tokens.
        batch: share of B.
        decay_exponent: e, α·λ of a matrix is multiplied by m^(e−1), m the ratio of the fan-ins.
        batch_rule: how α, β and ε follow `batch`.
        tokens_rule: how α or λ follows `tokens`.

    Raises:
        ValidationError: if a rule has no effect, or two contradict each other.
    """

    width: float = Field(default=1.0, gt=0, le=1)
    depth: float = Field(default=1.0, gt=0, le=1)
    tokens: float = Field(default=1.0, gt=0, le=1)
    batch: float = Field(default=1.0, gt=0, le=1)
    decay_exponent: float = Field(default=1.0, ge=-4, le=4)
    batch_rule: Annotated[BatchRule, _OFF] = "off"
    tokens_rule: Annotated[TokensRule, _OFF] = "off"

    @field_validator(*_SHARES, mode="before")
    @classmethod
    def _as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Read a share that is written as a quotient, `1/8`."""
        if not isinstance(value, str):
            return value
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f"proxy.{info.field_name} must be a number or a quotient such as 1/8, got "
                f"{shown(value)}"
            ) from error

    @model_validator(mode="after")
    def _rules_agree(self) -> Self:
        for rule, share in (("batch_rule", "batch"), ("tokens_rule", "tokens")):
            if getattr(self, rule) != "off" and getattr(self, share) == 1:
                raise ValueError(
                    f"proxy.{rule} has no effect without proxy.{share}; give both or none"
                )
        if self.tokens_rule == "bjorck" and self.batch != 1:
            raise ValueError(
                "proxy.tokens_rule bjorck holds at a fixed batch size and contradicts proxy.batch; "
                "leave out one of them"
            )
        if self.tokens_rule == "timescale" and self.decay_exponent != 1:
            raise ValueError(
                "proxy.tokens_rule timescale keeps α·λ·tokens/B and contradicts a "
                "proxy.decay_exponent other than 1; leave out one of them"
            )
        return self

    def shrink(self, target: Architecture) -> Architecture:
        """Return the proxy of an architecture; the architecture itself if nothing differs.

        Heads keep their width and become fewer if n_heads and n_kv_heads can be divided: the
        scores then need no factor. Otherwise all heads stay and become narrower. d_ff is rounded
        to a multiple of 32.

        Raises:
            ValueError: if a size cannot be divided, or no such model is possible.
        """
        heads = [count * self.width for count in (target.n_heads, target.n_kv_heads)]
        if not all(_is_whole(count) for count in heads):
            heads = [target.n_heads, target.n_kv_heads]
        encoder = target.n_encoder_layers
        sizes = {
            "d_model": self._size("width", "d_model", target.d_model),
            "n_layers": self._size("depth", "n_layers", target.n_layers),
            "n_encoder_layers": self._size("depth", "n_encoder_layers", encoder) if encoder else 0,
            "n_heads": round(heads[0]),
            "n_kv_heads": round(heads[1]),
            "d_ff": max(_D_FF, _D_FF * round(target.d_ff * self.width / _D_FF)),
        }
        own = {name: getattr(target, name) for name in SIZES_OF_TARGET}
        if sizes == own and self.batch == 1 and self.tokens_rule == "off":
            return target
        rules = {
            name: getattr(self, name) for name in Target.model_fields if name not in SIZES_OF_TARGET
        }
        entries = target.model_dump() | sizes | {"target": {**own, **rules}}
        try:
            return Architecture.model_validate(entries)
        except ValidationError as error:
            rule = broken_rule("", error.errors()[0])
            raise ValueError(
                f"proxy: the model of {_sizes_text(sizes)} is not possible: {rule}; choose another "
                f"share"
            ) from error

    def _size(self, share: str, name: str, whole: int) -> int:
        """Return a share of a size.

        Raises:
            ValueError: if it is no whole number.
        """
        size: float = whole * getattr(self, share)
        if not _is_whole(size):
            raise ValueError(
                f"proxy.{share} {_quotient(getattr(self, share))} does not divide {name} {whole}; "
                f"choose another share"
            )
        return round(size)

    def batch_of(self, batch_size: float) -> int:
        """Return B of the proxy for a B of the target.

        Raises:
            ValueError: if it is no whole number.
        """
        return self._size("batch", "B", int(batch_size))

    @property
    def steps(self) -> float:
        """Number of updates of the proxy, as a share of the target's."""
        return self.tokens / self.batch

    def describe(self) -> str:
        """Return the shares as text: `1/8 of the width and 1/16 of the tokens`."""
        names = {"batch": "batch size"}
        shares = [
            f"{_quotient(share)} of the {names.get(name, name)}"
            for name in _SHARES
            if (share := getattr(self, name)) != 1
        ]
        return listed(shares, "and") or "all of the width, depth and tokens"


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
        storage: URL of a folder, as fsspec knows it, that gets the states of trials and the
            journal; None for the home alone.
    """

    workers: int | None = Field(default=None, ge=1, le=4096)
    slots: int | None = Field(default=None, ge=1, le=4096)
    micro_batch: int | None = Field(default=None, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "mixed_bfloat16"] = "auto"
    compile: Annotated[Literal["auto", "on", "off"], _ON, _OFF] = "auto"
    timeout_seconds: float = Field(default=60.0, gt=0)
    storage: str | None = None

    @field_validator("storage")
    @classmethod
    def _as_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if has_secret(value):  # the space is recorded, and shown
            raise ValueError(
                "engine.storage must have no user, password or options; its library reads them "
                "from the environment or its own configuration"
            )
        if not _URL.fullmatch(value):
            example = "such as s3://bucket/folder"
            raise ValueError(f"engine.storage must be a URL, {example}, got {shown(value)}")
        return value.rstrip("/")

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
        defaults: how far the defaults train: `full`, to the end as trial 0, and never stopped;
            `raced`, as far as the scheduler lets trial 0; `off`, not at all.
        try_first: points to try after the defaults; each names some parameters by name or symbol.
        learn_from: sources of first trials and priors: names of searches of the home, paths or URLs
            of tables of trials; `auto`, all searches of the home and what is shipped; `off`, none.
        order: order in which reports are taken. `tokens`: as if all slots trained equally many
            tokens a second, so that the search does not depend on timing. `arrival`: as they come.
            `auto`: by expected time, which does not depend on timing either, where all workers are
            alike; in the order of arrival on a cluster.
        max_tokens: training tokens of the search after which no trial continues.
        max_seconds: wall time after which no trial continues; also written 90s, 10m or 2h.
        patience: number of trials that may end without improvement before the search ends.
        stop_when_left_below: gain that as many trials again could bring, as a share of the best
            value, below which the search ends (`conductor.left`); also written 0.2 %.
        keep: number of the best finished trials whose trained weights are recorded.
    """

    trials: int = Field(default=24, ge=1, le=1_000_000)
    sampler: SamplerName = "tpe"
    scheduler: SchedulerName = "asha"
    asha: Literal["stop", "promote"] = "promote"
    reduction_factor: int = Field(default=3, ge=2, le=100)
    perturb_reports: int = Field(default=2, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**32)
    defaults: Annotated[DefaultsMode, _OFF] = "full"
    try_first: tuple[Mapping[str, Value], ...] = ()
    learn_from: LearnFrom = LEARN_FROM
    order: Literal["auto", "tokens", "arrival"] = "auto"
    max_tokens: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    stop_when_left_below: float | None = Field(default=None, gt=0, lt=1)
    keep: int = Field(default=3, ge=1, le=10_000)

    @field_validator("max_seconds", mode="before")
    @classmethod
    def _as_seconds(cls, value: Any) -> Any:
        rule = "must be seconds, or a time such as 90s, 10m or 2h"
        return _quantity("search.max_seconds", value, in_seconds, rule)

    @field_validator("stop_when_left_below", mode="before")
    @classmethod
    def _as_share(cls, value: Any) -> Any:
        rule = "must be a share, such as 0.002 or 0.2 %"
        return _quantity("search.stop_when_left_below", value, in_share, rule)


class Confirm(Frozen):
    """`confirm:`, retraining of the best configurations with fresh seeds; `off` is top 0.

    Attributes:
        top: number of the best configurations that are retrained.
        seeds: number of retrainings of each, with equal seeds for all.
    """

    top: int = Field(default=3, ge=0, le=100)
    seeds: int = Field(default=3, ge=2, le=100)


class InitFromConfig(Frozen):
    """`init_from:`, checkpoint that all trials start from, instead of random weights.

    Attributes:
        search: start from the best trial of this search, or of this space's newest search.
        run: MLflow run id of a trial, or its first eight or more letters.
        checkpoint: path of a checkpoint that a search wrote.
        huggingface: folder of a pretrained model, with config.json and safetensors files.
        optimizer_state: True to load the optimizer's moments with the weights.

    Raises:
        ValidationError: if not exactly one source is given, or `optimizer_state` with a source
            that has none.
    """

    search: str | None = Field(default=None, min_length=1)
    run: str | None = Field(default=None, min_length=1)
    checkpoint: str | None = Field(default=None, min_length=1)
    huggingface: str | None = Field(default=None, min_length=1)
    optimizer_state: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        kinds = ("search", "run", "checkpoint", "huggingface")
        used = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(used) != 1:
            got = listed(used, "and") if used else "none"
            raise ValueError(f"init_from needs exactly one of {listed(kinds)}, got {got}")
        if self.huggingface is not None and self.optimizer_state:
            raise ValueError(
                "a pretrained model of Hugging Face has no moments; leave optimizer_state out"
            )
        return self


def target_text(a: Architecture) -> str:
    """Return the sizes of a proxy's target as text: `8 layers of 512, 32 heads`."""
    target = a.target or a
    layers, heads = counted(target.n_layers, "layer"), counted(target.n_heads, "head")
    encoder = f", an encoder of {target.n_encoder_layers}" if target.n_encoder_layers else ""
    return f"{layers} of {target.d_model}, {heads}{encoder}"


def _sizes_text(sizes: dict[str, int]) -> str:
    return f"{counted(sizes['n_layers'], 'layer')} of {sizes['d_model']}"


def _is_whole(size: float) -> bool:
    """Return True for a whole number from 1 on; shares such as 1/3 are rounded."""
    return size > 0.5 and abs(size - round(size)) < 1e-6 * size


def _quotient(share: float) -> str:
    return str(Fraction(share).limit_denominator(_LARGEST_DENOMINATOR))
