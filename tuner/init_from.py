"""`init_from:`, what a user says about where trials start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from tuner.messages import listed
from tuner.parameters import Frozen

if TYPE_CHECKING:
    from tuner.home import Home
    from tuner.space import SearchSpace
    from tuner.warm_start import Start


class InitFromConfig(Frozen):
    """Where all trials start, instead of random weights.

    Attributes:
        search: name of a search, or of a space whose newest search is meant: its best trial.
        run: MLflow run of a trial, or its first eight or more letters.
        checkpoint: file that a search wrote.
        optimizer_state: whether the optimizer's moments are taken over with the weights.

    Raises:
        ValidationError: if not exactly one of `search`, `run` and `checkpoint` is given.
    """

    search: str | None = Field(default=None, min_length=1)
    run: str | None = Field(default=None, min_length=1)
    checkpoint: str | None = Field(default=None, min_length=1)
    optimizer_state: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        kinds = ("search", "run", "checkpoint")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            got = listed(given, "and") if given else "none"
            raise ValueError(f"init_from needs exactly one of {listed(kinds)}, got {got}")
        return self


def warm_started(space: SearchSpace, home: Home) -> tuple[SearchSpace, Start | None]:
    """A space with the tokenizer of what it starts from, and that; the same space if cold.

    Raises:
        TunerError: if the source cannot be found or does not fit the space.
        StoreError: if the tracking store cannot be used.
    """
    if space.init_from is None:
        return space, None
    from tuner.warm_start import find_start  # loads torch, which most commands never need

    return find_start(space, space.init_from, home)
