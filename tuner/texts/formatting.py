"""Text of numbers, names and mistakes: one style for each purpose.

    shown      12 digits: values in messages, as the file has them
    written     6 digits: values in a line of a search-space file that we propose
    number      3 digits: hyperparameters in tables and pictures
    metric_text 4 decimals: values of objectives
    short_run, short_hash       the first letters of an id

A message has the rule, the value that broke it, and a fix.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from tuner.texts.control_characters import visible

_LONGEST = 60  # letters of a value in a message
_RUN_LETTERS = 8
_HASH_LETTERS = 12
_DECIMAL = r"[0-9]+(?:\.[0-9]+)?"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # of time, in seconds
# not 010, which is 8 to some programs and 10 to others
_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6, "Z": 7}  # of 1000
_REAL = re.compile(r"[-+]?(?!0[0-9_])(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")

# Type of an error in pydantic → our rule; braces are filled from the error's context.
_RULES: Mapping[str, str] = {
    "missing": "given",
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


# values --------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return a value in one short line, similar to YAML; numbers with 12 digits."""
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
        text = visible(str(value))
        text = "".join(c if c.isprintable() else " " for c in text).strip() or "an empty text"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def as_typed(value: object) -> str:
    """Return a value of a wrong type: as `shown`, but a quoted number says that it is a text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            float(value)
            return f"the text {shown(repr(value))} (remove the quotes)"
    return shown(value)


def written(value: bool | float | str) -> str:
    """Return a value as a person writes it in a file, with 6 digits: 0.03, 1e-4, 16, adamw."""
    if isinstance(value, bool | int | str) or value == 0:
        return shown(value)
    if 0.01 <= abs(value) < 10_000:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def number(value: float) -> str:
    """Return a number with 3 digits: 0.0123, 3.2e-05, 16; or true and false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def number_in(text: str) -> str:
    """Return a text in the style of `number` if it is a number, otherwise unchanged."""
    try:
        return number(float(text))
    except ValueError:
        return text


def number_of(text: str) -> float:
    """Return the number that a text of a store says; NaN for another text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def metric_text(value: float) -> str:
    """Return a value of an objective with 4 decimals: 3.1416; ∞ for an infinite value."""
    return "∞" if math.isinf(value) else f"{value:.4f}"


def significant(value: float, digits: int) -> float:
    """Round a number to some significant digits."""
    return float(f"{value:.{digits - 1}e}")


def size_text(num_bytes: float) -> str:
    """Return `1.2 GB`, `3.4 MB` or `5 kB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {unit}"
    return f"{-(-num_bytes // 1000):.0f} kB"


def clock(seconds: float) -> str:
    """Return a duration as 1:05 (minutes and seconds), 1:00:00, or from two days on 2 d 1:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def in_seconds(value: object) -> object:
    """Return a duration as seconds: `90s`, `1.5h`, `1h30m`, `1:30:00`; other values unchanged.

    As in `clock`, two numbers with a colon are minutes and seconds.
    """
    if not isinstance(value, str):
        return value
    text = "".join(value.split())
    if re.fullmatch(r"[0-9]+(:[0-5][0-9]){1,2}", text):
        return float(sum(int(part) * 60**i for i, part in enumerate(reversed(text.split(":")))))
    match = re.fullmatch("".join(rf"(?:({_DECIMAL}){unit})?" for unit in _UNITS), text)
    if not text or match is None:
        return value
    counts = zip(match.groups(), _UNITS.values(), strict=True)
    return sum(float(count) * seconds for count, seconds in counts if count)


def in_flops(value: object) -> object:
    """Return a number of operations: `2e15`, `2P`, `300 TFLOPs`; other values unchanged.

    A suffix is a power of 1000: M, G, T, P, E, Z.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(rf"({_REAL.pattern})\s*([{''.join(_POWERS)}]?)(?i:flops?)?", value.strip())
    return value if match is None else real_number(match[1]) * 1000 ** _POWERS.get(match[2], 0)


def in_share(value: object) -> object:
    """Return a percentage as a share: `0.2 %`; other values unchanged."""
    if not isinstance(value, str) or not value.strip().endswith("%"):
        return value
    number = real_number(value.strip()[:-1].strip())
    return value if math.isnan(number) else number / 100


def real_number(text: str) -> float:
    """Read a number in a form of search-space files: 2_000_000, 1e6, .5; NaN for another text."""
    return float(text.replace("_", "")) if _REAL.fullmatch(text) else math.nan


# ids -----------------------------------------------------------------------------------------


def short_run(run_id: str) -> str:
    """Return the first 8 letters of an MLflow run id: enough to find the run."""
    return run_id[:_RUN_LETTERS]


def short_hash(text: str) -> str:
    """Return the first 12 letters of a fingerprint or a hash."""
    return text[:_HASH_LETTERS]


# messages ------------------------------------------------------------------------------------


def counted(count: int, noun: str) -> str:
    """Return `1 trial` or `1,200 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(values: Iterable[object], last: str = "or") -> str:
    """Return `a, b or c`."""
    texts = [shown(value) for value in values]
    return f" {last} ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the closest known name, or an empty text."""
    folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(str(word)[:_LONGEST].casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[matches[0]]}?" if matches else ""


def unknown(kind: str, word: object, known: Iterable[str]) -> str:
    """Return a message about an unknown name, with the closest known name or all of them."""
    names = list(known)
    fix = did_you_mean(word, names) or f"; valid names: {', '.join(names)}"
    return f"unknown {kind} {shown(word)}{fix}"


def broken_rule(name: str, item: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence about the field `name`."""
    kind, context, value = item["type"], item.get("ctx", {}), item["input"]
    if kind == "value_error":  # our own sentence, from a validator of several fields
        return str(context["error"])
    context = {k: shown(v) if isinstance(v, float) else v for k, v in context.items()}
    rule = _RULES.get(kind, cast(str, item["msg"]).removeprefix("Input should be "))
    rule = rule.format_map(context) if kind in _RULES else rule
    if kind != "literal_error":
        return f"{name} must be {rule}, got {as_typed(value)}"
    choices = rule.replace("'", "").replace(" or ", ", ").split(", ")
    return f"{name} must be {listed(choices)}, got {shown(value)}{did_you_mean(value, choices)}"
