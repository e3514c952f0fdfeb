"""The symbol table and the entries of `model:` as texts."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf, Symbol
from tuner.space.parameter import SIZES

MODEL_ENTRIES = {name: Architecture.model_fields[name] for name in SIZES}


def symbols_as_json() -> dict[str, Any]:
    """Return the object of `tuner symbols --json`."""
    model = {
        name: {"default": entry.default, "range": range_of(entry), "meaning": entry.description}
        for name, entry in MODEL_ENTRIES.items()
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
        for s in SYMBOL_TABLE.values()
    }


def range_of(entry: FieldInfo) -> str:
    """Return the values that an entry of `model:` accepts: `[1, 1024]`, `pre | post`, …."""
    if entry.annotation is bool:
        return "true | false"
    if get_origin(entry.annotation) is Literal:
        return " | ".join(get_args(entry.annotation))
    if entry.annotation is str:
        return "name"
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
