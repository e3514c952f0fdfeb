"""Types of options: functions from the text of an option to its value, as argparse calls them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from tuner.commands.output import in_utf8
from tuner.errors import RecordError
from tuner.home.names import check_name, check_new_name, check_run_name
from tuner.space_file.overrides import Override
from tuner.texts.formatting import in_flops, in_seconds, real_number


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `low` to `high`."""

    def parse_whole(text: str) -> int:
        value: float = real_number(text)
        digits = text.replace("_", "")
        if math.isfinite(value) and digits.isdecimal():
            value = int(digits)  # a float has 53 bits
        if not low <= value <= high or value != int(value):
            message = f"must be a whole number from {low} to {high}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return int(value)

    return parse_whole


def real(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`."""

    def parse_real(text: str) -> float:
        value = real_number(text)
        if not low <= value <= high:
            message = f"must be a number from {low:g} to {high:g}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return parse_real


def setting(text: str) -> Override:
    """Return an override by `KEY=VALUE`."""
    try:
        return Override.parse(in_utf8(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def amount(text: str) -> float:
    """Return the number of `1e9`, `400M`, `1B` (a billion), `2.5T` or `2P`."""
    stripped = text.strip()
    value = in_flops(f"{stripped[:-1]}G" if stripped[-1:] in ("B", "b") else stripped)
    if not isinstance(value, float) or not 1 <= value < 1e30:
        message = f"must be a number of 1 or more such as 1e9, 400M or 1B, got {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def duration(text: str) -> float:
    """Return the seconds of `90`, `90s`, `1h30m` or `1:30:00`."""
    value = in_seconds(text)
    seconds = value if isinstance(value, float) else real_number(text)
    if not 0 < seconds < float("inf"):
        message = f"must be a time above 0 such as 90s, 1h30m or 1:30:00, got {text}"
        raise argparse.ArgumentTypeError(message)
    return seconds


def override(
    part: str, name: str, parse_value: Callable[[str], float], option: str | None = None
) -> Callable[[str], Override]:
    """Return an argparse type: an override of `part.name` by an option of its own."""

    def parse_override(text: str) -> Override:
        return Override(option or f"--{name}", (part, name), str(parse_value(text)))

    return parse_override


def _checked(check: Callable[..., str]) -> Callable[[str], str]:
    """Return an argparse type: a name that a function of `tuner.home.names` accepts."""

    def parse_name(text: str) -> str:
        try:
            return check(in_utf8(text))
        except RecordError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_name


search_name, new_name, run_name = map(_checked, (check_name, check_new_name, check_run_name))
