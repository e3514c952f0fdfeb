"""Mutations of search-space files, each keyed by a number: number n is always the same text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import yaml

_NUMBERS = (
    "0", "-1", "1", "2", "1e-320", "1e308", "1e309", "-1e30", "9007199254740993", "1_0", "010",
    "0x10", "0.5", "1.", "1e6", "999999999999999999999999", ".nan", ".inf", "1e-5", "3", "64",
    "65536",
)  # fmt: skip
_SCALARS = (
    "null", "~", "true", "off", "auto", "''", "'0.01'", "[]", "{}", "[[]]", "{a: 1}", "α_max", "B",
    "adamw", "cosine", "2024-01-01", "!!set {a}", "*a", "&a 1", "<<", "é", "\u200b", "\u202e", "💥",
    "'\\0'", '"\\0"', "|", ">-", "? a", "%", "@", "`", "\t", "#", "- 1", "---", "...",
    "{{}}", "[1, 2",
)  # fmt: skip
_KEYS = (
    "α_max", "lr", "B", "when", "fraction_of", "log", "int_log", "choice", "grid", "prior", "<<",
    "value", "optimizer", "schedule", "T_total", "N_epoch", "d_model", "n_heads", "context_length",
    "d_ff", "min", "max", "low", "high", "values", "distribution", "trials", "tokens", "reports",
    "sampler", "scheduler", "try_first", "seed", "metric", "foo", "", " ", "é", "\u202e", "0",
    "null", "1.5",
)  # fmt: skip
_ENTRIES: tuple[Any, ...] = (
    0, 1, 3, -1, 0.01, 1e-300, 1e300, 2**53, 10**30, None, True, "", "off", "0.01", "cosine",
    "adam", [], {}, [1], [0.1, 0.2], [0.2, 0.1], [1, 1], ["a", "b"], {"log": [1e-4, 1e-2]},
    {"log": [0, 1]},
    {"choice": [1, 2, 4]}, {"grid": [0.1 * i for i in range(1, 400)]}, {"int": [1, 1000]},
    {"choice": [8, 16], "when": {"optimizer": "adam"}}, {"fraction_of": "α_max", "uniform": [0, 1]},
    [{"value": 0.1, "when": {"B": 8}}, {"value": 0.2, "when": {"B": [8, 16]}}],
    {"log": [1e-4, 1e-2], "prior": {"centre": 1e-3, "confidence": 2}},
    {"choice": ["tpe", "grid"]}, {"when": {}}, [{"α_max": 1e-3}, {"foo": 1}],
)  # fmt: skip


def mutated(texts: Sequence[str], number: int) -> str:
    """One of some texts after one to four changes, of its lines or of its structure."""
    rng = random.Random(f"space {number}")
    text = rng.choice(texts)
    changes = (_change_lines, _change_letters, _change_numbers, _change_structure)
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(changes)(text, rng)
    return text


def _change_lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[i]
        case 1:
            lines.insert(j, lines[i])
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines[i] = " " * rng.randint(1, 5) + lines[i]
        case 4:
            lines[i] = lines[i].strip()
        case _:
            lines = lines[:i]
    return "\n".join(lines)


def _change_letters(text: str, rng: random.Random) -> str:
    i = rng.randrange(len(text) + 1)
    piece = rng.choice((*_SCALARS, *":,{}[]-#&*!'\"\n\r"))
    return text[:i] + piece + text[i + rng.randint(0, 3) :]


def _change_numbers(text: str, rng: random.Random) -> str:
    """Replace a word that looks like a number, or any word, by an extreme one."""
    words = text.replace("[", "[ ").replace("]", " ]").split(" ")
    found = [i for i, word in enumerate(words) if word.strip(",}").replace(".", "")[:1].isdigit()]
    place = rng.choice(found) if found and rng.random() < 0.8 else rng.randrange(len(words))
    tail = "," if words[place].endswith(",") else ""
    words[place] = rng.choice(_NUMBERS if rng.random() < 0.7 else _SCALARS) + tail
    return " ".join(words)


def _change_structure(text: str, rng: random.Random) -> str:
    """Change a node of the parsed file; a text that is not YAML stays as it is."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return text
    nodes = list(_nodes(data))
    if not nodes:
        return text
    holder, key = rng.choice(nodes)
    act: Callable[[], None] = rng.choice((
        lambda: holder.__setitem__(key, rng.choice(_ENTRIES)),
        lambda: holder.__setitem__(key, {rng.choice(_KEYS): holder[key]}),
        lambda: holder.__setitem__(key, [holder[key]] * rng.randint(1, 3)),
        lambda: holder.__setitem__(key, _deep(holder[key], rng.choice((3, 19, 30)))),
        lambda: _set_key(holder, key, rng),
        lambda: holder.__delitem__(key),
    ))  # fmt: skip
    act()
    try:
        return yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    except (yaml.YAMLError, TypeError, RecursionError):
        return text


def _nodes(data: Any) -> Any:
    """Each place in nested mappings and lists: its holder, and its key in the holder."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in list(keys):
        yield data, key
        yield from _nodes(data[key])


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def _set_key(holder: Any, key: Any, rng: random.Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice(_KEYS)] = rng.choice((holder[key], rng.choice(_ENTRIES)))
    else:
        holder.append(rng.choice(_ENTRIES))
