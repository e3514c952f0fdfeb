"""Rules of `when`: no circles, conditions that can hold, parameters that have an effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress

from model.spec.choices import USED_WHEN
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from tuner.space.combinations import listed
from tuner.space.parameter import FOLLOWING, Parameter, Value
from tuner.space_file.checks.rule import CheckedSpace, Finding
from tuner.texts.formatting import listed as in_words
from tuner.texts.formatting import shown


def circles(checked: CheckedSpace) -> Iterator[Finding]:
    """Neither `when` nor `fraction_of` has a circle."""
    conditions: dict[str, list[str]] = {}
    fractions: dict[str, list[str]] = {}
    defaults = {
        entry.name: [entry.default.name]
        for entry in SYMBOL_TABLE.values()
        if isinstance(entry.default, FractionOf)
    }
    for p in (*checked.space.model.values(), *checked.space.hyperparameters.values()):
        conditions.setdefault(p.name, []).extend(p.when)
        fractions.setdefault(p.name, []).extend([p.fraction_of] if p.fraction_of else [])
        fractions[p.name] += defaults.get(p.name, []) if p.when else []
    fractions = {**fractions, **{n: d for n, d in defaults.items() if n not in fractions}}
    for edges, relation in ((conditions, "depends on"), (fractions, "is a fraction of")):
        circle = _circle(edges)
        if circle:
            path = f" {relation} ".join(map(checked.spelled, circle))
            start = next(name for name in circle if name in checked.places)
            message = f"{path}; give one of them a value without this dependency"
            yield Finding(checked.place(start), message)


def _circle(edges: Mapping[str, list[str]]) -> list[str]:
    """Return a shortest circle in a graph, its first node repeated at the end; empty if none."""
    for start in edges:
        paths = [[start]]
        seen: set[str] = set()
        for path in paths:  # grows; each node is visited once, because paths may be very many
            for name in edges.get(path[-1], ()):
                if name == start:
                    return [*path, start]
                if name not in seen:
                    seen.add(name)
                    paths.append([*path, name])
    return []


def conditions(checked: CheckedSpace) -> Iterator[Finding]:
    """The parameters of a `when` can be listed, and have its values."""
    for parameter in checked.space.parameters:
        for name, wanted in parameter.when.items():
            possible = checked.space.possible(name)
            message = ""
            if name in FOLLOWING and name not in checked.places:
                source = FOLLOWING[name]
                fix = f"give its values, or use {source} in the condition"
                message = f"is derived from {source}; {fix}"
            elif possible is None:
                message = "is drawn from a range or derived; use a choice in the condition"
            elif not set(possible) & set(wanted):
                message = f"is never {in_words(wanted)}; it is {in_words(dict.fromkeys(possible))}"
            if message:
                place = (*checked.place_of(parameter), "when")
                yield Finding(place, f"when: {checked.spelled(name)} {message}")


def effects(checked: CheckedSpace) -> Iterator[Finding]:
    """Every `when` can hold, alone in its list, and parameters have effects."""
    space = checked.space
    conditions = {name for p in space.parameters for name in p.when}
    try:
        draws = listed(space.parameter_set, conditions | {"optimizer", "schedule", "position"})
    except ValueError as error:
        yield Finding(("hyperparameters",), str(error))
        return
    cases = [space.settings(draw) for draw in draws]
    held: dict[str, int] = {}  # key of a parameter → bits of the cases in which it is drawn
    for p in space.parameters:
        is_held = [p.holds(case) for case in cases]
        held[p.key] = sum(1 << i for i, holds in enumerate(is_held) if holds)
        yield from _effect(checked, p, list(compress(cases, is_held)))
        for other in range(1, p.alternative):
            both = held.get(f"{p.name}[{other}]", 0) & held[p.key]
            if both:
                yield _both(checked, p, other, cases[(both & -both).bit_length() - 1])
                break


def _both(
    checked: CheckedSpace, parameter: Parameter, other: int, settings: Mapping[str, Value]
) -> Finding:
    case = in_words([f"{checked.spelled(n)} {shown(settings[n])}" for n in parameter.when], "and")
    message = f"alternatives {other} and {parameter.alternative} both apply with {case}"
    message = f"{checked.spelled(parameter.name)}: {message}"
    fix = "change one when so that it excludes the other"
    return Finding((*checked.place_of(parameter), "when"), f"{message}; {fix}")


def _effect(
    checked: CheckedSpace, parameter: Parameter, cases: list[dict[str, Value]]
) -> Iterator[Finding]:
    """Check that a parameter is drawn, and used, in some case."""
    key, place = checked.spelled(parameter.name), checked.place_of(parameter)
    if not cases:
        message = f"{key} is never drawn, because its conditions exclude each other"
        yield Finding(place, f"{message}; change its when", at_key=True)
        return
    entry = SYMBOL_TABLE.get(parameter.name)
    used_when = entry.used_when if entry else USED_WHEN.get(parameter.name, {})
    for other, used in used_when.items():
        values = dict.fromkeys(case[other] for case in cases)
        if not set(values) & set(used):
            message = f"{key} has no effect with {other} {in_words(values)}"
            peaked = SYMBOL_TABLE["max_learning_rate"].used_when["schedule"]
            is_peak = parameter.name == "learning_rate" and set(values) <= set(peaked)
            hint = "; did you mean α_max?" if is_peak else ""
            fix = hint or f"; it is used with {other} {in_words(used)}"
            yield Finding(place, message + fix, at_key=True)
