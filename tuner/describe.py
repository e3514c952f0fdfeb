"""What `tuner validate` says of the search itself: first points, sampler, scheduler, limits."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.corpus_facts import CorpusFacts
from tuner.expected import confirmations
from tuner.first_trial import first_draws
from tuner.messages import clock, listed
from tuner.parameters import Choice, Parameter, symbol
from tuner.space import SearchSpace

_ABOUT_SAMPLERS: Mapping[str, str] = {
    "tpe": "models which configurations did well, and which did not (TPE)",
    "gp": "models the objective as a Gaussian process",
    "cmaes": "evolves a normal distribution (CMA-ES)",
    "qmc": "fills the space evenly (scrambled Sobol points)",
    "random": "draws at random",
    "grid": "tries every combination once, in random order",
    "nsga2": "breeds the best (NSGA-II)",
}


def search_words(space: SearchSpace, facts: CorpusFacts) -> list[str]:
    """Sentences about a search, each a line."""
    return [
        _trials(space, facts),
        _scheduler(space),
        *_hints(space),
        _comparison(space),
        *_limits(space),
        _devices(space),
        _cost(space, facts),
    ]


def _trials(space: SearchSpace, facts: CorpusFacts) -> str:
    search, firsts = space.search, first_draws(space)
    first = "the defaults" if len(firsts) == 1 else f"{len(firsts)} given points, defaults first"
    priors = [p for p in space.searched if p.prior is not None]
    about = _ABOUT_SAMPLERS[search.sampler]
    if priors:
        about += f"; drawn to the priors of {listed(map(_letter, priors), 'and')} at first"
    each = f"{space.budget_tokens(facts):,} tokens and {space.budget.reports} reports"
    return (
        f"{search.trials} trials of at most {each}: {first}, then by sampler {search.sampler}, "
        f"which {about}."
    )


def _scheduler(space: SearchSpace) -> str:
    search = space.search
    name, eta = search.scheduler, search.reduction_factor
    rungs = f"one in {eta} goes on from each rung ({_rungs(space)})"
    about = {
        "none": "each trial trains to its end",
        "asha": f"{rungs}, the others are "
        + ("parked until they are among the best" if search.asha == "promote" else "stopped"),
        "hyperband": f"{rungs}, in brackets that begin at different rungs",
        "bohb": f"{rungs}, in brackets; TPE models the largest budget that enough have reached",
        "median": "what was never as good as most others were on average is stopped",
        "pbt": _population(space),
        "pb2": _population(space) + " by a model of what helped",
    }[name]
    return f"Scheduler {name}: {about}."


def _devices(space: SearchSpace) -> str:
    engine = space.engine
    where = {
        "auto": "on a GPU if there is one, otherwise on the cores",
        "cpu": "on the cores",
        "cuda": "on a GPU",
        "mps": "on the GPU of a Mac",
    }[engine.device]
    dtype: str = engine.dtype
    if dtype == "auto":
        may_be_gpu = engine.device in ("auto", "cuda")
        dtype = "bfloat16 if a GPU computes in it, else float32" if may_be_gpu else "float32"
    return f"Trains {where}, in {dtype}; weights and optimizer are float32."


def _cost(space: SearchSpace, facts: CorpusFacts) -> str:
    full, expected = space.expected_tokens(facts)
    stopped = f" ({full:,} if none were stopped)" if expected < full else ""
    return f"All in all about {expected:,} training tokens{stopped}."


def _rungs(space: SearchSpace) -> str:
    reports, power, rungs = space.budget.reports, 1, []
    while power < reports:
        rungs.append(power)
        power *= space.search.reduction_factor
    return f"after {listed(rungs, 'and')} of {reports} reports"


def _population(space: SearchSpace) -> str:
    every, changing = space.search.perturb_reports, listed(map(_letter, space.explored), "and")
    return f"every {every} reports the worst copy the best, and change {changing}"


def _hints(space: SearchSpace) -> list[str]:
    """What a sampler or scheduler cannot do with this space."""
    search, hints = space.search, []
    if search.sampler in ("cmaes", "gp"):
        why = {"cmaes": "knows numbers that every trial has", "gp": "knows what every trial has"}
        out = [
            p for p in space.searched
            if p.when or (search.sampler == "cmaes" and isinstance(p.distribution, Choice))
        ]  # fmt: skip
        if out:
            names = listed(map(_letter, out), "and")
            hints.append(f"Sampler {search.sampler} {why[search.sampler]}; {names}: at random.")
    if search.scheduler in ("pbt", "pb2"):
        fixed = [p for p in space.searched if p not in space.explored]
        if fixed:
            names = listed(map(_letter, fixed), "and")
            hints.append(f"A trial keeps {names}, which cannot change in mid-training.")
    return hints


def _comparison(space: SearchSpace) -> str:
    ends = {"min": "smallest", "max": "largest"}
    names = [f"the {ends[o.mode]} {o.metric}" for o in space.objectives]
    if space.further_objectives:
        return f"Sought: {listed(names, 'and')}; the result is every trial that none beats in all."
    retrained = confirmations(space)
    if not retrained:
        return f"Sought: {names[0]}; the winner is not retrained (confirm: off)."
    top, seeds = min(space.confirm.top, space.search.trials), space.confirm.seeds
    return (
        f"Sought: {names[0]}; then the best {top} are retrained with {seeds} fresh seeds each, "
        f"{retrained} trials to the end."
    )


def _limits(space: SearchSpace) -> list[str]:
    search = space.search
    limits = []
    if search.max_tokens is not None:
        limits.append(f"{search.max_tokens:,} training tokens")
    if search.max_seconds is not None:
        limits.append(f"{clock(search.max_seconds)} of time")
    if search.patience is not None:
        limits.append(f"{search.patience} trials without a better one")
    return [f"It ends after {' or '.join(limits)}, if that comes first."] if limits else []


def _letter(parameter: Parameter) -> str:
    return symbol(parameter.name)
