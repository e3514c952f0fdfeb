"""Values of the command line that replace those of a file: `--set budget.tokens=20000`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_TITLE = "# On the command line:"
_LINE = "#   "


@dataclass(frozen=True)
class Override:
    """A value that replaces a value of the file, or is added to the file.

    Attributes:
        option: name in messages, `--set budget.tokens`.
        path: keys from the top of the file to the value.
        text: the value, as YAML.
    """

    option: str
    path: tuple[str, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read `KEY=VALUE`, where KEY is a dotted path.

        Raises:
            ValueError: if the text has another form.
        """
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ValueError(f"must be KEY=VALUE, for instance budget.tokens=20000, got {text!r}")
        return cls(f"--set {'.'.join(path)}", path, value)


def annotated(text: str, overrides: Sequence[Override]) -> str:
    """Return the text of a search-space file, followed by the overrides as comments."""
    if not overrides:
        return text
    lines = (f"{_LINE}{'.'.join(o.path)}={o.text}".replace("\n", " ") for o in overrides)
    return "\n".join([text.rstrip("\n"), "", _TITLE, *lines, ""])


def overrides_in(text: str) -> list[Override]:
    """Return the overrides in the comments that `annotated` wrote; the last of each key."""
    _, title, comments = text.rpartition(f"\n{_TITLE}\n")
    lines = [line.removeprefix(_LINE) for line in comments.splitlines() if line.startswith(_LINE)]
    overrides = [Override.parse(line) for line in lines if title]
    return list({override.path: override for override in overrides}.values())


def without_overrides(text: str) -> str:
    """Return the text of a search-space file without the comments that `annotated` wrote."""
    plain, title, _ = text.rpartition(f"\n{_TITLE}\n")
    return f"{plain.rstrip()}\n" if title else text
