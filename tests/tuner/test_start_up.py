"""Modules that start fast import nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.py", "model/__init__.py"])
def test_module_of_the_user_that_hides_ours_is_named(tmp_path: Path, name: str) -> None:
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("print('it runs')")
    (tmp_path / "script.py").write_text("from tuner import load_space")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    problem = f"{own} hides the package `model` of tuner; rename it, run from another folder, or"
    command, script = run("-m", "tuner", "symbols"), run("script.py")
    assert command.returncode == 2
    assert command.stderr.startswith(f"tuner: {problem}")
    assert command.stderr.count("\n") == 1
    assert script.returncode == 1
    assert script.stderr.splitlines()[-1].startswith(f"ImportError: {problem}")
    assert command.stdout == script.stdout == ""
    assert run("-P", "-m", "tuner", "--version").returncode == 0


@pytest.mark.slow
def test_folder_of_the_user_that_is_no_package_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.txt").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "--version"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("tuner ")
