"""Version of the format of homes and journals: what a newer tuner wrote is refused."""

from __future__ import annotations

from typing import Any

# Raised when an older tuner could no longer read, or would damage, what this one writes. Homes and
# journals without a number are of format 1.
FORMAT = 1


def newer(what: str, number: Any) -> str | None:
    """Return a sentence that refuses something of a newer format; None if it can be read.

    Args:
        what: what has the format, as the start of the sentence.
        number: its format; anything but a whole number comes from a later version, too.
    """
    if isinstance(number, int) and number <= FORMAT:
        return None
    return (
        f"{what} has format {number}, and this tuner reads formats up to {FORMAT}: a newer version "
        f"made it; upgrade with 'pip install --upgrade tuner'"
    )
