"""What is imported before it is needed is paid for at every start."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = {"mlflow", "pandas", "pyarrow", "ray", "scipy", "torch"}


@pytest.mark.parametrize(
    ("module", "brings"),
    [
        ("tuner.cli", _HEAVY | {"numpy", "optuna", "pydantic", "yaml"}),
        ("tuner.driver.search", _HEAVY),
        ("tuner.workers.worker", _HEAVY),  # of which the driver makes an actor
    ],
)
def test_module_does_not_import_what_takes_long(module: str, brings: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert brings.isdisjoint(done.stdout.split())
