"""Table of search_quality.py: configurations of a space, each trained to the end once.

The configurations are uniform over the space (a scrambled Sobol sequence through its
distributions), so that random search gives the same losses on the table as in the space. The
defaults come first.
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

from model.corpus.corpus import Corpus
from model.device.environment import environment
from model.engine.engine import Engine
from parts.search_quality.step_law import step_law
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Choice, Parameter, Range, Value
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.float64]
DIGITS = 7  # precision of a loss, a mean of float32 numbers


# the space as a cube ----------------------------------------------------------------------------


def value_at(parameter: Parameter, place: float) -> Value:
    """Return the value at a place in [0, 1) of a parameter's distribution."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return d.values[min(int(place * len(d.values)), len(d.values) - 1)]
    assert isinstance(d, Range)
    low, high = (math.log(d.low), math.log(d.high)) if d.is_log else (d.low, d.high)
    number = low + place * (high - low)
    number = min(max(math.exp(number) if d.is_log else number, d.low), d.high)
    return round(number) if d.is_whole else number


def place_of(parameter: Parameter, value: Value) -> float:
    """Return the place of a value: in [0, 1] for a range, its index for a choice."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return float(d.values.index(value))
    assert isinstance(d, Range)
    number = float(value)
    if d.is_log:
        return math.log(number / d.low) / math.log(d.high / d.low)
    return (number - d.low) / (d.high - d.low)


def draws(space: SearchSpace, count: int, seed: int) -> list[dict[str, Value]]:
    """Return the defaults and `count` points of a scrambled Sobol sequence."""
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
    """Train the configurations that the file `rows` does not have yet, one after another.

    Args:
        space: search space without conditions, on a text.
        corpus: prepared text of the space.
        count: number of configurations beside the defaults.
        seed: seed of the Sobol sequence; trials have the seed of the space.
        rows: JSON lines, one for each configuration in the order of `draws`; appended to.
    """
    trained = len(rows.read_text(encoding="utf-8").splitlines()) if rows.exists() else 0
    for number, draw in enumerate(draws(space, count, seed)):
        if number < trained:
            continue
        began = time.monotonic()
        row = train_one(space, corpus, draw)
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        seconds = time.monotonic() - began
        print(f"{number:4} {seconds:6.1f} s  {row['status']} at {row['curve'][-1][1]}")


def train_one(space: SearchSpace, corpus: Corpus, draw: Mapping[str, Value]) -> dict[str, Any]:
    """Train a draw, and return its row of the table."""
    spec = space.spec(draw, DataFacts.of(corpus), space.search.seed)
    reports = list(Engine(*corpus.splits, slots=1).run([spec]))
    curve = [[r.tokens, _rounded(r.val_loss), _rounded(r.train_loss)] for r in reports]
    return {"draw": dict(draw), "status": str(reports[-1].status), "curve": curve}


def _rounded(loss: float) -> float | None:
    return round(loss, DIGITS) if math.isfinite(loss) else None


def pack(space: SearchSpace, corpus: Corpus, rows: Path, out: Path, command: str) -> None:
    """Write the table: the rows, a row for Step Law, and versions and command."""
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
    """Return the part of a space that losses depend on; priors and settings do not count."""
    drawn_from = {p.label: p.distribution.model_dump(mode="json") for p in space.parameters}
    budget = space.budget.model_dump(mode="json").items()  # entries that a table may be older than
    return {"parameters": drawn_from, "budget": {k: v for k, v in budget if v not in (None, [])}}


# reading it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Configurations of a space, and their losses.

    N = configurations, the defaults first; D = searched parameters; R = reports.

    Attributes:
        space: search space of the configurations.
        draws: the N configurations.
        tokens: (N, R), tokens at each report; 0 after the report at which a configuration diverged.
        losses: (N, R), val_loss; NaN from the report at which a configuration diverged.
        law: the defaults with Step Law's α_max and B; only searches with its priors try it.
        law_losses: (R,), losses of `law`.
        facts: facts about the training text.
        about: command, date and versions of the table.
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
        """Read a table from a file.

        Raises:
            ValueError: if the table is of another space.
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
        """Configurations in the cube of the space, (N, D)."""
        return np.array([self.place(draw) for draw in self.draws])

    @cached_property
    def choices(self) -> npt.NDArray[np.bool_]:
        """True for parameters that are choices, (D,)."""
        return np.array([isinstance(p.distribution, Choice) for p in self.space.searched])

    def place(self, draw: Mapping[str, Value]) -> list[float]:
        """Return a draw as a point in the cube of the space."""
        return [place_of(p, draw[p.label]) for p in self.space.searched]

    def nearest(self, draw: Mapping[str, Value], weights: Floats, used: Sequence[int] = ()) -> int:
        """Return the row nearest to a draw of all parameters, without those that are used."""
        between = np.abs(self.places - np.array(self.place(draw)))
        distance = np.where(self.choices, between > 0, between) ** 2 @ weights
        distance[list(used)] = np.inf
        return int(distance.argmin())

    @cached_property
    def final(self) -> Floats:
        """Final losses, (N,); infinity for diverged configurations."""
        last = self.losses[:, -1]
        return np.where(np.isnan(last), np.inf, last)

    @cached_property
    def best(self) -> float:
        """Smallest final loss."""
        return float(self.final.min())
