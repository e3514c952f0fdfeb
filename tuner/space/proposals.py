"""What a search that learns from others begins with (`search.learn_from`), as it is recorded.

The room `knowledge` makes proposals from its sources; the journal keeps them, so that a search
resumes and replays without its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from tuner.space.parameter import Parameter, Prior, Value
from tuner.texts.formatting import counted, shown
from tuner.texts.secrets import has_secret

DefaultsMode = Literal["full", "raced", "off"]
_STRICT = ConfigDict(extra="forbid")
_TABLES = (".csv", ".log", ".db")  # endings of tables of trials beside the space file


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

    @property
    def text(self) -> str:
        """The name, and how many trials it has: `lm-1 (24 trials)`."""
        return f"{self.name} ({counted(self.trials, 'trial')})"


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

    def mode_of_defaults(self, mode: DefaultsMode) -> DefaultsMode:
        """Return how far the defaults train, from `search.defaults`.

        Where draws are proposed, a proposal trains to the end in place of the defaults, which are
        raced.
        """
        return "raced" if mode == "full" and self.draws else mode

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


# names of sources --------------------------------------------------------------------------------


def is_table(source: str) -> bool:
    """Return True if a source is a path or URL of a table, not the name of a search."""
    return "/" in source or source.partition("::")[0].endswith(_TABLES)


def _as_sources(value: Any) -> Any:
    if value is False or (isinstance(value, str) and value in ("auto", "off")):
        return value or "off"
    rule = "search.learn_from must be auto, off or a list of searches and tables"
    if isinstance(value, str):
        raise ValueError(f"{rule}, got {shown(value)}; write [{value}]")
    if not isinstance(value, list | tuple):
        raise ValueError(f"{rule}, got {shown(value)}")
    if not value or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"search.learn_from must name its sources, got {shown(value)}")
    if secret := next((name for name in value if has_secret(name)), None):
        raise ValueError(
            f"search.learn_from must have no password or options, got "
            f"{secret.partition(':')[0]}:…; the library of a database reads passwords from its own "
            f"configuration"
        )
    return tuple(dict.fromkeys(value))


LearnFrom = Annotated[Literal["auto", "off"] | tuple[str, ...], BeforeValidator(_as_sources)]
LEARN_FROM: Literal["auto", "off"] = "off"  # of a search whose file does not say
