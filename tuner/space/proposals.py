"""What a search that learns from others begins with (`search.learn_from`), as it is recorded.

The room `knowledge` makes proposals from its sources; the journal keeps them, so that a search
resumes and replays without its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from tuner.space.parameter import Parameter, Prior, Value
from tuner.space.space import SearchSpace

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class SourceUsed:
    """A source that proposals were made from.

    Attributes:
        name: name of the search, path of the table, or name of the law.
        kind: what it is.
        digest: SHA-256 of what was read.
        trials: number of trials that were used.
    """

    name: str
    kind: Literal["search", "atlas", "law", "table"]
    digest: str
    trials: int


@dataclass(frozen=True, config=_STRICT)
class Proposals:
    """First trials of a search, and a prior for its sampler; empty without sources.

    Attributes:
        draws: complete draws of the space, the best first; their trials are not paused or stopped.
        centre: label → centre of the prior of each parameter that the sources know.
        confidence: confidence of these priors, as `Prior.confidence`; 0 without a centre.
        sources: what was used.
        left_out: what was not used and why, one sentence each.
        sentence: what to tell the user; empty if the search does not learn.
    """

    draws: tuple[Mapping[str, Value], ...] = ()
    centre: Mapping[str, Value] = field(default_factory=dict)
    confidence: float = 0.0
    sources: tuple[SourceUsed, ...] = ()
    left_out: tuple[str, ...] = ()
    sentence: str = ""

    def __post_init__(self) -> None:
        """Check the confidence.

        Raises:
            ValueError: if a centre has no confidence in (0, 1).
        """
        if not (0 < self.confidence < 1 or (self.confidence == 0 and not self.centre)):
            raise ValueError(f"proposals with the confidence {self.confidence}")

    def __bool__(self) -> bool:
        """Return True if the sampler or the first trials follow them."""
        return bool(self.draws or self.centre)

    def fitted(self, space: SearchSpace) -> Proposals:
        """Return the proposals with each value moved into the distribution of its parameter."""
        defaults = space.defaults()
        parameters = {p.label: p for p in space.searched}
        draws = [
            space.only_drawn(
                {
                    label: _moved(p, draw.get(label, defaults[label]))
                    for label, p in parameters.items()
                }
            )
            for draw in self.draws
        ]
        centre = {
            label: _moved(parameters[label], value)
            for label, value in self.centre.items()
            if label in parameters
        }
        return Proposals(
            tuple(draw for i, draw in enumerate(draws) if draw not in draws[:i]),
            centre,
            self.confidence if centre else 0.0,
            self.sources,
            self.left_out,
            self.sentence,
        )

    def believed(self, parameters: Sequence[Parameter]) -> list[Parameter]:
        """Return parameters with the centre as the prior of those that have none of their own."""
        return [
            p.model_copy(
                update={"prior": Prior(centre=self.centre[p.label], confidence=self.confidence)}
            )
            if p.label in self.centre and p.prior is None and p.distribution.kind != "grid"
            else p
            for p in parameters
        ]


NOTHING = Proposals()


def _moved(parameter: Parameter, value: Value) -> Value:
    if not parameter.contains(value):
        value = parameter.nearest(value)
    return parameter.distribution.as_drawn(value)
