"""One bench runs for real in each run of the tests, in turn by the number of the commit.

`make bench-rehearsal` runs all of them (TUNER_REHEARSAL=all). With TUNER_REHEARSAL=record their
results become the recorded ones, in tests/e2e/rehearsed.
"""

from __future__ import annotations

import os
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from tests.e2e import rehearsals


def number_of_commit() -> int:
    """Number of the commit; of a shallow clone its hash, and without git 0."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(rehearsals.BENCH), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--is-shallow-repository") == "true":
            return int(git("rev-parse", "HEAD"), 16)
        return int(git("rev-list", "--count", "HEAD"))
    except (OSError, subprocess.CalledProcessError):
        return 0


def in_turn() -> list[str]:
    """The benches to run."""
    names = list(rehearsals.CHECKS)
    return names if "TUNER_REHEARSAL" in os.environ else [names[number_of_commit() % len(names)]]


@pytest.mark.slow
@pytest.mark.parametrize("name", in_turn())
def test_bench_has_a_quick_mode(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(rehearsals.BENCH)
    result, output = rehearsals.run(name, tmp_path)
    rehearsals.check(name, result, output)
    if os.environ.get("TUNER_REHEARSAL") == "record":
        result["about"]["command"] = f"the quick mode of {name}"  # it has paths of this test
        import_module("parts.measuring").write(result, rehearsals.RECORDED / f"{name}.json")


def test_number_of_a_commit_is_0_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert number_of_commit() == 0
    assert in_turn() in ([next(iter(rehearsals.CHECKS))], list(rehearsals.CHECKS))
