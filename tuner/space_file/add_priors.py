"""Writes priors into the text of a space file; comments and everything else stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from model.spec.hyperparameters import find_symbol
from tuner.space.parameter import Prior, Value
from tuner.texts.formatting import shown


def add_priors(text: str, priors: Mapping[str, Prior]) -> str:
    """Return the text of a space file in which hyperparameters have priors.

    An entry that is a list of alternatives, or a constant, is left as it is.

    Args:
        text: a valid space file.
        priors: name of a hyperparameter → prior, which replaces the entry's own.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = _value(root, "hyperparameters") if isinstance(root, yaml.MappingNode) else None
    if not isinstance(entries, yaml.MappingNode):
        return text
    edits = []
    for key, entry in entries.value:
        row = find_symbol(key.value)
        prior = priors.get(row.name) if row else None
        if prior is not None and isinstance(entry, yaml.MappingNode):
            edits.append(_edit(text, entry, prior))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _value(mapping: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in mapping.value if name.value == key), None)


def _edit(text: str, entry: yaml.MappingNode, prior: Prior) -> tuple[int, int, str]:
    """Return start and end of the text that is replaced, and the new text."""
    written = f"{{centre: {_written(prior.centre)}, confidence: {shown(prior.confidence)}}}"
    old = _value(entry, "prior")
    if old is not None:
        end = old.start_mark.index + len(text[old.start_mark.index : old.end_mark.index].rstrip())
        return old.start_mark.index, end, written
    last_key, last = entry.value[-1]
    end = last.start_mark.index + len(text[last.start_mark.index : last.end_mark.index].rstrip())
    indent = "\n" + " " * last_key.start_mark.column
    return end, end, f"{', ' if entry.flow_style else indent}prior: {written}"


def _written(value: Value) -> str:
    return shown(float(f"{value:.3g}") if isinstance(value, float) else value)
