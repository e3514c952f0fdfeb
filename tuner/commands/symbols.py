"""`tuner symbols`: print the symbol table and the entries of `model:`."""

from __future__ import annotations

import argparse

from model.spec.hyperparameters import SYMBOL_TABLE
from tuner.commands.output import consoles, print_json
from tuner.space_file.symbols import MODEL_ENTRIES, default_of, range_of, symbols_as_json
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import shown


def run_symbols(options: argparse.Namespace) -> int:
    """Print the symbol table."""
    results, _ = consoles(options)
    print_symbols(results)
    print_json(options, symbols_as_json())
    return 0


def print_symbols(console: PlainConsole) -> None:
    """Print the symbol table and the entries of `model:`."""
    console.table(
        "The symbol table",
        ["symbol", "name", "default", "range", "meaning", "formula", "used with"],
        [
            [
                s.symbol, s.name, default_of(s), s.range, s.meaning, s.formula,
                "; ".join(f"{k} {', '.join(v)}" for k, v in s.used_when.items()),
            ]
            for s in SYMBOL_TABLE.values()
        ],
    )  # fmt: skip
    for s in SYMBOL_TABLE.values():
        if s.choice_meanings:
            console.print()
            console.table(s.name, ["choice", "meaning"], s.choice_meanings.items())
    console.print(
        "\nA space gives exactly one of T_total, N_epoch, budget.tokens and budget.flops; the "
        "others follow. With schedule cosine the rate rises to α_max in T_warmup updates and falls "
        "to α_min at T_cycle; with constant it is α after the warm-up; 'tuner validate --plot' "
        "draws it."
    )
    console.print()
    console.table(
        "Entries of model:",
        ["name", "default", "range", "meaning"],
        [[n, shown(e.default), range_of(e), e.description] for n, e in MODEL_ENTRIES.items()],
    )
