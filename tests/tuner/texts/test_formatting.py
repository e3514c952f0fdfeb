"""Styles of numbers and ids in texts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tuner.space_file.yaml_file import YamlFile
from tuner.texts.formatting import (
    clock,
    counted,
    in_seconds,
    metric_text,
    number,
    real_number,
    short_hash,
    short_run,
    shown,
    significant,
    written,
)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (1 / 3, ("0.333333333333", "0.333333", "0.333", "0.3333")),
        (1e-5, ("1e-05", "1e-5", "1.00e-05", "0.0000")),
        (16, ("16", "16", "16", "16.0000")),
        (123456.0, ("123456", "1.23456e5", "123456", "123456.0000")),
    ],
)
def test_numbers_have_one_text_in_each_style(value: float, texts: tuple[str, ...]) -> None:
    assert (shown(value), written(value), number(value), metric_text(value)) == texts


def test_infinite_objective_is_a_sign() -> None:
    assert metric_text(math.inf) == "∞"


def test_significant_rounds_to_digits() -> None:
    assert [significant(0.0123456, n) for n in (1, 2, 3)] == [0.01, 0.012, 0.0123]


def test_short_ids_keep_the_first_letters() -> None:
    assert (short_run("0123456789abcdef"), short_hash("0123456789abcdef")) == (
        "01234567", "0123456789ab"
    )  # fmt: skip
    assert short_run("") == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("45m", 2700), ("1.5h", 5400), ("1h30m", 5400), ("1d 2h", 93_600),
        ("1:30", 90), ("1:30:00", 5400), ("90:00", 5400), ("1h 5s", 3605),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert in_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1m1h", "1h30", "1:75", "2 weeks", "-1s", "1:2:3:4"])
def test_durations_of_other_forms_stay_texts(text: str) -> None:
    assert in_seconds(text) == text


@pytest.mark.parametrize(
    "text",
    ["7", "2_000_000", "1e6", "2.5E-3", ".5", "1.", "+3", "-4", "010", "1e", "0x10", "_1", "a",
     ".inf", "nan", "1,000", "1__0", "٣"],
)  # fmt: skip
def test_numbers_of_options_are_those_of_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"x: {text}")
    value = YamlFile(tmp_path / "a.yaml").data["x"]
    number = real_number(text)
    assert number == value if isinstance(value, int | float) else math.isnan(number)


def test_counts_have_plurals() -> None:
    assert [counted(n, "trial") for n in (0, 1, 2, 1200)] == [
        "0 trials", "1 trial", "2 trials", "1,200 trials",
    ]  # fmt: skip


def test_clock_counts_days_from_two_days_on() -> None:
    """A clock of 2035 once made `status` say that a report is 71015:13:07 old."""
    assert [clock(seconds) for seconds in (65, 3600, 172_799, 172_800, 255_654_787)] == [
        "1:05", "1:00:00", "47:59:59", "2 d 0:00:00", "2958 d 23:13:07",
    ]  # fmt: skip
