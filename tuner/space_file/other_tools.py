"""Ranges as Optuna, Ray Tune, W&B and scipy write them, rewritten as an entry of a space."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from model.spec.architecture import Architecture
from model.spec.hyperparameters import find_symbol
from tuner.formatting import listed, shown, written

# Name of a distribution in another tool, without `_` and `-` → its scale.
_SCALES: Mapping[str, str] = {
    "loguniform": "log", "logunif": "log", "loguniformvalues": "log", "reciprocal": "log",
    "invloguniformvalues": "log", "qloguniformvalues": "log", "qloguniform": "log",
    "logint": "log", "lograndint": "log", "qlograndint": "log", "intlog": "log",
    "intloguniform": "log", "logrange": "log", "logscale": "log",
    "uniform": "uniform", "unif": "uniform", "quniform": "uniform", "float": "uniform",
    "range": "uniform", "interval": "uniform", "int": "uniform", "integer": "uniform",
    "randint": "uniform", "qrandint": "uniform", "intuniform": "uniform", "uniformint": "uniform",
    "discreteuniform": "uniform", "suggestfloat": "uniform", "suggestint": "uniform",
    "choice": "choice", "choices": "choice", "categorical": "choice", "values": "choice",
    "options": "choice", "oneof": "choice", "suggestcategorical": "choice",
    "gridsearch": "grid",
    "constant": "value", "const": "value", "fixed": "value",
}  # fmt: skip
_ENDS = (("min", "max"), ("low", "high"), ("lower", "upper"), ("minimum", "maximum"))
_NAMES = ("distribution", "type", "dist")
_OURS = ("fraction_of", "when", "prior")


def rewritten(key: str, data: Mapping[str, Any]) -> str:
    """Return the entry in the format of a space, `α_max: {log: [1e-4, 3e-2]}`; empty if unclear.

    Args:
        key: key of the entry.
        data: contents of the entry, in the format of another tool.
    """
    options = {k: v for k, v in data.items() if k in _OURS}
    rest = {k: v for k, v in data.items() if k not in _OURS}
    found = _named(rest) or _ends(rest)
    if found is None:
        return ""
    scale, value = found
    if scale in ("log", "uniform"):
        if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
            return ""
        is_whole = _is_whole(key) and "fraction_of" not in options
        scale = {"log": "int_log", "uniform": "int"}[scale] if is_whole else scale
        value = [round(v) for v in value] if is_whole else value
    elif scale in ("choice", "grid") and not (isinstance(value, list) and value):
        return ""
    share = {k: v for k, v in options.items() if k == "fraction_of"}
    others = {k: v for k, v in options.items() if k != "fraction_of"}
    return f"{key}: {_flow({**share, scale: value, **others})}"


def unknown_keys(key: str, keys: list[str], data: Mapping[str, Any]) -> str:
    """Return a message about keys of another tool in an entry; empty if they are of none."""
    line = rewritten(key, data)
    if not line:
        return ""
    what = "distribution" if len(keys) == 1 else "keys"
    return f"unknown {what} {listed(keys, 'and')}; write {line}"


def _named(data: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return scale and value of `{loguniform: [1, 2]}` and `{loguniform: {low: 1, high: 2}}`."""
    if len(data) != 1:
        return None
    ((name, value),) = data.items()
    scale = _SCALES.get(_folded(name))
    if scale is None:
        return None
    if isinstance(value, Mapping):
        found = _ends(value)
        value = found[1] if found else None
    return scale, value


def _ends(data: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return scale and value of `{distribution: …, min: 1, max: 2}`, `{low: 1, high: 2}`, ….

    W&B's `log_uniform` has the exponents of e as its ends.
    """
    name = next((str(data[k]) for k in _NAMES if k in data), "")
    scale = _SCALES.get(_folded(name))
    if "values" in data or "choices" in data:
        return "choice", data.get("values", data.get("choices"))
    if "value" in data and scale in (None, "value"):
        return "value", data["value"]
    for low, high in _ENDS:
        if low in data and high in data:
            ends = [data[low], data[high]]
            is_log = data.get("log") is True or data.get("log_scale") is True or scale == "log"
            is_exponents = low == "min" and re.fullmatch(r"q?_?log_uniform", name)
            if is_exponents and all(map(_is_number, ends)) and max(map(abs, ends)) < 300:
                ends = [math.exp(end) for end in ends]
            return ("log" if is_log else "uniform"), ends
    return None


def _folded(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())


def _is_whole(key: str) -> bool:
    symbol = find_symbol(key)
    if symbol is not None:
        return symbol.kind is int
    return key in Architecture.model_fields and Architecture.model_fields[key].annotation is int


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {_flow(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return written(value) if isinstance(value, bool | int | float | str) else shown(value)
