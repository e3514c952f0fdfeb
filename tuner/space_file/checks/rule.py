"""Rules of a complete search space: what a rule reads, and its check, whose docstring is it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tuner.space.parameter import Parameter, symbol
from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import Place


class Finding(NamedTuple):
    """A mistake that a check found.

    Attributes:
        place: place in the file.
        message: sentence about the mistake.
        at_key: True if the key is wrong, False if its value is.
    """

    place: Place
    message: str
    at_key: bool = False


@dataclass
class CheckedSpace:
    """A space with what its checks read of the file.

    Attributes:
        space: space of the file; wrong sections have their defaults.
        places: name of a parameter → its place in the file.
        data_size: size of the data in bytes, an upper limit of the number of tokens; None if it is
            unknown before reading, or the data are wrong.
    """

    space: SearchSpace
    places: Mapping[str, Place]
    data_size: int | None = None

    def place(self, name: str) -> Place:
        """Return the place of a parameter; that of all of them if the file does not set it."""
        return self.places.get(name, ("hyperparameters",))

    def place_of(self, parameter: Parameter) -> Place:
        """Return the place of a parameter itself, not of the list of its alternatives."""
        place = self.places[parameter.name]
        return (*place, parameter.alternative - 1) if parameter.alternative else place

    def spelled(self, name: str) -> str:
        """Return the spelling of a parameter in the file."""
        return str(self.places[name][-1]) if name in self.places else symbol(name)


@dataclass(frozen=True)
class Rule:
    """A check, which is left out if a section that it reads is wrong already.

    Attributes:
        reads: sections.
        check: yields the mistakes of a space.
    """

    reads: tuple[str, ...]
    check: Callable[[CheckedSpace], Iterator[Finding]]
