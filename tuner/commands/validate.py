"""`tuner validate`: explain a search space without running it."""

from __future__ import annotations

import argparse

from rich.text import Text

from tuner.commands.jobs.remote import client_of, text_of
from tuner.commands.output import as_json, consoles, print_json, say, space_of
from tuner.home.home import Home
from tuner.space.parameter import symbol
from tuner.space.remarks import searches_nothing
from tuner.space.space import SearchSpace
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import number, shown
from tuner.validation.explanation import Ends, Explanation, explain

_MOST_STACKS = 12  # in a table


def run_validate(options: argparse.Namespace) -> int:
    """Explain a search space."""
    results, progress = consoles(options)
    if (client := client_of(options)) is not None:
        file, text = text_of(options)
        answer = client.validate(text, file, complete=True)
        explanation = Explanation.parse(answer["explanation"])
        progress.write_line(f"at {client.url}: {answer['cost']['waits_for']}")
    else:
        space = space_of(options)
        home = Home.of(options.home).readable(say)  # not created: validating writes nothing
        explanation = explain(space, home, options.space)
    print_explanation(results, explanation, options.space)
    if options.plot is not None:
        from tuner.report.learning_rates import draw_rates  # loads Plotly

        draw_rates(explanation.space, explanation.facts, options.plot)
        results.print(f"The learning rates are drawn in {options.plot}.")
    print_json(options, {**as_json(explanation), "plot": options.plot})
    return 0


def print_explanation(console: PlainConsole, explanation: Explanation, file: str) -> None:
    """Print what a search space searches, trains and costs."""
    console.print(
        Text.assemble((explanation.space.name, "bold"), f"  {file}: a valid search space")
    )
    console.print()
    _print_parameters(console, explanation.space)
    console.print()
    _print_stacks(console, explanation)
    console.print()
    for line in (*explanation.lines, *explanation.memory_lines):
        console.print(line)
    if explanation.start_lines:
        console.print()
    for line in explanation.start_lines:
        console.print(line)
    for line in explanation.data_lines:
        console.print(line, style="" if explanation.is_exact else "dim")
    for note in explanation.notes:
        console.print(Text.assemble(("Note:", "yellow"), f" {note}."))


def _print_parameters(console: PlainConsole, space: SearchSpace) -> None:
    defaults = space.defaults()
    searched = space.searched
    first = {p.label: defaults[p.label] for p in searched if space.is_drawn(p, defaults)}
    console.table(
        f"{len(searched)} searched of {len(space.parameters)} given parameters"
        + (": every trial is the same" if searches_nothing(space) else ""),
        ["parameter", "name", "drawn from", "first trial", "only when"],
        [
            [
                symbol(p.name), p.name, p.describe(),
                number(v) if isinstance(v := first.get(p.label, ""), int | float) else v,
                "; ".join(f"{symbol(k)} {', '.join(map(shown, v))}" for k, v in p.when.items()),
            ]
            for p in space.parameters
        ],
    )  # fmt: skip


def _print_stacks(console: PlainConsole, explanation: Explanation) -> None:
    """Print one row for each shape of a model."""
    stacks = explanation.stacks
    about = "" if explanation.is_exact else "about "
    console.table(
        f"{len(stacks)} stack{'s of different shapes' if len(stacks) > 1 else ''}, "
        f"micro-batches of {explanation.space.micro_batch} sequences",
        ["model", "context", "weights", "training sequences", "steps per trial", "epochs"],
        [
            [
                s.name,
                s.context,
                f"{s.parameters:,}",
                "unknown" if s.train_sequences is None else f"{about}{s.train_sequences:,}",
                _span(s.steps),
                "unknown" if s.epochs is None else about + _span(s.epochs),
            ]
            for s in stacks[:_MOST_STACKS]
        ],
    )
    if len(stacks) > _MOST_STACKS:
        console.print(f"and {len(stacks) - _MOST_STACKS} more; --json lists all", style="dim")


def _span(ends: Ends) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
