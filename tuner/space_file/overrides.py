"""What the command line says instead of a search-space file: `--set budget.tokens=20000`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Override:
    """A value that takes the place of one in the file, or is added to it.

    Attributes:
        option: how messages call it, `--set budget.tokens`.
        path: the keys on the way to it.
        text: the value, as YAML.
    """

    option: str
    path: tuple[str, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """From `KEY=VALUE`, KEY being a path with dots.

        Raises:
            ValueError: if it is something else.
        """
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ValueError(f"must be KEY=VALUE, for instance budget.tokens=20000, got {text!r}")
        return cls(f"--set {'.'.join(path)}", path, value)


def annotated(text: str, overrides: Sequence[Override]) -> str:
    """The text of a search-space file, followed by what was said instead of it."""
    if not overrides:
        return text
    lines = (f"#   {'.'.join(o.path)}={o.text}".replace("\n", " ") for o in overrides)
    return "\n".join([text.rstrip("\n"), "", "# On the command line:", *lines, ""])
