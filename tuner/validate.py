"""`tuner validate`: what a search space means, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model.architecture import Architecture
from model.given_tokenizer import vocab_size_of
from model.preparation import cached
from model.sources import source_bytes
from tuner.corpus_facts import CorpusFacts
from tuner.describe import search_words
from tuner.errors import TunerError
from tuner.home import Home
from tuner.init_from import warm_started
from tuner.messages import shown
from tuner.parameters import symbol
from tuner.plot import draw_rates
from tuner.space import SearchSpace
from tuner.space_checks import conflicts
from tuner.summary import number, table

if TYPE_CHECKING:
    from tuner.warm_start import Start

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
    full, expected = space.expected_tokens(facts)
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
        "init_from": start.words if start else None,
        "parameters": parameters,
        "stacks": stacks,
        "micro_batch": space.micro_batch,
        "budget_tokens": budget,
        "expected_tokens": expected,
        "full_tokens": full,
        "search": words,
        "exact": is_exact,
    }


def _print_start(console: Console, start: Start, shapes: list[Architecture]) -> None:
    """Where trials start, and what they do otherwise than the trial that they start from."""
    seen = start.init_from.optimizer_steps
    moments = f"those of {seen:,} updates" if seen else "zero"
    console.print(
        f"\nEvery trial starts from {start.words}, with its weights after {start.source.step:,} "
        f"updates (val_loss {start.source.val_loss:.4f} on its own text); the moments are {moments}"
        f"; schedule and data order begin anew. Shapes and tokenizer fit.",
        highlight=False,
    )
    differing = {
        f"{name} {shown(here)} instead of {shown(there)}"
        for shape in shapes
        for name, (here, there) in start.differing(shape).items()
    }
    if differing:
        console.print(f"Otherwise than there: {', '.join(sorted(differing))}.", highlight=False)


def _facts(space: SearchSpace, corpora: Path) -> tuple[CorpusFacts, bool]:
    """Facts of the prepared corpus; estimated from the size of its files if there is none."""
    corpus = cached(space.data, space.tokenizer, corpora)
    if corpus is not None:
        return CorpusFacts.of(corpus), True
    size = source_bytes(space.data)
    text = _ASSUMED_BYTES if size is None else size
    amount = text / (_BYTES_PER_PAIR if space.data.pairs else _BYTES_PER_TOKEN)
    held_out = space.data.validation_fraction
    vocab_size = vocab_size_of(space.tokenizer)
    longest = max(a.context_length for a in space.shapes(vocab_size))
    return CorpusFacts(
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
