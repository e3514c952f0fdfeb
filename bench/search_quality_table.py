"""The table of search_quality.py: configurations of a space, each trained to the end, once.

They are drawn uniformly over the space (a scrambled Sobol sequence through its distributions), so
that random search finds on the table what it would find in the space. The defaults come first.
"""

from __future__ import annotations

import gzip
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc
from search_quality_baselines import step_law

from model.corpus.corpus import Corpus
from model.device.environment import environment
from model.engine.engine import Engine
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Choice, Parameter, Range, Value
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.float64]
DIGITS = 7  # of a loss, which is a mean of float32 numbers


# the space as a cube ----------------------------------------------------------------------------


def value_at(parameter: Parameter, place: float) -> Value:
    """The value at a place in [0, 1) of a parameter's distribution."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return d.values[min(int(place * len(d.values)), len(d.values) - 1)]
    assert isinstance(d, Range)
    low, high = (math.log(d.low), math.log(d.high)) if d.is_log else (d.low, d.high)
    number = low + place * (high - low)
    number = min(max(math.exp(number) if d.is_log else number, d.low), d.high)
    return round(number) if d.is_whole else number


def place_of(parameter: Parameter, value: Value) -> float:
    """Where a value lies: in [0, 1] of a range; of a choice, its number."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return float(d.values.index(value))
    assert isinstance(d, Range)
    number = float(value)
    if d.is_log:
        return math.log(number / d.low) / math.log(d.high / d.low)
    return (number - d.low) / (d.high - d.low)


def draws(space: SearchSpace, count: int, seed: int) -> list[dict[str, Value]]:
    """The defaults, and the first points of a scrambled Sobol sequence: one more than `count`."""
    searched = space.searched
    if any(parameter.when for parameter in searched):
        raise ValueError("a table needs a space without conditions")
    sobol = qmc.Sobol(len(searched), scramble=True, rng=np.random.default_rng(seed))
    points = sobol.random_base2(math.ceil(math.log2(count)))[:count].tolist()
    return [
        space.defaults(),
        *({p.label: value_at(p, u) for p, u in zip(searched, x, strict=True)} for x in points),
    ]


# training it ------------------------------------------------------------------------------------


def train(space: SearchSpace, corpus: Corpus, count: int, seed: int, rows: Path) -> None:
    """Train what the file `rows` does not have yet, one configuration after another.

    Args:
        space: without conditions, on a text.
        corpus: its text.
        count: configurations beside the defaults.
        seed: of the sequence; the trials' is the space's.
        rows: JSON lines, one for each configuration, in the order of `draws`; appended to.
    """
    there = len(rows.read_text(encoding="utf-8").splitlines()) if rows.exists() else 0
    for number, draw in enumerate(draws(space, count, seed)):
        if number < there:
            continue
        began = time.monotonic()
        row = train_one(space, corpus, draw)
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        seconds = time.monotonic() - began
        print(f"{number:4} {seconds:6.1f} s  {row['status']} at {row['curve'][-1][1]}")


def train_one(space: SearchSpace, corpus: Corpus, draw: Mapping[str, Value]) -> dict[str, Any]:
    """A row of the table: what became of a draw."""
    spec = space.spec(draw, DataFacts.of(corpus), space.search.seed)
    reports = list(Engine(*corpus.splits, slots=1).run([spec]))
    curve = [[r.tokens, _rounded(r.val_loss), _rounded(r.train_loss)] for r in reports]
    return {"draw": dict(draw), "status": str(reports[-1].status), "curve": curve}


def _rounded(loss: float) -> float | None:
    return round(loss, DIGITS) if math.isfinite(loss) else None


def pack(space: SearchSpace, corpus: Corpus, rows: Path, out: Path, command: str) -> None:
    """Write the table: what `rows` has, what Step Law comes to, and what they were made with."""
    facts = DataFacts.of(corpus)
    (architecture,) = space.shapes(facts.vocab_size)
    law = step_law(space, architecture, space.budget_tokens(facts))
    table = {
        "about": {
            "command": command,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            **environment("cpu"),
        },
        "space": _essence(space),
        "seed": space.search.seed,
        "facts": {name: value for name, value in asdict(facts).items() if value is not None},
        "step_law": train_one(space, corpus, law),
        "columns": ["tokens", "val_loss", "train_loss"],
        "rows": [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(json.dumps(table, separators=(",", ":")).encode())


def _essence(space: SearchSpace) -> dict[str, Any]:
    """What a loss depends on; where a search looks first is no part of it."""
    drawn_from = {p.label: p.distribution.model_dump(mode="json") for p in space.parameters}
    return {"parameters": drawn_from, "budget": space.budget.model_dump(mode="json")}


# reading it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Configurations of a space, and what became of them.

    N = configurations, the defaults first; D = searched parameters; R = reports.

    Attributes:
        space: that they are of.
        draws: N of them.
        tokens: (N, R), at each report; 0 after the one at which it diverged.
        losses: (N, R), val_loss; NaN from where a configuration diverged.
        law: the defaults with Step Law's α_max and B; no search comes across it unless told to.
        law_losses: (R,), of these.
        facts: of the text that they were trained on.
        about: how the table was made.
    """

    space: SearchSpace
    draws: Sequence[Mapping[str, Value]]
    tokens: npt.NDArray[np.int64]
    losses: Floats
    law: Mapping[str, Value]
    law_losses: Floats
    facts: DataFacts
    about: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, space: SearchSpace) -> Table:
        """The table in a file.

        Raises:
            ValueError: if it is of another space.
        """
        with gzip.open(path) as file:
            table = json.load(file)
        if table["space"] != _essence(space):
            raise ValueError(f"{path} is of another space than {space.name}; build it again")
        rows, reports = table["rows"], space.budget.reports
        losses = np.full((len(rows), reports), np.nan)
        tokens = np.zeros((len(rows), reports), dtype=np.int64)
        for number, row in enumerate(rows):
            for at, (seen, loss, _) in enumerate(row["curve"]):
                tokens[number, at] = seen
                losses[number, at] = np.nan if loss is None else loss
        return cls(
            space,
            [row["draw"] for row in rows],
            tokens,
            losses,
            table["step_law"]["draw"],
            np.array([point[1] for point in table["step_law"]["curve"]]),
            DataFacts(**table["facts"]),
            table["about"],
        )

    @cached_property
    def places(self) -> Floats:
        """(N, D): the configurations in the cube of the space."""
        return np.array([self.place(draw) for draw in self.draws])

    @cached_property
    def choices(self) -> npt.NDArray[np.bool_]:
        """(D,): which parameters are choices, of which two values are equal or are not."""
        return np.array([isinstance(p.distribution, Choice) for p in self.space.searched])

    def place(self, draw: Mapping[str, Value]) -> list[float]:
        """A draw in the cube of the space."""
        return [place_of(p, draw[p.label]) for p in self.space.searched]

    @cached_property
    def final(self) -> Floats:
        """(N,): the loss at the end; infinity for what diverged."""
        last = self.losses[:, -1]
        return np.where(np.isnan(last), np.inf, last)

    @cached_property
    def best(self) -> float:
        """The smallest loss at the end."""
        return float(self.final.min())
