"""Read a search-space file: YAML to parameters, all mistakes together, each with its place.

hyperparameters:
  α_max:     {log: [1e-4, 3e-2]}
  α_min:     {fraction_of: α_max, log: [0.01, 0.5]}
  B:         {choice: [8, 16, 32]}
  optimizer: adamw
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from model.architecture import Architecture
from model.corpus import DataConfig
from model.hyperparameters import SYMBOL_TABLE, Row, find_row
from tuner.errors import SpaceError
from tuner.messages import broken_rule, did_you_mean, shown, unknown
from tuner.parameters import AnyDistribution, Choice, Constant, Parameter, Range, Value
from tuner.space import (
    Budget,
    EngineConfig,
    Objective,
    SearchConfig,
    SearchSpace,
    TokenizerConfig,
)
from tuner.space_checks import SpaceChecks
from tuner.yaml_file import Place, YamlFile

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "budget": Budget,
    "engine": EngineConfig,
    "search": SearchConfig,
    "objective": Objective,
}
_TOP = ("name", "model", "hyperparameters", *_SECTIONS)
_KINDS = ("value", "uniform", "log", "int", "int_log", "choice", "grid")
_OPTIONS = ("fraction_of", "when")
_SIZES = tuple(name for name in Architecture.model_fields if name != "vocab_size")
_SPELLINGS = tuple(s for r in SYMBOL_TABLE.values() for s in (r.name, r.symbol, *r.spellings))


def load_space(path: str | Path) -> SearchSpace:
    """Read a search-space file.

    Raises:
        SpaceError: with every mistake of the file.
    """
    file = YamlFile(path)
    reader = _Reader(file)
    space = reader.space()
    if space is not None:
        SpaceChecks(space, file, reader.places).run()
    if space is None or file.mistakes:
        raise SpaceError(file.name, file.mistakes)
    return space


class _Reader:
    """One file on its way to a `SearchSpace`; notes mistakes as it goes.

    Attributes:
        places: name of a parameter → where it stands in the file.
    """

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._note = file.note
        self.places: dict[str, Place] = {}

    def space(self) -> SearchSpace | None:
        """The space, with defaults where a section is wrong; None if there is nothing to check."""
        data = self._file.data
        if not isinstance(data, dict):
            what = "the file is empty" if data is None else "the file is not a mapping"
            self._note((), f"{what}; a search space has the keys {', '.join(_TOP)}")
            return None
        for key in data:
            if key not in _TOP:
                self._note((key,), unknown("key", key, _TOP), at_key=True)
        parts: dict[str, Any] = {
            section: self._section(section, kind, data[section])
            for section, kind in _SECTIONS.items()
            if data.get(section) is not None
        }
        parts["model"] = self._parameters("model", self._size)
        parts["hyperparameters"] = self._parameters("hyperparameters", self._row)
        parts["name"] = self._name(data.get("name"))
        return None if self._file.is_wrong(*set(data) - set(_TOP)) else SearchSpace(**parts)

    # sections -----------------------------------------------------------------------------

    def _name(self, name: Any) -> str:
        """The name as given, or one made from the file's."""
        if name is None:
            stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(self._file.name).stem)
            return stem.lstrip("_.-")[:64] or "search"
        try:
            return SearchSpace.model_validate({"name": name}, strict=True).name
        except ValidationError as error:
            self._note(("name",), broken_rule("name", error.errors()[0]))
            return "search"

    def _section(self, section: str, kind: type[BaseModel], data: Any) -> BaseModel:
        fallback = DataConfig(source="python-stdlib") if kind is DataConfig else kind()
        if not isinstance(data, dict):
            known = ", ".join(kind.model_fields)
            self._note(
                (section,), f"{section} must be a mapping with {known}, got {shown(data)}"
            )
            return fallback
        if section == "data":
            data = self._located_files(data)
        try:
            return kind.model_validate({k: _strict(v) for k, v in data.items()}, strict=True)
        except ValidationError as error:
            for item in error.errors():
                place, names = (section, *item["loc"]), [section, *map(str, item["loc"])]
                if item["type"] == "extra_forbidden":
                    message = unknown(f"key in {section}:", names[-1], kind.model_fields)
                    self._note(place, message, at_key=True)
                else:
                    self._note(place, broken_rule(".".join(names[:2]), item))
            return fallback

    def _located_files(self, data: dict[str, Any]) -> dict[str, Any]:
        """Paths are meant from where the search-space file lies."""
        files = data.get("files")
        if isinstance(files, str):
            files = [files]
        if not isinstance(files, list):
            return data
        here = Path(self._file.name).parent.absolute()
        return data | {"files": [str(here / f) if isinstance(f, str) else f for f in files]}

    # parameters ---------------------------------------------------------------------------

    def _parameters(
        self, section: str, read: Callable[[Place, str, Any], Parameter | None]
    ) -> dict[str, Parameter]:
        entries = self._file.data.get(section)
        if entries is None:
            return {}
        if not isinstance(entries, dict):
            message = f"{section} must be a mapping from names to values or ranges"
            self._note((section,), f"{message}, got {shown(entries)}")
            return {}
        parameters = [read((section, key), key, value) for key, value in entries.items()]
        return {p.name: p for p in parameters if p is not None}

    def _size(self, place: Place, key: str, data: Any) -> Parameter | None:
        """An entry of `model:`."""
        if key not in _SIZES:
            message = unknown("size", key, _SIZES)
            if key == "vocab_size":
                message = "vocab_size belongs to the tokenizer; write it under tokenizer:"
            self._note(place, message, at_key=True)
            return None
        self.places[key] = place
        parameter = self._parameter(place, key, key, data)
        if parameter is None:
            return None
        if parameter.fraction_of:
            message = f"{key} cannot be a fraction; give its values, for instance {{choice: [64]}}"
            self._note((*place, "fraction_of"), message, at_key=True)
            return None
        field = Architecture.model_fields[key]
        d = parameter.distribution
        if isinstance(d, Range) and not (d.is_whole and field.annotation is int):
            message = f"{key} must be a value, a choice, a grid or a short int range, not {d.kind}"
            self._note(_value_place(place, data), message)
            return None
        adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, field.annotation))
        adapter = TypeAdapter(_annotated(field.annotation, field.metadata))
        for where, value in _values(place, data):
            try:
                adapter.validate_python(_strict(value), strict=True)
            except ValidationError as error:
                self._note(where, broken_rule(key, error.errors()[0]))
                return None
        return _whole(parameter) if field.annotation is int else parameter

    def _row(self, place: Place, key: str, data: Any) -> Parameter | None:
        """An entry of `hyperparameters:`."""
        row = find_row(key)
        if row is None:
            way_out = did_you_mean(key, _SPELLINGS) or "; 'tuner symbols' lists those that are known"
            message = f"unknown hyperparameter {shown(key)}{way_out}"
            self._note(place, message, at_key=True)
            return None
        if row.name in self.places:
            other = self.places[row.name][-1]
            message = f"{key} and {other} are the same hyperparameter; keep one"
            self._note(place, message, at_key=True)
            return None
        self.places[row.name] = place
        if row.name == "grad_clip":
            data = _without_off(data)
        parameter = self._parameter(place, key, row.name, data)
        if parameter is None:
            return None
        check = self._share_fits if parameter.fraction_of else self._row_fits
        if not check(place, key, row, parameter, data):
            return None
        is_count = row.kind is int and not parameter.fraction_of
        return _whole(parameter) if is_count else parameter

    def _row_fits(
        self, place: Place, key: str, row: Row, parameter: Parameter, data: Any
    ) -> bool:
        """Whether all that can be drawn lies in the row's range."""
        d = parameter.distribution
        if isinstance(d, Range) and (row.choices or (row.kind is int and not d.is_whole)):
            better = "choice" if row.choices else "int_log" if d.is_log else "int"
            what = f"one of {row.range}" if row.choices else "a whole number"
            message = f"{key} must be {what}; use {better} instead of {d.kind}"
            self._note((*place, d.kind), message, at_key=True)
            return False
        for where, value in _values(place, data):
            if row.accepts(value) and (row.kind is not int or abs(float(value)) <= 2**53):
                continue
            kind = "one of" if row.choices else "a whole number in" if row.kind is int else "a number in"
            hint = did_you_mean(value, row.choices)
            self._note(where, f"{key} must be {kind} {row.range}, got {shown(value)}{hint}")
            return False
        return True

    def _share_fits(
        self, place: Place, key: str, row: Row, parameter: Parameter, data: Any
    ) -> bool:
        """Whether a row can be a fraction, and all that can be drawn is one."""
        if row.kind is str or row.name in {"batch_size", "total_steps", "epochs"}:
            message = f"{key} cannot be a fraction of another row; give its values"
            self._note((*place, "fraction_of"), message, at_key=True)
            return False
        d = parameter.distribution
        if isinstance(d, Range) and d.is_whole:
            message = f"{key}: a fraction is not a whole number; use uniform or log"
            self._note((*place, d.kind), message, at_key=True)
            return False
        for where, value in _values(place, data):
            if not _is_number(value) or value < 0:
                self._note(where, f"{key}: a fraction must be at least 0, got {shown(value)}")
                return False
        return True

    # one entry ------------------------------------------------------------------------------

    def _parameter(self, place: Place, key: str, name: str, data: Any) -> Parameter | None:
        """A constant, or a mapping with one distribution and options."""
        if data is None or isinstance(data, list):
            what = "a list needs a distribution" if data else "it has no value"
            way_out = f"{{choice: {shown(data)}}}" if data else "{log: [1e-4, 1e-2]}"
            self._note(place, f"{key}: {what}; write a value, or for instance {way_out}")
            return None
        if not isinstance(data, dict):
            return Parameter(name=name, distribution=Constant(value=_number_or_text(data)))
        unknown_kinds = [k for k in data if k not in (*_KINDS, *_OPTIONS)]
        for kind in unknown_kinds:
            message = unknown("distribution", kind, (*_KINDS, *_OPTIONS))
            self._note((*place, kind), message, at_key=True)
        kinds = [k for k in data if k in _KINDS]
        if len(kinds) != 1 and not unknown_kinds:
            got = " and ".join(kinds) or "none"
            self._note(place, f"{key} needs exactly one of {', '.join(_KINDS)}, got {got}")
        if len(kinds) != 1 or unknown_kinds:
            return None
        distribution = self._distribution((*place, kinds[0]), key, kinds[0], data[kinds[0]])
        fraction_of = self._fraction_of((*place, "fraction_of"), key, name, data)
        when = self._when((*place, "when"), name, data.get("when"))
        if distribution is None or when is None or ("fraction_of" in data and not fraction_of):
            return None
        return Parameter(
            name=name, distribution=distribution, fraction_of=fraction_of, when=when
        )
