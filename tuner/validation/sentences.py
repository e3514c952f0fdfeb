"""A search of a space in sentences."""

from __future__ import annotations

from model.device.processor import multiplies_bfloat16
from tuner.samplers.arms import arms_of, num_confirmations
from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.data_facts import DataFacts
from tuner.space.first_draws import described
from tuner.space.parameter import symbol, symbols
from tuner.space.space import SearchSpace
from tuner.texts.formatting import clock, counted, listed, shown


def search_lines(space: SearchSpace, facts: DataFacts) -> list[str]:
    """Describe a search in sentences, one a line."""
    return [
        _data(space),
        *_arms(space),
        *([space.proxy_text(facts.vocab_size)] if space.proxy else []),
        _trials(space, facts),
        *_sources(space),
        _scheduler(space),
        *_hints(space),
        _objective(space),
        *_limits(space),
        _devices(space),
        _cost(space, facts),
    ]


def _arms(space: SearchSpace) -> list[str]:
    """Say which arms are compared, and what each of them gets."""
    arms = arms_of(space)
    if not arms:
        return []
    trials = space.search.trials // len(arms)
    names = listed((shown(arm.value) for arm in arms), "and")
    return [
        f"Comparison by {symbol(arms[0].name)}: {counted(len(arms), 'arm')} ({names}) of "
        f"{counted(trials, 'trial')} each; an arm has its own sampler and scheduler, and one "
        f"verdict compares the best arm with each other."
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
    sampler = SAMPLERS[search.sampler].says
    if priors:
        sampler += f"; early draws follow the priors of {symbols(priors)}"
    budget = f"at most {space.budget_tokens(facts):,} tokens"
    if space.budget.flops is not None:
        budget = f"{space.budget.flops:.4g} FLOPs, {budget},"
    return (
        f"{counted(search.trials, 'trial')} of {budget} and "
        f"{counted(space.budget.reports, 'report')}: {described(space)}sampler {search.sampler}, "
        f"which {sampler}."
    )


def _sources(space: SearchSpace) -> list[str]:
    """Say what the search learns from, and how it begins then."""
    search = space.search
    if search.learn_from == "off":
        return []
    of = "all searches of the home and the atlas"
    if search.learn_from != "auto":
        of = listed(search.learn_from, "and")
    first = "" if search.defaults == "off" else "the defaults and "
    begins = f"after {first}a random configuration" if first else "after random configurations"
    if not SCHEDULERS[search.scheduler].pauses(space):
        begins = "after the defaults" if first else "first"
    return [
        f"Learns from {of}: up to three proposed configurations come {begins}, and two of them "
        f"train to the end, unless the first losses contradict the sources."
    ]


def _scheduler(space: SearchSpace) -> str:
    name = space.search.scheduler
    return f"Scheduler {name}: {SCHEDULERS[name].says(space)}."


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
    if space.is_lora and engine.compile == "on":
        ticks["on"] = " Ticks of LoRA trials are not compiled, although engine.compile is on."
    return f"Trains {where}, in {dtype}; weights and optimizer are float32.{ticks[engine.compile]}"


def _cost(space: SearchSpace, facts: DataFacts) -> str:
    full, expected = expected_tokens(space, facts)
    without = f" ({full:,} without early stopping)" if expected < full else ""
    return f"Expected total: {expected:,} training tokens{without}."


def _hints(space: SearchSpace) -> list[str]:
    """Name the parameters that the sampler or scheduler cannot handle."""
    search, hints = space.search, []
    sampler = SAMPLERS[search.sampler]
    if unmodelled := [p for p in space.searched if not sampler.models(p)]:
        names = symbols(unmodelled)
        hints.append(
            f"Sampler {search.sampler} models {sampler.models_what}; it draws {names} at random."
        )
    if SCHEDULERS[search.scheduler].is_population:
        fixed = [p for p in space.searched if p not in space.explored]
        if fixed:
            hints.append(f"A trial keeps {symbols(fixed)}, which cannot change during training.")
    return hints


def _objective(space: SearchSpace) -> str:
    verbs = {"min": "minimize", "max": "maximize"}
    names = [f"{verbs[o.mode]} {o.metric}" for o in space.objectives]
    if space.further_objectives:
        return (
            f"Objectives: {listed(names, 'and')}; the result is the Pareto front: the trials that "
            f"no other trial beats in every objective."
        )
    num_trials = num_confirmations(space)
    if not num_trials:
        return f"Objective: {names[0]}; the winner is not retrained (confirm: off)."
    top, seeds = min(space.confirm.top, space.search.trials), space.confirm.seeds
    arms = len(arms_of(space))
    of = " of each arm" if arms else ""
    top = min(top, space.search.trials // (arms or 1))
    return (
        f"Objective: {names[0]}; then the best {top}{of} are retrained to the end with {seeds} "
        f"fresh seeds each, {counted(num_trials, 'trial')} in all."
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
    ends = [f"after {' or '.join(limits)}"] if limits else []
    if search.stop_when_left_below is not None:
        ends.append(f"once less than {100 * search.stop_when_left_below:.3g} % is left to gain")
    return [f"The search ends early {' or '.join(ends)}."] if ends else []
