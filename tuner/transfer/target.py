"""The target of a search: its large model, with the winner's hyperparameters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from model.files import read_regular, replacing
from tuner.space.parameter import Constant, Parameter, Value
from tuner.space.settings import Confirm, SearchConfig
from tuner.space.space import SearchSpace

_FACTOR = "transfer.json"  # in the folder of a search
RATES = ("max_learning_rate", "min_learning_rate", "learning_rate")


def target_space(space: SearchSpace, drawn: Mapping[str, Value], factor: float = 1) -> SearchSpace:
    """Return a space of one trial: the target of a space with `proxy:`, with the values of a draw.

    Its trial trains on all tokens of the budget, and has no factors: an ordinary model.

    Args:
        space: space of the search; all its values are those of the target.
        drawn: draw of the winner.
        factor: factor on the learning rates.
    """
    sections = {
        section: {
            key: _constant(parameter, drawn, factor)
            for key, parameter in getattr(space, section).items()
            if space.is_drawn(parameter, drawn)
        }
        for section in ("model", "hyperparameters")
    }
    settings = SearchConfig(
        trials=1, sampler="random", scheduler="none", seed=space.search.seed,
        max_seconds=space.search.max_seconds,
    )  # fmt: skip
    # not a copy: it would keep the parameters that the space has cached
    kept = {name: getattr(space, name) for name in SearchSpace.model_fields}
    changes = {"proxy": None, "compare": None, "search": settings, "confirm": Confirm(top=0)}
    return SearchSpace.model_validate({**kept, **sections, **changes})


def _constant(parameter: Parameter, drawn: Mapping[str, Value], factor: float) -> Parameter:
    """Return a parameter with the value of a draw; a share of another stays a share."""
    d = parameter.distribution
    value = d.value if isinstance(d, Constant) else drawn[parameter.label]
    if factor != 1 and parameter.name in RATES and parameter.fraction_of is None:
        value = float(value) * factor
    return parameter.model_copy(
        update={"distribution": Constant(value=value), "prior": None, "when": {}}
    )


def write_factor(folder: Path, factor: float) -> None:
    """Note the factor that a verification found, in the folder of its search."""
    with replacing(folder / _FACTOR) as file:
        file.write(json.dumps({"factor": factor}).encode())


def read_factor(folder: Path) -> float | None:
    """Return the factor that the last verification found; None if there was none."""
    try:
        factor = float(json.loads(read_regular(folder / _FACTOR))["factor"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return factor if math.isfinite(factor) and factor > 0 else None
