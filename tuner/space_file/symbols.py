"""The symbol table, the entries of `model:` and the settings, for tables and for forms.

All of it comes from the pydantic models, their docstrings and the symbol table.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf, Symbol, Value, limits_of
from tuner.space.objective import Objective
from tuner.space.parameter import SIZES
from tuner.space.settings import Budget, Confirm, EngineConfig, Proxy, SearchConfig

MODEL_ENTRIES = {name: Architecture.model_fields[name] for name in SIZES}
_SECTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig, "tokenizer": TokenizerConfig, "budget": Budget, "search": SearchConfig,
    "confirm": Confirm, "objective": Objective, "engine": EngineConfig, "proxy": Proxy,
}  # fmt: skip
_UNITS = {  # last word of a name → unit
    "tokens": "tokens", "seconds": "seconds", "steps": "updates", "flops": "FLOPs",
    "fraction": "share", "share": "share", "epochs": "passes over the data",
    "characters": "characters", "length": "tokens", "batch_size": "sequences",
}  # fmt: skip
_SHARES = ("width", "depth", "tokens", "batch")  # of the target
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n      +.+)*)", re.MULTILINE)


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


# the schema -------------------------------------------------------------------------------------


@cache
def schema() -> dict[str, Any]:
    """Return the schema of a search space.

    Returns:
        `sections`, with the settings of each; `model` and `hyperparameters`, whose entries may be
        searched; `kinds`, the forms of a distribution.
    """
    return {
        "sections": [
            {"name": name, "about": _about(kind), "settings": _settings(name, kind)}
            for name, kind in _SECTIONS.items()
        ],
        "model": [_entry(name) for name in MODEL_ENTRIES],
        "hyperparameters": [_row(symbol) for symbol in SYMBOL_TABLE.values()],
        "kinds": {
            "value": "one value",
            "uniform": "a number between two ends",
            "log": "a number whose logarithm is uniform",
            "int": "a whole number",
            "int_log": "a whole number whose logarithm is uniform",
            "choice": "one of several values, at random",
            "grid": "each of several values, equally often",
        },
    }


def _about(kind: type[BaseModel]) -> str:
    """Return the first paragraph of a model's docstring, without the name of the section."""
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    return re.sub(r"^`\w+:`, ", "", first)


def _settings(section: str, kind: type[BaseModel]) -> list[dict[str, Any]]:
    texts = {
        name: re.sub(r"\s+", " ", text)
        for name, text in _ATTRIBUTE.findall(inspect.getdoc(kind) or "")
    }
    properties = kind.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "meaning": field.description or texts.get(name, ""),
            "unit": "share" if section == "proxy" and name in _SHARES else _unit(name),
            "default": properties[name].get("default"),
            **_limits(limits_of(field)),
            **_form(properties[name]),
        }
        for name, field in kind.model_fields.items()
    ]


def _form(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type and the choices of a setting."""
    options = [each for each in part.get("anyOf", [part]) if each.get("type") != "null"]
    choices = [value for each in options for value in each.get("enum", [])]
    choices += [each["const"] for each in options if "const" in each]
    types = [each.get("type", "string") for each in options]
    kind = types[0] if types else "string"
    return {"type": kind if kind != "object" else "string", "choices": choices}


def _limits(limits: Mapping[str, float]) -> dict[str, Any]:
    return {
        "low": limits.get("gt", limits.get("ge")),
        "high": limits.get("lt", limits.get("le")),
        "is_low_open": "gt" in limits,
        "is_high_open": "lt" in limits,
    }


def _unit(name: str) -> str:
    if name in _UNITS:
        return _UNITS[name]
    return _UNITS.get(name.rpartition("_")[2], "")


def _entry(name: str) -> dict[str, Any]:
    """Return an entry of `model:`."""
    field = MODEL_ENTRIES[name]
    form = _form(Architecture.model_json_schema()["properties"][name])
    return {
        "name": name, "symbol": name, "meaning": field.description or "", "unit": _unit(name),
        "default": field.default, "range": range_of(field), **_limits(limits_of(field)), **form,
    }  # fmt: skip


def _row(symbol: Symbol) -> dict[str, Any]:
    """Return a row of the symbol table."""
    kinds: Mapping[type, str] = {int: "integer", float: "number", str: "string"}
    default = symbol.default if isinstance(symbol.default, Value) else None
    return {
        "name": symbol.name, "symbol": symbol.symbol, "spellings": list(symbol.spellings),
        "meaning": symbol.meaning,
        "formula": symbol.formula, "unit": _unit(symbol.name), "default": default,
        "default_text": default_of(symbol), "range": symbol.range, "low": symbol.low,
        "high": symbol.high, "is_low_open": symbol.low_open, "is_high_open": symbol.high_open,
        "type": kinds[symbol.kind], "choices": list(symbol.choices),
        "choice_meanings": dict(symbol.choice_meanings),
        "used_when": {name: list(values) for name, values in symbol.used_when.items()},
    }  # fmt: skip
