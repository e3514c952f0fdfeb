"""Reads and writes the `prior:` of an entry: `{centre: 1e-3, confidence: high}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.spec.hyperparameters import find_symbol
from tuner.space.parameter import (
    MAY_BE_OFF,
    AnyDistribution,
    Parameter,
    Prior,
    Range,
    Value,
)
from tuner.space_file.text_edit import with_value
from tuner.space_file.yaml_file import Place, YamlFile, whole_if_equal
from tuner.texts.formatting import did_you_mean, listed, shown, unknown

CONFIDENCES: Mapping[str, float] = {"low": 0.25, "medium": 0.5, "high": 0.75}
_KEYS = ("centre", "confidence")
_SPELLINGS = ("centre", "center", "confidence")


class PriorError(ValueError):
    """An invalid prior.

    Attributes:
        place: position below the entry's `prior`.
        at_key: True if the key is wrong, False if the value is.
    """

    def __init__(self, message: str, *place: str, at_key: bool = False) -> None:
        super().__init__(message)
        self.place: Place = place
        self.at_key = at_key


def read_prior(key: str, name: str, distribution: AnyDistribution, data: Any) -> Prior:
    """Read the prior of a parameter.

    Args:
        key: key of the entry.
        name: name of the parameter.
        distribution: distribution of the parameter.
        data: value of `prior:`.

    Raises:
        PriorError: if the data are no prior for the distribution.
    """
    if distribution.kind == "value":
        raise PriorError(f"{key}: a constant needs no prior; remove it")
    if distribution.kind == "grid":
        message = "a prior has no effect on a grid, which tries every value; use choice"
        raise PriorError(f"{key}: {message}")
    example = "for instance {centre: 1e-3, confidence: medium}"
    if not isinstance(data, dict):
        raise PriorError(f"{key}: prior takes a mapping, {example}, got {shown(data)}")
    for strange in (k for k in data if k not in _SPELLINGS):
        message = f"{key}: {unknown('key in prior:', strange, _KEYS)}"
        raise PriorError(message, strange, at_key=True)
    centres = [k for k in ("centre", "center") if k in data]
    if len(centres) != 1:
        got = "both centre and center" if centres else "none"
        raise PriorError(f"{key}: a prior needs one centre, {example}, got {got}")
    centre = _centre(key, name, distribution, data[centres[0]], centres[0])
    return Prior(centre=centre, confidence=_confidence(key, data.get("confidence", "medium")))


def _centre(key: str, name: str, distribution: AnyDistribution, data: Any, spelled: str) -> Value:
    value = 0 if data == "off" and name in MAY_BE_OFF else data
    parameter = Parameter(name=name, distribution=distribution)
    is_single = isinstance(value, int | float | str)
    if isinstance(distribution, Range):
        if not is_single or not parameter.contains(whole_if_equal(value)):
            low, high = shown(distribution.low), shown(distribution.high)
            kind = "a whole number in" if distribution.is_whole else "in"
            message = f"{key}: the centre of its prior must be {kind} [{low}, {high}]"
            raise PriorError(f"{message}, got {shown(data)}", spelled)
        return distribution.as_drawn(value)
    values = distribution.possible_values()
    if not is_single or value not in values:
        hint = did_you_mean(data, [v for v in values if isinstance(v, str)])
        message = f"{key}: the centre of its prior must be {listed(values)}, got {shown(data)}"
        raise PriorError(message + hint, spelled)
    return distribution.as_drawn(value)


def _confidence(key: str, data: Any) -> float:
    if isinstance(data, str) and data in CONFIDENCES:
        return CONFIDENCES[data]
    if isinstance(data, float) and 0 < data < 1:
        return data
    rule = "low, medium, high or a number between 0 and 1"
    hint = did_you_mean(data, CONFIDENCES) if isinstance(data, str) else ""
    message = f"{key}: the confidence of a prior must be {rule}, got {shown(data)}{hint}"
    raise PriorError(message, "confidence")


# writing -----------------------------------------------------------------------------------------


def add_priors(text: str, priors: Mapping[str, Prior]) -> str:
    """Return the text of a space file in which hyperparameters have priors.

    An entry that is a list of alternatives, or a constant, is left as it is.

    Args:
        text: a valid space file.
        priors: name of a hyperparameter → prior, which replaces the entry's own.
    """
    entries = YamlFile("space", text).value_at(("hyperparameters",))
    if not isinstance(entries, dict):
        return text
    for key, entry in entries.items():
        row = find_symbol(key)
        prior = priors.get(row.name) if row else None
        if prior is not None and isinstance(entry, dict):
            confidence = shown(prior.confidence)
            written = f"{{centre: {_written(prior.centre)}, confidence: {confidence}}}"
            text = with_value(text, ("hyperparameters", key, "prior"), written)
    return text


def _written(value: Value) -> str:
    return shown(float(f"{value:.3g}") if isinstance(value, float) else value)
