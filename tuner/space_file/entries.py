"""Read one entry of `hyperparameters:` or `model:` of a search-space file.

An entry is a value, or a mapping with one distribution and optionally `fraction_of`, `when` and
`prior`: `16`, `off`, `{choice: [8, 16]}`, `{fraction_of: α_max, log: [0.01, 0.5]}`. Or an entry is
a list of such mappings, its alternatives, of which at most one `when` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeGuard, cast, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from model.spec.architecture import Architecture
from model.spec.hyperparameters import find_symbol
from model.spec.symbol import Symbol
from tuner.space.parameter import (
    MAY_BE_OFF,
    SIZES,
    SPELLINGS,
    AnyDistribution,
    Choice,
    Constant,
    Parameter,
    Range,
)
from tuner.space_file.prior import PriorError, read_prior
from tuner.space_file.yaml_file import Place, YamlFile, whole_if_equal
from tuner.texts.formatting import as_typed, broken_rule, did_you_mean, listed, shown, unknown

KINDS = ("value", "uniform", "log", "int", "int_log", "choice", "grid")
_OPTIONS = ("fraction_of", "when", "prior")
# Keys of ranges in other tools, and how a range is written here.
_FOREIGN = set("loguniform log_uniform randint categorical values distribution min max low".split())
_HERE = "write {log: [low, high]}, {uniform: [low, high]}, {int: [low, high]} or {choice: [a, b]}"
# Other hyperparameters are derived from these.
_NO_FRACTIONS = ("batch_size", "total_steps", "epochs")
_BUDGETS = ("total_steps", "epochs")  # cannot have a `when`
_LARGEST_WHOLE = 2**53
_SMALLEST = 1.2e-38  # of float32, in which the trainer computes; below are zeros

ValueRule = Callable[[object], str]  # returns the mistake of a value; empty if the value is valid


@dataclass(frozen=True)
class _Entry:
    """Parts of an entry: key and place, distribution, options."""

    key: str
    place: Place
    kind: str
    value: Any
    value_place: Place
    options: dict[str, Any]

    @property
    def is_range(self) -> bool:
        return self.kind in {"uniform", "log", "int", "int_log"}

    def spots(self) -> Iterator[tuple[Place, Any]]:
        """Yield each single value and its place."""
        if isinstance(self.value, list):
            yield from (((*self.value_place, i), v) for i, v in enumerate(self.value))
        else:
            yield self.value_place, self.value


class EntryReader:
    """Reads the entries of one file, and notes their mistakes.

    Attributes:
        places: name of a parameter → its place in the file.
    """

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._is_wrong = False  # a mistake was noted in the entry that is being read
        self.places: dict[str, Place] = {}

    def _note(self, place: Place, message: str, *, at_key: bool = False) -> None:
        self._is_wrong = True
        self._file.note(place, message, at_key=at_key)

    def size(self, key: str, data: Any, place: Place = ()) -> list[Parameter]:
        """Read an entry of `model:`, or of another place; return no parameter if it is wrong."""
        place = place or ("model", key)
        if key == "vocab_size":
            self._note(
                place, "vocab_size belongs to the section tokenizer:; move it there", at_key=True
            )
            return []
        if key not in SIZES:
            self._note(place, unknown("entry of model:", key, SIZES), at_key=True)
            return []
        self.places[key] = place
        return self._parameters(
            key, place, _without_off(data) if key in MAY_BE_OFF else data, self._one_size
        )

    def hyperparameter(self, key: str, data: Any, place: Place = ()) -> list[Parameter]:
        """Read an entry of `hyperparameters:` as `size` does."""
        symbol = find_symbol(key)
        place = place or ("hyperparameters", key)
        if symbol is None:
            fix = did_you_mean(key, SPELLINGS) or "; 'tuner symbols' lists all"
            self._note(place, f"unknown hyperparameter {shown(key)}{fix}", at_key=True)
            return []
        if symbol.name in self.places:
            other = self.places[symbol.name][-1]
            message = f"{key} and {other} are the same hyperparameter; keep one"
            self._note(place, message, at_key=True)
            return []
        self.places[symbol.name] = place
        if symbol.name in _BUDGETS and _are_alternatives(data):
            message = f"{key} is the budget, so it cannot be a list of alternatives"
            self._note(place, f"{message}; give one value or range without when")
            return []
        return self._parameters(
            key,
            place,
            _without_off(data) if symbol.name in MAY_BE_OFF else data,
            self._one_hyperparameter,
        )

    # one entry ------------------------------------------------------------------------------

    def _parameters(
        self, key: str, place: Place, data: Any, read: Callable[[_Entry], Parameter | None]
    ) -> list[Parameter]:
        """Return the parameter of an entry, or the alternatives of a list."""
        if not _are_alternatives(data):
            entry = self._entry(key, place, data)
            parameter = read(entry) if entry else None
            return [parameter] if parameter else []
        parameters = []
        for number, one in enumerate(data, start=1):
            entry = self._entry(key, (*place, number - 1), one)
            parameter = read(entry) if entry else None
            if parameter and not parameter.when:
                message = f"{key}: alternative {number} of the list has no when"
                example = "for instance when: {optimizer: momentum}"
                self._note((*place, number - 1), f"{message}; add one, {example}")
            elif parameter:
                parameters.append(parameter.model_copy(update={"alternative": number}))
        return parameters

    def _one_size(self, entry: _Entry) -> Parameter | None:
        if self._refuses_fraction(entry, has_fractions=False):
            return None
        field = Architecture.model_fields[entry.key]
        kind = str if get_origin(field.annotation) is Literal else cast(type, field.annotation)
        return self._parameter(entry, entry.key, _size_rule(entry.key, field), kind)

    def _one_hyperparameter(self, entry: _Entry) -> Parameter | None:
        symbol = cast(Symbol, find_symbol(entry.key))
        has_fractions = not symbol.choices and symbol.name not in _NO_FRACTIONS
        if self._refuses_fraction(entry, has_fractions=has_fractions):
            return None
        if "fraction_of" in entry.options:
            return self._parameter(entry, symbol.name, _share_rule(entry.key), float)
        return self._parameter(
            entry, symbol.name, _hyperparameter_rule(entry.key, symbol), symbol.kind
        )

    def _refuses_fraction(self, entry: _Entry, *, has_fractions: bool) -> bool:
        if has_fractions or "fraction_of" not in entry.options:
            return False
        message = f"{entry.key} cannot be a fraction; give its values"
        self._note((*entry.place, "fraction_of"), message, at_key=True)
        return True

    def _entry(self, key: str, place: Place, data: Any) -> _Entry | None:
        """Return the parts of an entry; None if it is wrong."""
        if isinstance(data, list) and any(isinstance(one, dict) for one in data):
            wrong = next(i for i, one in enumerate(data) if not isinstance(one, dict))
            example = f"for instance {{value: {shown(data[wrong])}, when: {{optimizer: momentum}}}}"
            message = f"{key}: each alternative of a list needs a mapping with when, {example}"
            self._note((*place, wrong), f"{message}, got {shown(data[wrong])}")
            return None
        if isinstance(data, list):
            self._note(place, f"{key}: a list needs a distribution: {{choice: {shown(data)}}}")
            return None
        if data is None:
            self._note(place, f"{key} has no value; give one, or a range: {{log: [1e-4, 1e-2]}}")
            return None
        if not isinstance(data, dict):
            return _Entry(key, place, "value", data, place, {})
        unknown_keys = [k for k in data if k not in (*KINDS, *_OPTIONS)]
        names = f"key{'s' if len(unknown_keys) > 1 else ''} {listed(unknown_keys, 'and')}"
        advice = f"{key}: unknown {names}; {_HERE}" if _FOREIGN & set(unknown_keys) else ""
        for kind in unknown_keys[:1] if advice else unknown_keys:
            message = advice or unknown("distribution", kind, (*KINDS, *_OPTIONS))
            self._note((*place, kind), message, at_key=True)
        kinds = [k for k in data if k in KINDS]
        if not unknown_keys and len(kinds) != 1:
            got = listed(kinds, "and") if kinds else "none"
            self._note(place, f"{key} needs exactly one of {', '.join(KINDS)}, got {got}")
        if unknown_keys or len(kinds) != 1:
            return None
        options = {k: data[k] for k in _OPTIONS if k in data}
        return _Entry(key, place, kinds[0], data[kinds[0]], (*place, kinds[0]), options)

    def _parameter(self, entry: _Entry, name: str, rule: ValueRule, kind: type) -> Parameter | None:
        """Check the values of an entry and read its options; return None if any part is wrong."""
        self._is_wrong = False
        distribution = self._distribution(entry, rule, kind)
        fraction_of = self._fraction_of(entry, name)
        when = self._when(entry, name)
        if distribution is None or self._is_wrong:
            return None
        prior = None
        if "prior" in entry.options:
            try:
                prior = read_prior(entry.key, name, distribution, entry.options["prior"])
            except PriorError as error:
                place = (*entry.place, "prior", *error.place)
                self._note(place, str(error), at_key=error.at_key)
                return None
        return Parameter(
            name=name,
            distribution=distribution,
            fraction_of=fraction_of,
            when=when,
            prior=prior,
        )

    def _distribution(self, entry: _Entry, rule: ValueRule, kind: type) -> AnyDistribution | None:
        place, message = _shape_mistake(entry) or _range_mistake(entry, kind) or ((), "")
        if message:
            self._note(place, f"{entry.key}: {message}")
            return None
        for spot, value in entry.spots():
            message = rule(value)
            if message:
                self._note(spot, message)
                return None
        values = [whole_if_equal(v) if kind is int else v for _, v in entry.spots()]
        if entry.is_range:
            return Range(kind=cast(Any, entry.kind), low=values[0], high=values[1])
        if entry.kind == "value":
            return Constant(value=values[0])
        return Choice(kind=cast(Literal["choice", "grid"], entry.kind), values=tuple(values))

    def _fraction_of(self, entry: _Entry, name: str) -> str | None:
        """Return the name of the hyperparameter in `fraction_of`; None if absent or wrong."""
        if "fraction_of" not in entry.options:
            return None
        spelled = entry.options["fraction_of"]
        symbol = find_symbol(spelled) if isinstance(spelled, str) else None
        if symbol is not None and not symbol.choices and symbol.name != name:
            return symbol.name
        numeric = [
            s for s in SPELLINGS if (r := find_symbol(s)) and not r.choices and r.name != name
        ]
        why = (
            ""
            if symbol is None
            else ", which is itself"
            if symbol.name == name
            else ", whose values are names"
        )
        fix = did_you_mean(spelled, numeric) if symbol is None else ""
        fix = fix or "; name a hyperparameter with numbers, such as T_total"
        message = f"{entry.key} cannot be a fraction of {shown(spelled)}{why}{fix}"
        self._note((*entry.place, "fraction_of"), message)
        return None

    def _when(self, entry: _Entry, name: str) -> dict[str, tuple[Any, ...]]:
        """Return the valid conditions: name → values; empty without `when`."""
        if "when" not in entry.options:
            return {}
        place: Place = (*entry.place, "when")
        when = entry.options["when"]
        if not isinstance(when, dict) or not when:
            example = "for instance {optimizer: momentum}"
            self._note(place, f"{entry.key}: when takes a mapping, {example}, got {shown(when)}")
            return {}
        conditions: dict[str, tuple[Any, ...]] = {}
        for key, value in when.items():
            symbol = find_symbol(key)
            condition = symbol.name if symbol else key
            wanted = _without_off(value) if condition in MAY_BE_OFF else value
            if symbol is None and key not in SIZES:
                fix = did_you_mean(key, (*SPELLINGS, *SIZES)) or "; 'tuner symbols' lists all"
                message = f"unknown name in when: {shown(key)}{fix}"
                self._note((*place, key), message, at_key=True)
            elif condition == name:
                message = f"{entry.key} cannot depend on itself; remove this condition"
                self._note((*place, key), message, at_key=True)
            elif wrong := self._wrong_condition(key, symbol, wanted):
                self._note((*place, key), wrong)
            else:
                conditions[condition] = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        return conditions

    def _wrong_condition(self, key: str, symbol: Symbol | None, wanted: Any) -> str:
        """Return the mistake in the values of one condition; empty if they are valid."""
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values or not all(isinstance(v, int | float | str) for v in values):
            return f"when: {key} takes a value or a list of values, got {shown(wanted)}"
        rule = (
            _hyperparameter_rule(key, symbol)
            if symbol
            else _size_rule(key, Architecture.model_fields[key])
        )
        return next((f"when: {message}" for v in values if (message := rule(v))), "")


def _are_alternatives(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(one, dict) for one in data)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shape_mistake(entry: _Entry) -> tuple[Place, str] | None:
    """Return the mistake if the value of a distribution is no list, or wrongly one."""
    kind, value = entry.kind, entry.value
    if kind == "value":
        fits, rule = not isinstance(value, list | dict), "value takes one number or name"
    elif entry.is_range:
        fits = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
        rule = f"{kind} takes two numbers, [low, high]"
        value = list(map(as_typed, value)) if isinstance(value, list) else value
    else:
        fits = isinstance(value, list) and len(value) > 0
        fits = fits and not any(isinstance(v, list | dict) for v in value)
        rule = f"{kind} takes a list of values"
        if fits and len(set(value)) < len(value):
            fits, rule = False, f"{kind} takes different values"
    return None if fits else (entry.value_place, f"{rule}, got {shown(value)}")


def _range_mistake(entry: _Entry, kind: type) -> tuple[Place, str] | None:
    """Return the mistake if the ends of a range do not fit each other, its scale or the type."""
    if not entry.is_range:
        return None
    low, high = entry.value
    is_whole = entry.kind.startswith("int")
    message = ""
    if kind in (str, bool):
        what = "a name" if kind is str else "true or false"
        message = f"it is {what}, not a number; use choice instead of {entry.kind}"
    elif kind is int and not is_whole:
        better = "int_log" if entry.kind == "log" else "int"
        message = f"it is a whole number; use {_listable(entry, better)} instead of {entry.kind}"
    elif kind is float and is_whole:
        better = _listable(entry, "log" if entry.kind == "int_log" else "uniform")
        what = "a fraction" if "fraction_of" in entry.options else "it"
        message = f"{what} is not a whole number; use {better} instead of {entry.kind}"
    elif low > high:
        message = f"the range is reversed, got {shown(entry.value)}; write the low end first"
    elif low == high:
        message = f"the range is empty, got {shown(entry.value)}; give the number as a constant"
    elif entry.kind.endswith("log") and low <= 0:
        place = (*entry.value_place, 0)
        return place, f"the low end must be above 0 on a log scale, got {shown(low)}"
    elif entry.kind == "log" and low < _SMALLEST:
        place = (*entry.value_place, 0)
        return place, f"the low end must be at least {_SMALLEST}, the smallest float32, got {low:g}"
    return (entry.value_place, message) if message else None


def _listable(entry: _Entry, kind: Any) -> str:
    """Return a kind of range; `choice` for an entry of `model:` that would be a long range."""
    low, high = sorted(entry.value)
    is_listed = Range(kind=kind, low=low, high=high).possible_values() is not None
    return kind if is_listed or entry.key not in SIZES else "choice"


def _hyperparameter_rule(key: str, symbol: Symbol) -> ValueRule:
    kind = (
        "one of" if symbol.choices else "a whole number in" if symbol.kind is int else "a number in"
    )

    def rule(value: object) -> str:
        if symbol.accepts(value) and (symbol.choices or abs(cast(float, value)) <= _LARGEST_WHOLE):
            return ""
        hint = did_you_mean(value, symbol.choices)
        return f"{key} must be {kind} {symbol.range}, got {as_typed(value)}{hint}"

    return rule


def _share_rule(key: str) -> ValueRule:
    def rule(value: object) -> str:
        if _is_number(value) and value >= 0:
            return ""
        return f"{key}: a fraction must be a number of at least 0, got {as_typed(value)}"

    return rule


def _size_rule(key: str, field: FieldInfo) -> ValueRule:
    kind: Any = field.annotation
    limited: Any = Annotated[kind, *field.metadata] if field.metadata else kind
    adapter: TypeAdapter[Any] = TypeAdapter(limited)

    def rule(value: object) -> str:
        try:
            adapter.validate_python(whole_if_equal(value), strict=True)
        except ValidationError as error:
            return broken_rule(key, error.errors()[0])
        return ""

    return rule


def _without_off(data: Any) -> Any:
    """Return an entry with 0 instead of `off`: `τ: off` means 0."""
    if isinstance(data, dict):
        return {k: _without_off(v) if k in KINDS else v for k, v in data.items()}
    if isinstance(data, list):
        return [_without_off(v) for v in data]
    return 0 if data == "off" else data
