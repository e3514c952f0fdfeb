"""The ranges of pyproject.toml hold what constraints.txt pins, and have both ends."""

from __future__ import annotations

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.versions import requirements

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pins = pinned()
    texts = [
        *PROJECT["dependencies"],
        *chain.from_iterable(PROJECT["optional-dependencies"].values()),
    ]
    assert len(texts) > 60
    for text in texts:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_ends_of_the_ranges() -> None:
    oldest = requirements("oldest", ["torch==2.13.0+cpu", "sqlalchemy==2.0.*"])
    assert {"torch==2.13.0+cpu", "sqlalchemy==2.0.*", "ray[tune]==2.52.*"} <= set(oldest)
    assert not any(">=" in text for text in oldest)
    assert requirements("newest") == PROJECT["dependencies"]
    for text, end in zip(PROJECT["dependencies"], requirements("oldest"), strict=True):
        low = end.partition("==")[2].removesuffix(".*")
        assert low in Requirement(text).specifier


def test_dependency_without_a_lower_bound_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    project = {"project": {"dependencies": ["regex"]}}
    monkeypatch.setattr(tomllib, "loads", lambda text: project)
    with pytest.raises(ValueError, match="regex has no lower bound"):
        requirements("oldest")
