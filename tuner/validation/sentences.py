"""A search of a space in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.device.processor import multiplies_bfloat16
from tuner.formatting import clock, counted, listed, shown
from tuner.space.data_facts import DataFacts
from tuner.space.estimate import confirmations, expected_tokens
from tuner.space.first_draws import described
from tuner.space.parameter import Choice, Parameter, symbol
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace

_SAMPLER_TEXTS: Mapping[str, str] = {
    "tpe": "models good and bad configurations (TPE)",
    "gp": "models the objective as a Gaussian process",
    "cmaes": "evolves a normal distribution (CMA-ES)",
    "qmc": "fills the space evenly (scrambled Sobol points)",
    "random": "draws independently",
    "grid": "tries every combination once, in random order",
    "nsga2": "recombines the best configurations (NSGA-II)",
}


def search_lines(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Describe a search in sentences, one a line."""
    return [
        _data(space),
        *([space.proxy_text(facts.vocab_size)] if space.proxy else []),
        _trials(space, facts),
        _scheduler(space),
        *_hints(space),
        _objective(space),
        *_limits(space),
        _devices(space),
        _cost(space, facts),
    ]


def _data(space: SearchSpace) -> str:
    data = space.data
    names = {
        "python-stdlib": "the source code of Python's standard library",
        "python-docstrings": "functions of Python's standard library and their docstrings",
    }
    if data.source:
        return f"Data: {names[data.source]}."
    if data.hub:
        return f"Data: {shown(data.hub)} of the Hugging Face hub, split {data.split}."
    files = data.files or ()
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"Data: {', '.join(files[:3])}{more}."


def _trials(space: SearchSpace, facts: DataFacts) -> str:
    search = space.search
    priors = [p for p in space.searched if p.prior is not None]
    sampler = _SAMPLER_TEXTS[search.sampler]
    if priors:
        sampler += f"; early draws follow the priors of {_symbols(priors)}"
    budget = f"at most {space.budget_tokens(facts):,} tokens"
    if space.budget.flops is not None:
        budget = f"{space.budget.flops:.4g} FLOPs, {budget},"
    return (
        f"{counted(search.trials, 'trial')} of {budget} and "
        f"{counted(space.budget.reports, 'report')}: {described(space)}sampler {search.sampler}, "
        f"which {sampler}."
    )


def _scheduler(space: SearchSpace) -> str:
    search = space.search
    name, eta = search.scheduler, search.reduction_factor
    rungs = f"one in {eta} trials is promoted at each rung ({_rungs(space)})"
    description = {
        "none": f"each trial trains to its end{space.budget.shorter_text}",
        "asha": f"{rungs}, the others are "
        + ("paused until they are among the best" if search.asha == "promote" else "stopped"),
        "hyperband": f"{rungs}, in brackets that start at different rungs",
        "bohb": f"{rungs}, in brackets; TPE models the largest budget that enough trials reached",
        "median": "a trial stops if its best value is worse than the median of the averages of the "
        "others",
        "pbt": _population(space),
        "pb2": _population(space) + " by a model of the improvements",
    }[name]
    return f"Scheduler {name}: {description}."


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
        choices = []
        if engine.device in ("auto", "cuda"):
            choices.append("bfloat16 if a GPU computes in it")
        if engine.device in ("auto", "cpu") and multiplies_bfloat16():
            choices.append("mixed_bfloat16 if a CPU is faster with it")
        dtype = ", ".join([*choices, "else float32"]) if choices else "float32"
    ticks = {"auto": "", "on": " Ticks are compiled.", "off": " Ticks are not compiled."}
    return f"Trains {where}, in {dtype}; weights and optimizer are float32.{ticks[engine.compile]}"


def _cost(space: SearchSpace, facts: DataFacts) -> str:
    full, expected = expected_tokens(space, facts)
    without = f" ({full:,} without early stopping)" if expected < full else ""
    return f"Expected total: {expected:,} training tokens{without}."


def _rungs(space: SearchSpace) -> str:
    reports = space.budget.reports
    levels = rungs(1, space.search.reduction_factor, reports)
    return f"after {listed(levels, 'and')} of {reports} reports"


def _population(space: SearchSpace) -> str:
    reports, changed = space.search.perturb_reports, _symbols(space.explored)
    every = f"every {reports} reports" if reports > 1 else "at every report"
    return f"{every} the worst trials copy the best ones and change {changed}"


def _hints(space: SearchSpace) -> list[str]:
    """Name the parameters that the sampler or scheduler cannot handle."""
    search, hints = space.search, []
    if search.sampler in ("cmaes", "gp"):
        rule = {
            "cmaes": "models numbers that every trial has",
            "gp": "models parameters that every trial has",
        }[search.sampler]
        unmodelled = [
            p for p in space.searched
            if p.when or (search.sampler == "cmaes" and isinstance(p.distribution, Choice))
        ]  # fmt: skip
        if unmodelled:
            names = _symbols(unmodelled)
            hints.append(f"Sampler {search.sampler} {rule}; it draws {names} at random.")
    if search.scheduler in ("pbt", "pb2"):
        fixed = [p for p in space.searched if p not in space.explored]
        if fixed:
            hints.append(f"A trial keeps {_symbols(fixed)}, which cannot change during training.")
    return hints


def _objective(space: SearchSpace) -> str:
    verbs = {"min": "minimize", "max": "maximize"}
    names = [f"{verbs[o.mode]} {o.metric}" for o in space.objectives]
    if space.further_objectives:
        return (
            f"Objectives: {listed(names, 'and')}; the result is the Pareto front: the trials that "
            f"no other trial beats in every objective."
        )
    num_trials = confirmations(space)
    if not num_trials:
        return f"Objective: {names[0]}; the winner is not retrained (confirm: off)."
    top, seeds = min(space.confirm.top, space.search.trials), space.confirm.seeds
    return (
        f"Objective: {names[0]}; then the best {top} are retrained to the end with {seeds} fresh "
        f"seeds each, {counted(num_trials, 'trial')} in all."
    )


def _limits(space: SearchSpace) -> list[str]:
    search = space.search
    limits = []
    if search.max_tokens is not None:
        limits.append(f"{search.max_tokens:,} training tokens")
    if search.max_seconds is not None:
        limits.append(f"{clock(search.max_seconds)} of time")
    if search.patience is not None:
        limits.append(f"{counted(search.patience, 'trial')} without improvement")
    return [f"The search ends early after {' or '.join(limits)}."] if limits else []


def _symbols(parameters: Iterable[Parameter]) -> str:
    """Return `α_max, γ and λ`."""
    return listed((symbol(p.name) for p in parameters), "and")
