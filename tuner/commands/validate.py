"""`tuner validate`: explain a search space without running it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from model.corpus.prepare import cached
from model.device.processor import multiplies_bfloat16
from model.sources.registry import source_bytes
from model.spec.architecture import Architecture
from tuner.commands.output import consoles, print_json, say, space_of
from tuner.errors import TunerError
from tuner.formatting import clock, counted, listed, number, shown
from tuner.home import Home
from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.conflicts import check_contexts, conflicts
from tuner.space.data_facts import DataFacts
from tuner.space.estimate import ASSUMED_BYTES, estimated_facts
from tuner.space.first_draws import described
from tuner.space.parameter import symbol, symbols
from tuner.space.remarks import data_notes, remarks, searches_nothing, without_copies
from tuner.space.space import SearchSpace
from tuner.terminal.tables import table
from tuner.trained.warm_start import warm_started
from tuner.workers.devices import has_nvidia_gpu

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart

_MOST_STACKS = 12  # in a table


def run_validate(options: argparse.Namespace) -> int:
    """Explain a search space."""
    space = space_of(options)
    results, _ = consoles(options)
    home = Home.of(options.home).readable(say)  # not created: validating writes nothing
    print_json(options, print_space(results, space, options.space, home, options.plot))
    return 0


def print_space(
    console: Console, space: SearchSpace, file: str, home: Home, plot: str | None = None
) -> dict[str, Any]:
    """Print what a search space searches, trains and costs.

    Args:
        console: output.
        space: search space.
        file: path of its file, for messages.
        home: home of the prepared corpora and of the source of a warm start.
        plot: path of a page with the learning rates; None to draw nothing.

    Returns:
        The object of --json.

    Raises:
        TunerError: if the space does not fit its data, or the warm start cannot be used.
    """
    space, start = warm_started(space, home)
    corpus = cached(space.data, space.tokenizer, home.corpora)
    is_exact = corpus is not None
    facts = DataFacts.of(corpus) if corpus is not None else estimated_facts(space)
    check_contexts(space, facts)
    if start is not None and is_exact:
        start.check_tokenizer(facts.tokenizer_fingerprint)
    approximately = "" if is_exact else "about "
    examples = "pairs" if facts.has_pairs else "tokens"
    for _, message in conflicts(space, facts.train_size):
        raise TunerError(
            f"{file}: with {approximately}{facts.train_size:,} training {examples}, {message}"
        )
    notes = [*remarks(space, facts), *_device_remarks(space)]
    space = without_copies(space)
    shapes = space.shapes(facts.vocab_size)
    console.print(Text.assemble((space.name, "bold"), f"  {file}: a valid search space"))
    console.print()
    parameters = _print_parameters(console, space)
    console.print()
    stacks = _print_stacks(console, space, facts, shapes, approximately)
    full, expected = expected_tokens(space, facts)
    console.print()
    lines = search_lines(space, facts)
    for line in lines:
        console.print(line, highlight=False)
    if start is not None:
        _print_start(console, start, shapes)
    if corpus is None:
        _print_estimate(console, space)
    for note in data_notes(corpus) if corpus is not None else []:
        console.print(note, highlight=False)
    for note in notes:
        console.print(Text.assemble(("Note:", "yellow"), f" {note}."))
    if plot is not None:
        from tuner.report.learning_rates import draw_rates  # loads Plotly

        draw_rates(space, facts, plot)
        console.print(f"The learning rates are drawn in {plot}.", highlight=False)
    return {
        "name": space.name,
        "plot": plot,
        "init_from": start.description if start else None,
        "parameters": parameters,
        "stacks": stacks,
        "micro_batch": space.micro_batch,
        "budget_tokens": space.budget_tokens(facts),
        "expected_tokens": expected,
        "full_tokens": full,
        "search": lines,
        "notes": notes,
        "exact": is_exact,
    }


# tables ------------------------------------------------------------------------------------------


def _print_parameters(console: Console, space: SearchSpace) -> dict[str, str]:
    """Print the parameters of a space; return their distributions as text, by label."""
    searched = space.searched
    parameters = {p.label: p.describe() for p in space.parameters}
    defaults = space.defaults()
    first = {p.label: defaults[p.label] for p in searched if space.is_drawn(p, defaults)}
    console.print(
        table(
            f"{len(searched)} searched of {len(space.parameters)} given parameters"
            + (": every trial is the same" if searches_nothing(space) else ""),
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
    return parameters


def _print_stacks(
    console: Console,
    space: SearchSpace,
    facts: DataFacts,
    shapes: list[Architecture],
    approximately: str,
) -> dict[str, Any]:
    """Print one row for each shape of a model; return the rows by name."""
    stacks: dict[str, Any] = {}
    rows = []
    named = ("n_layers", "d_model", "n_heads", "context_length")
    others = [
        name for name in dict.fromkeys(p.name for p in space.model.values()) if name not in named
        and len({getattr(shape, name) for shape in shapes}) > 1
    ]  # fmt: skip
    for shape in shapes:
        sequences, _ = facts.sequences(shape.context_length)
        steps, epochs = space.steps_and_epochs(facts, shape.context_length, shape)
        layers, heads = counted(shape.n_layers, "layer"), counted(shape.n_heads, "head")
        name = f"{layers} of {shape.d_model}, {heads}"
        if shape.n_encoder_layers:
            name += f", an encoder of {shape.n_encoder_layers} for {shape.source_length} tokens"
        name += "".join(f", {other} {shown(getattr(shape, other))}" for other in others)
        rows.append([
            name, shape.context_length, f"{shape.num_parameters:,}",
            approximately + f"{sequences:,}", _span(steps), approximately + _span(epochs),
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
        console.print(f"and {len(rows) - _MOST_STACKS} more; --json lists all", style="dim")
    return stacks


def _span(ends: tuple[int, int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _print_start(console: Console, start: WarmStart, shapes: list[Architecture]) -> None:
    """Print the checkpoint that trials start from, and where their models differ from it."""
    seen = start.init_from.optimizer_steps
    moments = f"those of {seen:,} updates" if seen else "zero"
    console.print(
        f"\nEvery trial starts from {start.description}, with its weights after "
        f"{start.source.step:,} updates (val_loss {start.source.val_loss:.4f} on its own text); "
        f"the moments are {moments}; schedule and data order restart. Shapes and tokenizer fit.",
        highlight=False,
    )
    differing = {
        f"{name} {shown(new)} instead of {shown(old)}"
        for shape in shapes
        for name, (new, old) in start.differing(shape).items()
    }
    if differing:
        console.print(
            f"Different from that trial: {', '.join(sorted(differing))}.", highlight=False
        )


def _print_estimate(console: Console, space: SearchSpace) -> None:
    """Print how the number of sequences was estimated."""
    size = source_bytes(space.data)
    basis = (
        f"assume {ASSUMED_BYTES:,} bytes of text: the size is unknown before the data is read"
        if size is None
        else f"are estimated from its {size:,} bytes"
    )
    console.print(
        f"The corpus has not been prepared yet; numbers of sequences {basis}.",
        style="dim",
        highlight=False,
    )


def _device_remarks(space: SearchSpace) -> list[str]:
    if space.engine.device != "cuda" or has_nvidia_gpu():
        return []
    return [
        "engine.device is cuda, and this machine has no GPU of NVIDIA, so that it can validate the "
        "space but not run the search"
    ]


# the search as text ------------------------------------------------------------------------------


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
    num_trials = space.num_confirmations
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
