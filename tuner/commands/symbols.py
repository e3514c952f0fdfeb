"""`tuner symbols`: print the symbol table and the entries of `model:`."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.console import Console

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf, Symbol
from tuner.commands.output import consoles, print_json
from tuner.formatting import shown
from tuner.space.parameter import SIZES
from tuner.terminal.tables import table


def run_symbols(options: argparse.Namespace) -> int:
    """Print the symbol table."""
    results, _ = consoles(options)
    print_json(options, print_symbols(results))
    return 0


def print_symbols(console: Console) -> dict[str, Any]:
    """Print the symbol table and the entries of `model:`; return the object of --json."""
    symbols = SYMBOL_TABLE.values()
    console.print(
        table(
            "The symbol table",
            ["symbol", "name", "default", "range", "meaning", "formula", "used with"],
            [
                [
                    s.symbol, s.name, default_of(s), s.range, s.meaning, s.formula,
                    "; ".join(f"{k} {', '.join(v)}" for k, v in s.used_when.items()),
                ]
                for s in symbols
            ],
        )
    )  # fmt: skip
    for s in symbols:
        if s.choice_meanings:
            console.print()
            console.print(table(s.name, ["choice", "meaning"], s.choice_meanings.items()))
    console.print(
        "\nA space gives exactly one of T_total, N_epoch, budget.tokens and budget.flops; the "
        "others follow. With schedule cosine the rate rises to α_max in T_warmup updates and falls "
        "to α_min at T_cycle; with constant it is α after the warm-up; 'tuner validate --plot' "
        "draws it."
    )
    entries = {name: Architecture.model_fields[name] for name in SIZES}
    console.print()
    console.print(
        table(
            "Entries of model:",
            ["name", "default", "range", "meaning"],
            [[n, shown(e.default), range_of(e), e.description] for n, e in entries.items()],
        )
    )
    model = {
        name: {"default": entry.default, "range": range_of(entry), "meaning": entry.description}
        for name, entry in entries.items()
    }
    return {"model": model} | {
        s.name: {
            "symbol": s.symbol,
            "spellings": list(s.spellings),
            "default": default_of(s),
            "range": s.range,
            "choices": {choice: s.choice_meanings.get(choice, "") for choice in s.choices},
            "meaning": s.meaning,
            "formula": s.formula,
            "used_when": {k: list(v) for k, v in s.used_when.items()},
        }
        for s in symbols
    }


def range_of(entry: FieldInfo) -> str:
    """Return the values that an entry of `model:` accepts: `[1, 1024]`, `pre | post`, …."""
    if entry.annotation is bool:
        return "true | false"
    if get_origin(entry.annotation) is Literal:
        return " | ".join(get_args(entry.annotation))
    limits = {
        name: getattr(item, name)
        for item in entry.metadata
        for name in ("gt", "ge", "le")
        if hasattr(item, name)
    }
    left = f"({limits['gt']:g}" if "gt" in limits else f"[{limits['ge']}"
    return f"{left}, {limits['le']:g}]" if "le" in limits else f"{left}, ∞)"


def default_of(symbol: Symbol) -> str:
    """Return the default as text: a number, `0.1·α_max`, or `from the budget`."""
    if symbol.default is None:
        return "from the budget"
    if isinstance(symbol.default, FractionOf):
        share = "" if symbol.default.share == 1 else f"{symbol.default.share:g}·"
        return f"{share}{SYMBOL_TABLE[symbol.default.name].symbol}"
    return f"{symbol.default:g}" if isinstance(symbol.default, float) else str(symbol.default)
