"""Specifications of branches: budgets that are cooled down from the states of a longer trial."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec.cool_down import differing_rows, last_shared_report
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.symbol import FractionOf
from model.spec.trial import TrialSpec
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Value, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown

_COOL_DOWN = SYMBOL_TABLE["cooldown_steps"]
_ABOUT = 1.001  # budgets are rounded too


def branch_specs(
    space: SearchSpace, trunk: TrialSpec, drawn: Mapping[str, Value], facts: DataFacts
) -> list[TrialSpec]:
    """Return the specification of a trial for each shorter budget, in ascending order.

    It is the ordinary one of a trial of this budget, with the trunk's T_warmup in updates and the
    trunk's distance of reports. A T_cooldown that is a share of T_total may be one update shorter.

    Args:
        space: space of the trunk.
        trunk: specification of the longest budget.
        drawn: draw of the trunk.
        facts: facts of the data.
    """
    specs = []
    for tokens in space.budget.shorter:
        ordinary = _with_budget(space, tokens).spec(drawn, facts, trunk.seed)
        fields = {
            "hyperparameters": _like(ordinary.hyperparameters, trunk.hyperparameters),
            "report_tokens": trunk.report_tokens,
        }
        spec = TrialSpec.model_validate({**dict(ordinary), **fields})
        share = space.values(drawn).get("cooldown_steps", _COOL_DOWN.default)
        if isinstance(share, FractionOf) and share.name == "total_steps":
            spec = _from_report(spec, (1 - share.share) * tokens)
        specs.append(spec)
    return specs


def _from_report(spec: TrialSpec, tokens: float) -> TrialSpec:
    """Let the cool-down begin one update later if a report lies there only by rounding.

    With budgets that double and ten reports, 0.8 · T_total is a report. Both are rounded to
    updates, and a cool-down that begins one update before the report would miss its state: the
    branch would train a tenth of the longest budget again.

    Args:
        spec: specification of the branch.
        tokens: tokens before the cool-down, not rounded.
    """
    h, steps = spec.hyperparameters, spec.report_steps[:-1]
    begin = h.total_steps - h.cooldown_steps
    if begin in steps or begin + 1 not in steps:
        return spec
    number = steps.index(begin + 1) + 1
    if number * (spec.report_tokens - 1) > _ABOUT * tokens:  # report_tokens is rounded up
        return spec
    rows = h.model_copy(update={"cooldown_steps": h.cooldown_steps - 1})
    return spec.model_copy(update={"hyperparameters": rows})


def branch_tokens(space: SearchSpace, facts: DataFacts) -> int:
    """Return the training tokens of all branches of a trial that has the defaults."""
    drawn = space.defaults()
    if not space.budget.shorter:
        return 0
    trunk = space.spec(drawn, facts, 0)
    return sum(
        spec.budget_tokens - last_shared_report(spec) * spec.tokens_per_step
        for spec in branch_specs(space, trunk, drawn, facts)
    )


def check_branches(
    space: SearchSpace, trunk: Hyperparameters, drawn: Mapping[str, Value], train_size: int
) -> None:
    """Check that the budgets of a draw share their first updates.

    Args:
        space: space of the draw.
        trunk: hyperparameters of the longest budget.
        drawn: the draw.
        train_size: as for `SearchSpace.derive`.

    Raises:
        ValueError: if they do not, or (as pydantic's ValidationError) a budget breaks a rule of
            the symbol table.
    """
    before = 0
    for tokens in space.budget.shorter:
        h = _like(_with_budget(space, tokens).derive(drawn, train_size), trunk)
        for name in differing_rows(h, trunk):
            raise ValueError(
                f"{symbol(name)} must not depend on T_total if budget.tokens is a list, got "
                f"{shown(getattr(h, name))} and {shown(getattr(trunk, name))}"
            )
        if not before < h.total_steps < trunk.total_steps:
            raise ValueError(
                f"every number of budget.tokens must take more updates than the one before, got "
                f"{h.total_steps} for {tokens:,} tokens"
            )
        before = h.total_steps


def _with_budget(space: SearchSpace, tokens: int) -> SearchSpace:
    budget = space.budget.model_copy(update={"tokens": tokens, "shorter": ()})
    return space.model_copy(update={"budget": budget})


def _like(rows: Hyperparameters, trunk: Hyperparameters) -> Hyperparameters:
    return Hyperparameters.model_validate({**dict(rows), "warmup_steps": trunk.warmup_steps})
