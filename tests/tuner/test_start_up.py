"""Modules that start fast import nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = {"mlflow", "pandas", "pyarrow", "ray", "scipy", "torch"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("tuner.cli", _HEAVY | {"numpy", "optuna", "pydantic", "yaml"}),
        ("tuner.driver.search", _HEAVY),
        ("tuner.workers.worker", _HEAVY),  # the driver makes an actor of it
    ],
)
def test_module_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())
