"""How a mistake is worded: one sentence with the rule, the value that was given and a way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

_LONGEST = 60

# What pydantic calls a broken rule, in our words; its context fills the braces.
_RULES: Mapping[str, str] = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text; quote it if it looks like something else",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "1 to 64 letters, digits, dots, dashes and underscores, not first",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
}


def shown(value: object) -> str:
    """A value about as it would stand in the file, in one short line."""
    if value is None:
        text = "nothing"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:.12g}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value[:20]))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{shown(k)}: {shown(v)}' for k, v in list(value.items())[:20])}}}"
    else:
        text = "".join(c if c.isprintable() else " " for c in str(value)).strip() or "an empty text"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def listed(values: Iterable[object], last: str = "or") -> str:
    """`a, b or c`."""
    texts = [shown(value) for value in values]
    return f" {last} ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean …?` with the closest known name, or an empty text."""
    folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(str(word)[:_LONGEST].casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[matches[0]]}?" if matches else ""


def unknown(what: str, word: object, known: Iterable[str]) -> str:
    """A name that is not known, with the closest one or with all that are."""
    names = list(known)
    way_out = did_you_mean(word, names) or f"; known are {', '.join(names)}"
    return f"unknown {what} {shown(word)}{way_out}"


def broken_rule(name: str, item: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence about the field `name`."""
    kind, context, got = item["type"], item.get("ctx", {}), item["input"]
    if kind == "value_error":  # our own sentence, from a validator of several fields
        return str(context["error"])
    context = {k: shown(v) if isinstance(v, float) else v for k, v in context.items()}
    rule = _RULES.get(kind, cast(str, item["msg"]).removeprefix("Input should be "))
    rule = rule.format_map(context) if kind in _RULES else rule
    if kind != "literal_error":
        return f"{name} must be {rule}, got {shown(got)}"
    choices = rule.replace("'", "").replace(" or ", ", ").split(", ")
    return f"{name} must be {listed(choices)}, got {shown(got)}{did_you_mean(got, choices)}"


def in_seconds(value: object) -> object:
    """`90s`, `10m`, `2h` or `1.5d` in seconds; anything else as it is."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd])\s*", str(value))
    if not isinstance(value, str) or match is None:
        return value
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def clock(seconds: float) -> str:
    """Minutes and seconds: 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float) -> str:
    """A number as a person writes it: 0.0123, 3.2e-05, 16; or true and false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def number_in(text: str) -> str:
    """A text of the record, written as a person would if it is a number."""
    try:
        return number(float(text))
    except ValueError:
        return text
