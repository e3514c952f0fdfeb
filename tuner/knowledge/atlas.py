"""The atlas: losses of many small models, made by `bench/atlas.py` and shipped with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import TunerError
from tuner.knowledge.evidence import Evidence
from tuner.knowledge.settings import NAMES, places
from tuner.space.proposals import SourceUsed

PATH = Path(__file__).with_name("atlas.parquet")
CARD = b"card"  # key of the card in the metadata of the file
KEYS = (
    "cell",
    "text",
    "weights",
    "tokens",
    "parameters",
    "seed",
    "val_loss",
)  # columns beside the settings


@dataclass(frozen=True)
class Atlas:
    """The shipped trials.

    Attributes:
        source: name, digest and number of trials.
        evidence: the trials.
        card: what, how many, versions, date and noise.
    """

    source: SourceUsed
    evidence: Evidence
    card: Mapping[str, Any]


@cache
def read_atlas(path: Path = PATH) -> Atlas:
    """Read the atlas.

    Raises:
        TunerError: if the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
        columns = {name: table.column(name).to_pylist() for name in (*KEYS, *NAMES)}
        card = json.loads((table.schema.metadata or {})[CARD])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise TunerError(
            f"the atlas {path} cannot be read; install tuner again: {error}"
        ) from error
    rows = zip(*(columns[name] for name in NAMES), strict=True)
    losses = [np.inf if loss is None else loss for loss in columns["val_loss"]]
    evidence = Evidence(
        np.array([places(row) for row in rows]),
        np.log(np.column_stack([columns[name] for name in ("weights", "tokens", "parameters")])),
        np.array(columns["cell"], dtype=np.str_),
        np.array(columns["text"], dtype=np.str_),
        np.array(losses, dtype=np.float64),
    )
    source = SourceUsed("atlas", "atlas", sha256(content).hexdigest(), len(evidence))
    return Atlas(source, evidence, card)
