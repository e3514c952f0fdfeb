"""Searches of the home that a release leaves: `make.py` runs them, test_released.py reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.test_resume import story

# name, space, further options
SEARCHES = (
    ("finished", "small.yaml", ()),
    ("proxy", "proxy.yaml", ()),
    ("lora", "adapted.yaml", ()),
    ("sources", "small.yaml", ("--set", "search.learn_from=[finished]", "--set", "confirm=off",
                               "--set", "search.seed=2")),
)  # fmt: skip
KILLED = ("killed", ("--trials", "4", "--set", "confirm=off", "--set", "search.seed=3"))
SERVED = "served"


def reports_of(home: Path, name: str) -> list[list[Any]]:
    """Return what a search reported, in order, as JSON has it."""
    reports = (event[1:] for event in story(home, name) if event[0] == "report")
    return [[str(v) if isinstance(v, str) else v for v in report] for report in reports]
