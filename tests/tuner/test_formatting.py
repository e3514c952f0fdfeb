"""Styles of numbers and ids in texts."""

from __future__ import annotations

import math

import pytest

from tuner.formatting import metric_text, number, short_hash, short_run, shown, significant, written


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
