"""Read the section `lora:` of a search-space file: entries of `model:` and `hyperparameters:`.

lora:
  rank:    {choice: [4, 16]}
  targets: {choice: [attention, [q_proj, v_proj]]}
  alpha:   {log: [4, 64]}
"""

from __future__ import annotations

from typing import Any

from model.spec.hyperparameters import LORA_ROWS, find_symbol
from model.spec.lora import DEFAULT_RANK
from tuner.space.parameter import SIZES, Parameter
from tuner.space_file.entries import EntryReader
from tuner.space_file.yaml_file import YamlFile
from tuner.texts.formatting import shown, unknown

# key of `lora:` → name of its parameter
LORA_KEYS = {
    "rank": "lora_rank", "targets": "lora_targets",
    **{row.removeprefix("lora_"): row for row in LORA_ROWS},
}  # fmt: skip


def read_lora(file: YamlFile, entries: EntryReader) -> list[Parameter]:
    """Return the parameters of `lora:`, with a rank; none without the section, or if it is off."""
    data = file.data.get("lora")
    _note_misplaced(file)
    if "lora" not in file.data or data == "off" or data is False:
        return []
    if not isinstance(data, dict):
        message = f"lora must be off or a mapping with the keys {', '.join(LORA_KEYS)}"
        file.note(("lora",), f"{message}, got {shown(data)}")
        return []
    data = {"rank": DEFAULT_RANK} | data
    return [p for key, value in data.items() for p in _entry(file, entries, key, value)]


def _note_misplaced(file: YamlFile) -> None:
    """Note the entries of LoRA that other sections have."""
    keys = {name: key for key, name in LORA_KEYS.items()}
    for section in ("model", "hyperparameters"):
        entries = file.data.get(section)
        for spelling in entries if isinstance(entries, dict) else ():
            row = find_symbol(spelling) if isinstance(spelling, str) else None
            key = keys.get(row.name if row else spelling)
            if key is not None:
                message = f"{spelling} belongs to the section lora:, as {key}; move it there"
                file.note((section, spelling), message, at_key=True)


def _entry(file: YamlFile, entries: EntryReader, key: str, value: Any) -> list[Parameter]:
    if key not in LORA_KEYS:
        file.note(("lora", key), unknown("key in lora:", key, [*LORA_KEYS]), at_key=True)
        return []
    name, place = LORA_KEYS[key], ("lora", key)
    value = _joined_names(value) if key == "targets" else value
    read = entries.size if name in SIZES else entries.hyperparameter
    parameters = read(name, value, place)
    if key == "rank" and any(0 in p.distribution.ends() for p in parameters):
        file.note(place, "lora_rank must be at least 1, got 0; lora: off trains all weights")
    return parameters


def _joined_names(data: Any) -> Any:
    """Return targets of LoRA with each list of names as one text: [q_proj, v_proj] is a value."""
    if isinstance(data, dict):
        kinds = ("value", "choice", "grid")
        return {k: _joined_names(v) if k == "value" else
                [*map(_joined_names, v)] if k in kinds and isinstance(v, list) else v
                for k, v in data.items()}  # fmt: skip
    is_names = isinstance(data, list) and data and all(isinstance(v, str) for v in data)
    return ",".join(data) if is_names else data
