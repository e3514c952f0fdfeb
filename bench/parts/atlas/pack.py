"""Packs the trials of atlas.py as Parquet, with a card."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.device.environment import environment
from model.spec.trial import TrialSpec
from parts.atlas.cells import Row
from parts.atlas.texts import PACKAGES
from tuner.knowledge.atlas import CARD
from tuner.knowledge.evidence import cell_of, obstacle, text_of
from tuner.knowledge.laws import block_weights
from tuner.knowledge.settings import SETTINGS, point

REPORTS = ("val_loss_1", "val_loss_2", "val_loss")


@dataclass(frozen=True)
class Trained:
    """A trial of the atlas with its losses at each report; None from where training diverged."""

    row: Row
    spec: TrialSpec
    losses: tuple[float | None, ...]


def entry(trained: Trained) -> dict[str, Any]:
    """Return the line of the atlas of a trial."""
    row, spec = trained.row, trained.spec
    assert obstacle(spec) is None, obstacle(spec)
    a, h = spec.architecture, spec.hyperparameters
    values = zip(SETTINGS, point(h, a.context_length), strict=True)
    losses = [*trained.losses, *[None] * len(REPORTS)][: len(REPORTS)]
    return {
        "key": row.key,
        "cell": cell_of(spec),
        "text": text_of(spec.data_fingerprint, spec.tokenizer_fingerprint),
        "text_name": row.text,
        "d_model": a.d_model,
        "n_layers": a.n_layers,
        "n_heads": a.n_heads,
        "context_length": a.context_length,
        "vocab_size": a.vocab_size,
        "weights": block_weights(a),
        "parameters": a.num_parameters,
        "tokens": spec.budget_tokens,
        "seed": row.seed,
        **{setting.name: float(f"{setting.value(place):.6g}") for setting, place in values},
        **dict(zip(REPORTS, losses, strict=True)),
    }


def seed_noise(entries: list[Mapping[str, Any]]) -> float | None:
    """Return the deviation of the log loss by the seed; None if no trial has several seeds."""
    equal = defaultdict(list)
    for each in entries:
        if each["val_loss"] is not None:
            settings = tuple(each[setting.name] for setting in SETTINGS)
            equal[each["cell"], settings].append((each["seed"], math.log(each["val_loss"])))
    groups = [[loss for _, loss in group] for group in equal.values() if len(group) > 1]
    squares = sum(len(group) * np.var(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return round(math.sqrt(squares / freedom), 5) if freedom else None


def write(trained: list[Trained], out: Path, command: str, planned: int) -> Mapping[str, Any]:
    """Write the atlas, and return its card."""
    entries: list[Mapping[str, Any]] = [entry(each) for each in trained]
    entries.sort(
        key=lambda e: (e["text_name"], e["weights"], e["tokens"], e["seed"], e["val_loss"] or 99)
    )
    card = {
        "what": "val_loss of Transformer language models, trained to the end with drawn settings",
        "trials": len(entries),
        "planned": planned,
        "diverged": sum(each["val_loss"] is None for each in entries),
        "cells": len({each["cell"] for each in entries}),
        "weights": _ends(entries, "weights"),
        "tokens": _ends(entries, "tokens"),
        "texts": dict(PACKAGES),
        "fingerprints": {each["text_name"]: each["text"] for each in entries},
        "seed_noise": seed_noise(entries),
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **environment("cpu", compiled="yes"),
    }
    table = pa.Table.from_pylist(entries)
    table = table.replace_schema_metadata({CARD: json.dumps(card).encode()})
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd")
    return card


def _ends(entries: list[Mapping[str, Any]], column: str) -> list[int]:
    values = [each[column] for each in entries]
    return [min(values), max(values)]


def shipped(path: Path) -> dict[str, dict[str, Any]]:
    """Return the trials of an atlas as lines of a run, so that a run goes on with it."""
    if not path.exists():
        return {}
    rows = pq.read_table(path, columns=["key", *REPORTS]).to_pylist()
    return {row["key"]: {"curve": [[None, row[report]] for report in REPORTS]} for row in rows}


Read = Callable[[Row], TrialSpec]


def trained_of(
    rows: list[Row], lines: Mapping[str, Mapping[str, Any]], spec_of: Read
) -> list[Trained]:
    """Return the trials that have a line."""
    return [
        Trained(row, spec_of(row), tuple(loss for _, loss in lines[row.key]["curve"]))
        for row in rows
        if row.key in lines
    ]
