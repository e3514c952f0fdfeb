"""Finished trials as measurements of sizes, and whether they can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.trial import TrialSpec
from tuner.conductor.trial import Trial
from tuner.errors import TunerError
from tuner.results.result import SearchResult
from tuner.space.parameter import rate_row, symbol
from tuner.texts.formatting import listed, shown

SIZES = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff")  # may differ
_ROUNDED = 1.1  # budgets of one size that differ by less are one: whole updates of several B
# given by the size, the tokens or the fitted rows
_DERIVED = ("batch_size", "total_steps", "epochs", "learning_rate", "max_learning_rate",
            "noam_factor")  # fmt: skip


@dataclass(frozen=True)
class ScalingRun:
    """One finished trial.

    Attributes:
        search: name of its search.
        trial: number of the trial.
        parameters: weights of its model.
        tokens: training tokens.
        flops: operations of its training.
        rate: peak of its learning rate.
        batch: sequences of an update.
        loss: final validation loss, nats per token.
    """

    search: str
    trial: int
    parameters: int
    tokens: int
    flops: float
    rate: float
    batch: int
    loss: float


@dataclass(frozen=True)
class SizeRuns:
    """Trials of one size and one budget.

    Attributes:
        parameters: weights of the model.
        tokens: training tokens, the geometric mean.
        flops: operations of a training, the geometric mean.
        runs: the trials.
    """

    parameters: int
    tokens: float
    flops: float
    runs: Sequence[ScalingRun]


def measure(results: Sequence[SearchResult]) -> list[SizeRuns]:
    """Return the finished trials of searches by size and budget, smallest first.

    Branches of shorter budgets count, and retrainings of a confirmation: seeds may differ, and are
    the noise that is measured. Trials that diverged, or whose learning rate was changed on the way,
    do not count.

    Raises:
        TunerError: if the trials differ in more than size, tokens, learning rate, B and seed.
    """
    pairs = [
        (result.name, trial)
        for result in results
        for trial in (*result.trials, *result.branches, *result.confirming)
        if _counts(trial)
    ]
    check_comparable([(f"{name}/{trial.number}", trial.spec) for name, trial in pairs])
    return by_size([_run(name, trial) for name, trial in pairs])


def by_size(runs: Iterable[ScalingRun]) -> list[SizeRuns]:
    """Group runs by size and budget, smallest first."""
    groups: list[list[ScalingRun]] = []
    for run in sorted(runs, key=lambda r: (r.parameters, r.tokens)):
        first = groups[-1][0] if groups else None
        is_same = first is not None and first.parameters == run.parameters
        if first is not None and is_same and run.tokens < _ROUNDED * first.tokens:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        SizeRuns(group[0].parameters, geometric_mean(r.tokens for r in group),
                 geometric_mean(r.flops for r in group), group)
        for group in groups
    ]  # fmt: skip


def check_comparable(specs: Sequence[tuple[str, TrialSpec]]) -> None:
    """Raise TunerError if trials differ in more than size, tokens, learning rate, B and seed.

    Args:
        specs: name and specification of each trial.
    """
    if not specs:
        raise TunerError("no trial of these searches has finished")
    (first_name, first), others = specs[0], specs[1:]
    for name, spec in specs:
        if spec.architecture.lora_rank:
            raise TunerError(
                f"{name} is a LoRA trial, and the laws of scaling are of models that train all "
                f"their weights; name searches without lora"
            )
    for name, spec in others:
        differing = [
            label for label, value in _FACTS.items() if value(spec) != value(first)
        ] + _differing_entries(first, spec)
        if differing:
            raise TunerError(
                f"{name} and {first_name} cannot be compared: {listed(differing, 'and')} "
                f"{'differs' if len(differing) == 1 else 'differ'}; sizes of a scaling law differ "
                f"in {listed(SIZES)}, tokens, learning rate, B and seed only"
            )
    values = [spec.hyperparameters for _, spec in specs]
    rate = rate_row(first.hyperparameters)
    for row in SYMBOL_TABLE:
        if row not in _DERIVED and _is_used(row, values) and not _scales(row, rate, values):
            different = listed(sorted({getattr(h, row) for h in values}, key=str)[:2], "and")
            raise TunerError(
                f"{symbol(row)} is not the same in all trials, for instance {different}: the "
                f"sizes of a scaling law need equal hyperparameters besides the learning rate and "
                f"B, or shares of T_total or of the learning rate; search with it fixed"
            )


_FACTS: dict[str, Callable[[TrialSpec], object]] = {
    "data": lambda s: s.data_fingerprint,
    "tokenizer": lambda s: s.tokenizer_fingerprint,
    "validation_tokens": lambda s: s.validation_sequences * s.architecture.context_length,
    "init_from": lambda s: s.init_from,
}


def _differing_entries(first: TrialSpec, spec: TrialSpec) -> list[str]:
    a, b = first.architecture, spec.architecture
    names = [name for name in type(a).model_fields if name not in SIZES]
    return [
        "the target of the proxy" if name == "target" else name
        for name in names
        if getattr(a, name) != getattr(b, name)
    ]


def _is_used(row: str, values: Sequence[Hyperparameters]) -> bool:
    conditions = SYMBOL_TABLE[row].used_when
    return all(
        any(getattr(h, other) in allowed for h in values) for other, allowed in conditions.items()
    )


def _scales(row: str, rate: str, values: Sequence[Hyperparameters]) -> bool:
    """Return whether a row is equal, or a share of T_total or of the rate, in all trials."""
    own = [getattr(h, row) for h in values]
    if len(set(own)) == 1:
        return True
    if isinstance(own[0], str):
        return False
    totals, rates = ([float(getattr(h, name)) for h in values] for name in ("total_steps", rate))
    if SYMBOL_TABLE[row].kind is int:
        # whole updates of a share: |v − s·T| ≤ 2 for one s; cool-downs may move by an update
        low = max((v - 2) / t for v, t in zip(own, totals, strict=True))
        return bool(low <= min((v + 2) / t for v, t in zip(own, totals, strict=True)))
    shares = [v / r for v, r in zip(own, rates, strict=True)]
    return bool(max(shares) - min(shares) <= 1e-6 * abs(max(shares)))


def _counts(trial: Trial) -> bool:
    if not trial.has_finished or trial.last is None or not math.isfinite(trial.last.val_loss):
        return False
    row = rate_row(trial.spec.hyperparameters)
    return len({getattr(s.hyperparameters, row) for s in trial.spec.chain}) == 1


def _run(search: str, trial: Trial) -> ScalingRun:
    spec, last = trial.spec, trial.last
    assert last is not None
    rate = float(getattr(spec.hyperparameters, rate_row(spec.hyperparameters)))
    if rate <= 0:
        raise TunerError(f"{search}/{trial.number} has a learning rate of {shown(rate)}")
    return ScalingRun(
        search, trial.number, spec.architecture.num_parameters, spec.budget_tokens,
        spec.budget_tokens * spec.architecture.flops_per_token, rate,
        spec.hyperparameters.batch_size, last.val_loss,
    )  # fmt: skip
