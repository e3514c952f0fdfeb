"""Rules of `compare:`: a parameter with arms, and settings that treat all arms alike."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.samplers.arms import arms_of
from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.parameter import SIZES, SPELLINGS, Parameter, symbol
from tuner.space.proposals import LEARN_FROM
from tuner.space.settings import SearchConfig
from tuner.space.space import SearchSpace
from tuner.space_file.checks.rule import CheckedSpace, Finding
from tuner.texts.formatting import counted, did_you_mean, listed, shown

_LENGTHS = ("total_steps", "epochs")


def parameter(checked: CheckedSpace) -> Iterator[Finding]:
    """The compared parameter is a single one, searched, with a list of values."""
    space = checked.space
    if space.compare is None:
        return
    by = space.compare.by
    entries = [p for p in (*space.model.values(), *space.hyperparameters.values()) if p.name == by]
    message = _obstacle(checked, by, entries)
    if message:
        yield Finding(("compare", "by"), f"compare.by: {message}")
    elif entries[0].prior is not None:
        message = "a prior has no effect with compare, which gives every value the same trials"
        yield Finding((*checked.places[by], "prior"), f"{checked.spelled(by)}: {message}", True)


def _obstacle(checked: CheckedSpace, by: str, entries: list[Parameter]) -> str:
    """Return why a parameter has no arms; empty if it has."""
    key = checked.spelled(by) if entries else by
    if not entries:
        if by in SPELLINGS or by in SIZES:
            return f"{symbol(by)} is not set in this space; give it a choice of values"
        fix = did_you_mean(by, (*SPELLINGS, *SIZES)) or "; name a parameter of this space"
        return f"unknown parameter {shown(by)}{fix}"
    p, values = entries[0], entries[0].distribution.possible_values()
    obstacles = {
        "is a list of alternatives; compare needs one choice without conditions": len(entries) > 1,
        f"is constant, {p.describe()}; give it a choice of values": p.is_constant,
        "has a when, so that some trials would have no arm; remove the condition": p.when,
        f"is drawn from a range, {p.describe()}; compare needs a choice of values": not values,
        "has one value only; compare needs two or more": values and len(values) == 1,
        "sets how long trials train, and arms must train equally long": by in _LENGTHS,
    }
    return next((f"{key} {text}" for text, is_so in obstacles.items() if is_so), "")


def settings(checked: CheckedSpace) -> Iterator[Finding]:
    """All arms get the same: trials, tokens, seeds, and nothing that favours one."""
    yield from obstacles(checked.space)


def obstacles(space: SearchSpace) -> Iterator[Finding]:
    """Yield the settings of a space that `compare:` does not allow."""
    if space.compare is None:
        return
    search, by = space.search, space.compare.by
    if space.further_objectives:
        message = "several objectives have no single best trial to compare; give one objective"
        yield Finding(("compare", "by"), f"compare: {message}")
        return
    if space.budget.tokens is None and space.budget.flops is None:
        message = "needs budget.tokens or budget.flops, so that all arms train equally long"
        yield Finding(("compare", "by"), f"compare: {message}")
    if SCHEDULERS[search.scheduler].is_population:
        fitting = [name for name, kind in SCHEDULERS.items() if not kind.is_population]
        message = "trials of a population copy each other across arms; with compare use"
        message = f"search.scheduler: {message} {listed(fitting)}, got {search.scheduler}"
        yield Finding(("search", "scheduler"), message)
    if SAMPLERS[search.sampler].points is not None:
        message = "tries each point once, and arms may have different numbers of points; with"
        message = f"search.sampler: {search.sampler} {message} compare use another, such as random"
        yield Finding(("search", "sampler"), message)
    yield from _favouring(search)
    if space.confirm.top == 0:
        message = "compare needs the retrainings with fresh seeds, which the verdict is made of"
        yield Finding(("confirm",), f"confirm: {message}; remove confirm: off")
    if space.init_from is not None and space.init_from.optimizer_state and by == "optimizer":
        message = "the moments of a warm start favour the optimizer that made them"
        message = f"init_from.optimizer_state: {message}; with compare leave it out"
        yield Finding(("init_from", "optimizer_state"), message)


def _favouring(search: SearchConfig) -> Iterator[Finding]:
    """Yield the settings by which some arms would have an advantage."""
    if search.try_first:
        message = "points that are given would favour some arms; give each arm priors instead"
        yield Finding(("search", "try_first"), f"search.try_first: with compare, {message}")
    if search.learn_from not in ("off", LEARN_FROM):
        message = "would favour the arms that the sources know; with compare leave it out"
        yield Finding(("search", "learn_from"), f"search.learn_from {message}")
    if search.patience is not None:
        message = "would end the search for all arms once one is ahead; with compare leave it out"
        yield Finding(("search", "patience"), f"search.patience {message}")


def shares(checked: CheckedSpace) -> Iterator[Finding]:
    """The trials can be shared equally."""
    space = checked.space
    try:
        count = len(arms_of(space))
    except ValueError:  # `parameter` says why
        return
    message = unequal(space.search.trials, count)
    if message:
        yield Finding(("search", "trials"), f"search.trials: {message}")


def unequal(trials: int, num_arms: int) -> str:
    """Return why some trials cannot be shared equally by arms; empty if they can."""
    if not num_arms or not trials % num_arms:
        return ""
    more = num_arms * (trials // num_arms + 1)
    shared = f"{counted(trials, 'trial')} cannot be shared equally by {num_arms} arms"
    return f"{shared}; set search.trials to {more}" + (
        f" or {more - num_arms}" if trials > num_arms else ""
    )
