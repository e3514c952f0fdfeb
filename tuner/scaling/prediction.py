"""Predictions that are written down before a target is trained, and compared with it afterwards."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.files import read_regular, replacing
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.scaling.laws import ScalingLaws
from tuner.scaling.runs import SizeRuns
from tuner.texts.formatting import listed

_NEAR = 1.1  # a trained model whose size differs by less is the target
_FREE = re.compile(r"-(\d+)\.json")


class PredictedValue(BaseModel):
    """A predicted value with its 90 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float = Field(gt=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    def holds(self, value: float, low: float, high: float) -> bool:
        """Return whether a measured value agrees, by the interval of the difference.

        Args:
            value: what was measured.
            low: lower end of its own 90 % interval; the value itself if it has none.
            high: upper end.
        """
        if value >= self.value:
            ends = (self.high / self.value, value / low)
        else:
            ends = (self.value / self.low if self.low else math.inf, high / value)
        return abs(math.log(value / self.value)) <= math.hypot(*map(math.log, ends)) + 1e-12


class Prediction(BaseModel):
    """What laws say about a target that is not trained yet.

    Attributes:
        date: time at which it was written, ISO 8601, in UTC.
        searches: searches whose trials the laws are fitted to.
        trials: number of these trials.
        kind: how sizes and budgets vary (`laws.DESCRIPTIONS`).
        target: parameters, tokens or flops → value.
        values: α_max, B, loss, and parameters of the best size → prediction. The interval of the
            loss is that of one trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    date: datetime
    searches: tuple[str, ...]
    trials: int = Field(ge=1)
    kind: str
    target: dict[str, float]
    values: dict[str, PredictedValue]

    @classmethod
    def of(cls, laws: ScalingLaws, searches: Sequence[str], target: Mapping[str, float]) -> Self:
        """Predict a target.

        Args:
            laws: the fitted laws.
            searches: names of the searches.
            target: parameters, tokens, or flops → value; the variables of the laws.

        Raises:
            TunerError: if the laws have a variable that the target lacks.
        """
        needed = {name for law in laws.laws for name in law.variables}
        if "tokens" in needed and "tokens" not in target:
            raise TunerError(
                "tokens vary apart from the size in these trials; say with --tokens for how many "
                "the target is trained"
            )
        found = {law.quantity: law.predict(target) for law in laws.laws}
        return cls(
            date=datetime.now(UTC).replace(microsecond=0),
            searches=tuple(sorted(searches)),
            trials=sum(o.kept for o in laws.optima.used),
            kind=laws.kind,
            target=dict(target),
            values={
                name: PredictedValue(value=v.value, low=v.low, high=v.high)
                for name, v in found.items()
            },
        )

    def is_of(self, size: SizeRuns) -> bool:
        """Return whether a trained model has the size of the target."""
        actual = {"parameters": size.parameters, "tokens": size.tokens, "flops": size.flops}
        return all(
            abs(math.log(actual[name] / value)) <= math.log(_NEAR)
            for name, value in self.target.items()
        )


def write_prediction(prediction: Prediction, home: Home) -> tuple[Path, Prediction]:
    """Write a prediction to a file of its own; an earlier one is never replaced.

    Returns:
        Path of the file and its prediction; those of an earlier one if it says the same.

    Raises:
        TunerError: if the file cannot be written.
    """
    earlier = read_predictions(home, prediction.searches)
    for path, other in earlier:
        if _said(other) == _said(prediction):
            return path, other
    paths = [path for path, _ in earlier]
    numbers = [int(found[1]) for path in paths if (found := _FREE.search(path.name))]
    name = f"{prediction.searches[0]}-{max(numbers, default=0) + 1}.json"
    folder = _folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (folder / name).exists():
            numbers.append(max(numbers, default=0) + 1)
            name = f"{prediction.searches[0]}-{max(numbers) + 1}.json"
        with replacing(folder / name) as file:
            file.write((prediction.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise TunerError(
            f"cannot write the prediction to {folder / name}: {error.strerror}"
        ) from error
    return folder / name, prediction


def read_predictions(home: Home, searches: Sequence[str]) -> list[tuple[Path, Prediction]]:
    """Return the predictions of a home from these searches, the oldest first.

    Raises:
        RecordError: if a file is damaged.
    """
    return [(path, p) for path, p in all_predictions(home) if p.searches == tuple(sorted(searches))]


def all_predictions(home: Home) -> list[tuple[Path, Prediction]]:
    """Return all predictions of a home, the oldest first.

    Raises:
        RecordError: if a file is damaged.
    """
    found = [(path, _read(path)) for path in sorted(_folder(home).glob("*.json"))]
    return sorted(found, key=lambda pair: pair[1].date)


def find_prediction(
    home: Home, searches: Sequence[str], sizes: Sequence[SizeRuns]
) -> tuple[Path, Prediction, SizeRuns]:
    """Return the oldest prediction of a trained size, its path and the size.

    The oldest one counts: a later one may have seen the result.

    Raises:
        RecordError: if there is none, or a file is damaged.
    """
    predictions = read_predictions(home, searches)
    for path, prediction in predictions:
        for size in sizes:
            if prediction.is_of(size):
                return path, prediction, size
    trained = listed([f"{s.parameters:,} weights and {s.tokens:,.0f} tokens" for s in sizes], "and")
    targets = [", ".join(f"{v:,.6g} {k}" for k, v in p.target.items()) for _, p in predictions]
    raise RecordError(
        f"no prediction from {listed(sorted(searches), 'and')} in {_folder(home)} is of {trained}"
        + (f"; there are those of {listed(targets, 'and')}" if targets else
           "; write one with --parameters or --flops before the target is trained")
    )  # fmt: skip


def _folder(home: Home) -> Path:
    return home.root / "predictions"


def _said(prediction: Prediction) -> dict[str, object]:
    return prediction.model_dump(exclude={"date"})


def _read(path: Path) -> Prediction:
    try:
        return Prediction.model_validate(json.loads(read_regular(path)))
    except (OSError, ValueError, ValidationError) as error:
        raise RecordError(f"{path} is no prediction of tuner; restore it or remove it") from error
