"""`tuner validate`: what a search space means, without running it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model.corpus.prepare import cached
from model.sources.registry import source_bytes
from model.spec.architecture import Architecture
from model.tokenizer.load import vocab_size_of
from tuner.commands.output import consoles, print_json, space_of
from tuner.commands.plot import draw_rates
from tuner.errors import TunerError
from tuner.formatting import clock, listed, number, shown
from tuner.home import Home
from tuner.space.conflicts import conflicts
from tuner.space.data_facts import DataFacts
from tuner.space.estimate import confirmations, expected_tokens
from tuner.space.first_draws import first_draws
from tuner.space.parameter import Choice, Parameter, symbol
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace
from tuner.terminal.tables import table
from tuner.trained.warm_start import warm_started

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart

# Measured on the standard library at a vocabulary of 2,048; only for estimates.
_BYTES_PER_TOKEN = 3.1
_BYTES_PER_PAIR = 2_000  # of the standard library, most of which is in no pair
# What is assumed of data whose size only reading can tell.
_ASSUMED_BYTES = 1_000_000_000
_MOST_STACKS = 12  # in a table


def describe_space(
    console: Console, space: SearchSpace, file: str, home: Home, plot: str | None = None
) -> dict[str, Any]:
    """What a search space means, in words and numbers; `plot` names a picture to draw as well."""
    space, start = warm_started(space, home)
    facts, is_exact = _facts(space, home.corpora)
    if start is not None and is_exact:
        start.check_tokenizer(facts.tokenizer_fingerprint)
    about = "" if is_exact else "about "
    what = "pairs" if facts.has_pairs else "tokens"
    for _, message in conflicts(space, facts.train_size):
        raise TunerError(f"{file}: with {about}{facts.train_size:,} training {what}, {message}")
    shapes = space.shapes(facts.vocab_size)
    searched = space.searched
    console.print(f"[bold]{space.name}[/bold]  {file}: a valid search space", highlight=False)
    console.print()
    parameters = {p.label: p.describe() for p in space.parameters}
    defaults = space.defaults()
    first = {p.label: defaults[p.label] for p in searched if space.is_drawn(p, defaults)}
    console.print(
        table(
            f"{len(searched)} searched of {len(space.parameters)} given parameters",
            ["parameter", "name", "drawn from", "first trial", "only when"],
            [
                [
                    symbol(p.name), p.name, parameters[p.label],
                    number(v) if isinstance(v := first.get(p.label, ""), int | float) else v,
                    "; ".join(f"{symbol(k)} {', '.join(map(shown, v))}" for k, v in p.when.items()),
                ]
                for p in space.parameters
            ],
        )
    )  # fmt: skip
    console.print()
    budget = space.budget_tokens(facts)
    stacks: dict[str, Any] = {}
    rows = []
    named = ("n_layers", "d_model", "n_heads", "context_length")
    others = [
        name for name in dict.fromkeys(p.name for p in space.model.values()) if name not in named
        and len({getattr(shape, name) for shape in shapes}) > 1
    ]  # fmt: skip
    for shape in shapes:
        sequences, _ = facts.sequences(shape.context_length)
        steps, epochs = space.steps_and_epochs(facts, shape.context_length)
        name = f"{shape.n_layers} layers of {shape.d_model}, {shape.n_heads} heads"
        if shape.n_encoder_layers:
            name += f", an encoder of {shape.n_encoder_layers} for {shape.source_length} tokens"
        name += "".join(f", {other} {shown(getattr(shape, other))}" for other in others)
        rows.append([
            name, shape.context_length, f"{shape.num_parameters:,}", about + f"{sequences:,}",
            _span(steps), about + _span(epochs),
        ])  # fmt: skip
        stacks[f"{name}, context {shape.context_length}"] = {
            "parameters": shape.num_parameters,
            "train_sequences": sequences,
            "steps": list(steps),
            "epochs": list(epochs),
        }
    console.print(
        table(
            f"{len(shapes)} stack{'s of different shapes' if len(shapes) > 1 else ''}, "
            f"micro-batches of {space.micro_batch} sequences",
            ["model", "context", "weights", "training sequences", "steps per trial", "epochs"],
            rows[:_MOST_STACKS],
        )
    )
    if len(rows) > _MOST_STACKS:
        console.print(f"[dim]and {len(rows) - _MOST_STACKS} more; --json lists all[/dim]")
    full, expected = expected_tokens(space, facts)
    console.print()
    words = search_words(space, facts)
    for line in words:
        console.print(line, highlight=False)
    if start is not None:
        _print_start(console, start, shapes)
    if not is_exact:
        size = source_bytes(space.data)
        console.print(
            "[dim]The corpus has not been prepared yet; sequences are "
            + (
                f"those of {_ASSUMED_BYTES:,} bytes of text, because only reading tells how many "
                f"it has.[/dim]"
                if size is None
                else f"estimated from its {size:,} bytes.[/dim]"
            ),
            highlight=False,
        )
    if plot is not None:
        draw_rates(space, facts, Path(plot))
        console.print(f"The learning rates are drawn in {plot}.", highlight=False)
    return {
        "name": space.name,
        "plot": plot,
        "init_from": start.description if start else None,
        "parameters": parameters,
        "stacks": stacks,
        "micro_batch": space.micro_batch,
        "budget_tokens": budget,
        "expected_tokens": expected,
        "full_tokens": full,
        "search": words,
        "exact": is_exact,
    }


def _print_start(console: Console, start: WarmStart, shapes: list[Architecture]) -> None:
    """Where trials start, and what they do otherwise than the trial that they start from."""
    seen = start.init_from.optimizer_steps
    moments = f"those of {seen:,} updates" if seen else "zero"
    console.print(
        f"\nEvery trial starts from {start.description}, with its weights after "
        f"{start.source.step:,} updates (val_loss {start.source.val_loss:.4f} on its own text); "
        f"the moments are {moments}; schedule and data order begin anew. Shapes and tokenizer fit.",
        highlight=False,
    )
    differing = {
        f"{name} {shown(here)} instead of {shown(there)}"
        for shape in shapes
        for name, (here, there) in start.differing(shape).items()
    }
    if differing:
        console.print(f"Otherwise than there: {', '.join(sorted(differing))}.", highlight=False)


def _facts(space: SearchSpace, corpora: Path) -> tuple[DataFacts, bool]:
    """Facts of the prepared corpus; estimated from the size of its files if there is none."""
    corpus = cached(space.data, space.tokenizer, corpora)
    if corpus is not None:
        return DataFacts.of(corpus), True
    size = source_bytes(space.data)
    text = _ASSUMED_BYTES if size is None else size
    amount = text / (_BYTES_PER_PAIR if space.data.pairs else _BYTES_PER_TOKEN)
    held_out = space.data.validation_fraction
    vocab_size = vocab_size_of(space.tokenizer)
    longest = max(a.context_length for a in space.shapes(vocab_size))
    return DataFacts(
        vocab_size=vocab_size,
        train_size=max(longest + 1, round(amount * (1 - held_out))),
        validation_size=max(longest + 1, round(amount * held_out)),
        data_fingerprint="",
        tokenizer_fingerprint="",
        has_pairs=space.data.pairs,
    ), False


def _span(ends: tuple[int, int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


_ABOUT_SAMPLERS: Mapping[str, str] = {
    "tpe": "models which configurations did well, and which did not (TPE)",
    "gp": "models the objective as a Gaussian process",
    "cmaes": "evolves a normal distribution (CMA-ES)",
    "qmc": "fills the space evenly (scrambled Sobol points)",
    "random": "draws at random",
    "grid": "tries every combination once, in random order",
    "nsga2": "breeds the best (NSGA-II)",
}


def search_words(space: SearchSpace, facts: DataFacts) -> list[str]:
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


def _trials(space: SearchSpace, facts: DataFacts) -> str:
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
    promoted = f"one in {eta} goes on from each rung ({_rungs(space)})"
    about = {
        "none": "each trial trains to its end",
        "asha": f"{promoted}, the others are "
        + ("parked until they are among the best" if search.asha == "promote" else "stopped"),
        "hyperband": f"{promoted}, in brackets that begin at different rungs",
        "bohb": f"{promoted}, in brackets; TPE models the largest budget that enough have reached",
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


def _cost(space: SearchSpace, facts: DataFacts) -> str:
    full, expected = expected_tokens(space, facts)
    stopped = f" ({full:,} if none were stopped)" if expected < full else ""
    return f"All in all about {expected:,} training tokens{stopped}."


def _rungs(space: SearchSpace) -> str:
    reports = space.budget.reports
    levels = rungs(1, space.search.reduction_factor, reports)
    return f"after {listed(levels, 'and')} of {reports} reports"


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


def validate(options: argparse.Namespace) -> int:
    """Say what a space means."""
    from tuner.home import Home

    space = space_of(options)
    results, _ = consoles(options)
    home = Home.of(options.home)  # not made: validating begins nothing
    described = describe_space(results, space, options.space, home, options.plot)
    print_json(options, described)
    return 0
